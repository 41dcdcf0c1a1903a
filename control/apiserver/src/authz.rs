//! Who may do what: closed by default.
//!
//! In: a user and what the request is about. Out: allowed, or why not. Rules that need objects (RBAC) join here as
//! further [`Rule`]s; the first that allows decides.

use crate::authn::UserInfo;
use crate::request::RequestInfo;

mod node;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a> {
    pub(crate) info: &'a RequestInfo,
    /// The field selector of a list or watch.
    pub(crate) field_selector: &'a str,
}

/// One source of permission.
type Rule = fn(&UserInfo, &Attributes<'_>) -> bool;

const RULES: &[Rule] = &[masters, control_plane, node::allows, public, discovery, self_reviews];

const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
/// They live in this process and are told apart by name only.
const CONTROL_PLANE: &[&str] =
    &["system:kube-scheduler", "system:kube-controller-manager", "system:apiserver"];

/// Whether the user may.
pub(crate) fn is_allowed(user: &UserInfo, attributes: &Attributes<'_>) -> bool {
    RULES.iter().any(|rule| rule(user, attributes))
}

/// The sentence after "forbidden: " in a 403.
pub(crate) fn denial(user: &UserInfo, info: &RequestInfo) -> String {
    let name = &user.name;
    if !info.is_resource_request {
        return format!("User {name:?} cannot {} path {:?}", info.verb, info.path);
    }
    let resource = if info.subresource.is_empty() {
        info.resource.clone()
    } else {
        format!("{}/{}", info.resource, info.subresource)
    };
    let scope = match &info.namespace {
        // A Namespace is asked for by name, not inside of itself.
        Some(namespace) if info.resource != "namespaces" => format!("in the namespace {namespace:?}"),
        _ => "at the cluster scope".to_owned(),
    };
    format!("User {name:?} cannot {} resource {resource:?} in API group {:?} {scope}", info.verb, info.group)
}

fn masters(user: &UserInfo, _: &Attributes<'_>) -> bool {
    user.in_group(MASTERS)
}

fn control_plane(user: &UserInfo, _: &Attributes<'_>) -> bool {
    CONTROL_PLANE.contains(&user.name.as_str())
}

/// Health and version, for everyone.
fn public(_: &UserInfo, attributes: &Attributes<'_>) -> bool {
    let info = attributes.info;
    !info.is_resource_request
        && info.verb == "get"
        && matches!(info.path.trim_end_matches('/'), "/healthz" | "/livez" | "/readyz" | "/version")
}

/// What is served, for everyone who is known.
fn discovery(user: &UserInfo, attributes: &Attributes<'_>) -> bool {
    let info = attributes.info;
    let below =
        |root: &str| info.path == root || info.path.strip_prefix(root).is_some_and(|p| p.starts_with('/'));
    user.in_group(AUTHENTICATED)
        && !info.is_resource_request
        && info.verb == "get"
        && (["/api", "/apis", "/openapi", "/healthz", "/livez", "/readyz", "/version"].into_iter().any(below)
            || info.path == "/.well-known/openid-configuration")
}

/// Asking about oneself.
fn self_reviews(user: &UserInfo, attributes: &Attributes<'_>) -> bool {
    let info = attributes.info;
    user.in_group(AUTHENTICATED)
        && info.verb == "create"
        && matches!(
            (info.group.as_str(), info.resource.as_str()),
            ("authorization.k8s.io", "selfsubjectaccessreviews" | "selfsubjectrulesreviews")
                | ("authentication.k8s.io", "selfsubjectreviews")
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Query;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        UserInfo {
            name: name.into(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            ..UserInfo::default()
        }
    }

    fn allowed(user: &UserInfo, method: &str, path: &str) -> bool {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = Query::parse(Some(query));
        let info = RequestInfo::parse(&method.parse().expect("a method"), path, &query);
        let field_selector = query.get("fieldSelector").unwrap_or_default();
        is_allowed(user, &Attributes { info: &info, field_selector })
    }

    #[test]
    fn everything_is_closed_to_strangers() {
        let anonymous = user("system:anonymous", &["system:unauthenticated"]);
        assert!(allowed(&anonymous, "GET", "/healthz"));
        assert!(allowed(&anonymous, "GET", "/version"));
        for path in ["/api", "/metrics", "/api/v1/pods", "/healthz/../api", "/openapi/v3"] {
            assert!(!allowed(&anonymous, "GET", path), "{path}");
        }
        let jane = user("jane", &[AUTHENTICATED]);
        assert!(allowed(&jane, "GET", "/apis/apps/v1"));
        assert!(allowed(&jane, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"));
        assert!(!allowed(&jane, "GET", "/api/v1/namespaces/default/pods"));
        assert!(!allowed(&jane, "GET", "/apixyz"));
        assert!(allowed(&user("root", &[MASTERS, AUTHENTICATED]), "DELETE", "/api/v1/nodes"));
    }

    #[test]
    fn nodes_may_what_agents_need() {
        let node = user("system:node:n1", &["system:nodes", AUTHENTICATED]);
        for (method, path) in [
            ("GET", "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1"),
            ("GET", "/apis/discovery.k8s.io/v1/endpointslices?watch=1"),
            ("GET", "/api/v1/namespaces/default/secrets/a"),
            ("POST", "/api/v1/nodes"),
            ("PATCH", "/api/v1/nodes/n1/status"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"),
            ("PATCH", "/api/v1/namespaces/default/pods/a/status"),
            ("POST", "/api/v1/namespaces/default/serviceaccounts/a/token"),
            ("POST", "/api/v1/namespaces/default/events"),
        ] {
            assert!(allowed(&node, method, path), "{method} {path}");
        }
        for (method, path) in [
            ("GET", "/api/v1/secrets"),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2"),
            ("PATCH", "/api/v1/nodes/n2/status"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2"),
            ("POST", "/api/v1/namespaces/default/secrets"),
            ("DELETE", "/api/v1/nodes/n2"),
            ("POST", "/apis/apps/v1/namespaces/default/deployments"),
        ] {
            assert!(!allowed(&node, method, path), "{method} {path}");
        }
        let imposter = user("system:node:n1", &[AUTHENTICATED]);
        assert!(!allowed(&imposter, "GET", "/api/v1/nodes"));
    }

    #[test]
    fn denials_are_worded_as_upstream_words_them() {
        let jane = user("jane", &[AUTHENTICATED]);
        let parse = |path: &str| RequestInfo::parse(&http::Method::GET, path, &Query::default());
        assert_eq!(
            denial(&jane, &parse("/api/v1/namespaces/default/pods/a/log")),
            "User \"jane\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"default\""
        );
        assert_eq!(
            denial(&jane, &parse("/apis/apps/v1/deployments")),
            "User \"jane\" cannot list resource \"deployments\" in API group \"apps\" at the cluster scope"
        );
        assert_eq!(denial(&jane, &parse("/metrics")), "User \"jane\" cannot get path \"/metrics\"");
    }
}
