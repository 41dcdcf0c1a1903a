//! What a request is about, read off its method, path and query alone.
//!
//! In: an HTTP request line. Out: [`RequestInfo`], which authorisation and dispatch go by. Absent: whether the
//! resource exists.

use http::Method;
use percent_encoding::percent_decode_str;

use crate::options::Query;

/// The attributes of a request, by upstream's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub is_resource_request: bool,
    /// As sent, not decoded.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for paths that are no
    /// resource the HTTP method in lower case.
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    pub namespace: Option<String>,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the sub-resource (`proxy/a/b`).
    pub trailing: String,
}

/// Sub-resources of a Namespace: `namespaces/x/status` is no resource `status` in namespace `x`.
const NAMESPACE_SUBRESOURCES: &[&str] = &["status", "finalize"];

impl RequestInfo {
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let decode = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
        let segments: Vec<String> =
            path.split('/').filter(|segment| !segment.is_empty()).map(decode).collect();
        let mut info = Self { path: path.to_owned(), verb: plain_verb(method), ..Self::default() };
        let mut rest = match segments.split_first() {
            Some((root, rest)) if root == "api" && !rest.is_empty() => {
                info.version.clone_from(&rest[0]);
                &rest[1..]
            }
            Some((root, rest)) if root == "apis" && rest.len() > 1 => {
                info.group.clone_from(&rest[0]);
                info.version.clone_from(&rest[1]);
                &rest[2..]
            }
            _ => return info,
        };
        if rest.is_empty() {
            return info;
        }
        info.is_resource_request = true;
        if let [root, namespace, ..] = rest
            && root == "namespaces"
        {
            info.namespace = Some(namespace.clone());
            if rest.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&rest[2].as_str()) {
                rest = &rest[2..];
            }
        }
        info.resource.clone_from(&rest[0]);
        info.name = rest.get(1).cloned().unwrap_or_default();
        info.subresource = rest.get(2).cloned().unwrap_or_default();
        info.trailing = rest.get(3..).unwrap_or_default().join("/");
        info.verb = info.resource_verb(method, query);
        info
    }

    fn resource_verb(&self, method: &Method, query: &Query) -> &'static str {
        match (method.as_str(), self.name.is_empty()) {
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            ("GET" | "HEAD", true) if query.flag("watch") => "watch",
            ("GET" | "HEAD", true) => "list",
            // `GET .../pods/x?watch=true` is not a watch: upstream reads it as a get, too.
            ("GET" | "HEAD", false) => "get",
            // Nothing is allowed by such a verb, and nothing done.
            _ => plain_verb(method),
        }
    }
}

fn plain_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, path: &str, query: &str) -> RequestInfo {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        RequestInfo::parse(&method, path, &Query::parse(Some(query)))
    }

    #[test]
    fn paths_are_taken_apart() {
        let info = parse("GET", "/api/v1/namespaces/default/pods/web/log", "");
        assert_eq!(
            (info.verb, info.namespace.as_deref(), info.resource.as_str(), info.name.as_str()),
            ("get", Some("default"), "pods", "web")
        );
        assert_eq!(info.subresource, "log");

        let info = parse("PUT", "/api/v1/namespaces/default/finalize", "");
        assert_eq!((info.resource.as_str(), info.name.as_str()), ("namespaces", "default"));
        assert_eq!((info.subresource.as_str(), info.namespace.as_deref()), ("finalize", Some("default")));

        let info = parse("GET", "/apis/apps/v1/deployments", "watch=1");
        assert_eq!((info.verb, info.group.as_str(), info.namespace), ("watch", "apps", None));

        let info = parse("DELETE", "/apis/apps/v1/namespaces/a/deployments", "");
        assert_eq!(info.verb, "deletecollection");

        for method in ["OPTIONS", "TRACE", "CONNECT", "LIST", "get"] {
            for path in ["/api/v1/pods", "/api/v1/namespaces/default/pods/a"] {
                let verb = parse(method, path, "watch=true").verb;
                assert!(matches!(verb, "options" | "other"), "{method} {path}: {verb}");
            }
        }
        assert_eq!(parse("HEAD", "/api/v1/nodes/a", "").verb, "get");

        let info = parse("GET", "/healthz", "");
        assert!(!info.is_resource_request);
        assert_eq!(info.verb, "get");
    }

    #[test]
    fn names_are_decoded_once() {
        assert_eq!(parse("GET", "/api/v1/nodes/a%2Fb", "").name, "a/b");
        assert_eq!(parse("GET", "/api/v1/nodes/a%252Fb", "").name, "a%2Fb");
    }
}
