//! Who may do what: closed by default.
//!
//! In: a user and what is asked for. Out: allowed and why, or the sentence of a 403. Three sources of permission, the
//! first that allows decides: the group that may everything, what nodes need ([`node`]), roles ([`policy`]).

use xebec_store::Store;

use crate::authn::{MASTERS_GROUP, UserInfo};
use crate::follow::Follow;
use crate::meta;
use crate::registry::Registry;
use crate::request::RequestInfo;

pub(crate) mod defaults;
pub(crate) mod escalation;
pub(crate) mod graph;
mod node;
pub(crate) mod policy;
pub(crate) mod rule;

use graph::Graph;
use policy::Policy;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    /// Empty for what has none.
    pub(crate) namespace: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) name: &'a str,
    /// Of a request that is about no resource.
    pub(crate) path: Option<&'a str>,
    /// The field selector of a list or watch.
    pub(crate) field_selector: &'a str,
}

/// What the store says of permissions, kept in memory.
pub(crate) struct Permissions {
    policy: Follow<Policy>,
    graph: Follow<Graph>,
}

/// Why the user may; `None` if the user may not.
pub(crate) fn allows(registry: &Registry, user: &UserInfo, asked: &Attributes<'_>) -> Option<String> {
    if user.in_group(MASTERS_GROUP) {
        return Some(String::new());
    }
    let (permissions, store) = (&registry.permissions, &registry.store);
    if let Some(node) = user.node_name()
        && node::allows(node, asked, || permissions.graph(store))
        && is_own_volume(registry, node, asked)
    {
        return Some(String::new());
    }
    permissions.policy(store).allows(user, asked)
}

/// A volume is a node's business once it belongs to a claim of one of its pods.
fn is_own_volume(registry: &Registry, node: &str, asked: &Attributes<'_>) -> bool {
    if (asked.group, asked.resource) != ("", "persistentvolumes") {
        return true;
    }
    let Some(volume) = registry.core_object("persistentvolumes", None, asked.name) else { return false };
    let claim = |field| meta::text(&volume, &["spec", "claimRef", field]);
    let graph = registry.permissions.graph(&registry.store);
    graph.needs(node, graph::Kind::Claim, claim("namespace"), claim("name"))
}

/// The sentence after "forbidden: " in a 403.
pub(crate) fn denial(user: &UserInfo, asked: &Attributes<'_>) -> String {
    let (name, verb) = (&user.name, asked.verb);
    if let Some(path) = asked.path {
        return format!("User {name:?} cannot {verb} path {path:?}");
    }
    let resource = if asked.subresource.is_empty() {
        asked.resource.to_owned()
    } else {
        format!("{}/{}", asked.resource, asked.subresource)
    };
    let scope = match asked.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!("User {name:?} cannot {verb} resource {resource:?} in API group {:?} {scope}", asked.group)
}

// === impl Attributes ===

impl<'a> Attributes<'a> {
    pub(crate) fn of(info: &'a RequestInfo, field_selector: &'a str) -> Self {
        Self {
            verb: info.verb,
            group: &info.group,
            namespace: info.namespace.as_deref().unwrap_or_default(),
            resource: &info.resource,
            subresource: &info.subresource,
            name: &info.name,
            path: (!info.is_resource_request).then_some(&*info.path),
            field_selector,
        }
    }
}

// === impl Permissions ===

impl Permissions {
    pub(crate) fn new() -> Self {
        Self { policy: Follow::new(policy::PREFIX), graph: Follow::new(graph::PREFIX) }
    }

    pub(crate) fn policy(&self, store: &Store) -> std::sync::RwLockReadGuard<'_, Policy> {
        self.policy.read(store)
    }

    pub(crate) fn graph(&self, store: &Store) -> std::sync::RwLockReadGuard<'_, Graph> {
        self.graph.read(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::AUTHENTICATED_GROUP;
    use crate::options::Query;

    #[test]
    fn denials_are_worded_as_upstream_words_them() {
        let jane = UserInfo::authenticated("jane", [AUTHENTICATED_GROUP]);
        let denied = |path: &str| {
            let info = RequestInfo::parse(&http::Method::GET, path, &Query::default());
            denial(&jane, &Attributes::of(&info, ""))
        };
        assert_eq!(
            denied("/api/v1/namespaces/default/pods/a/log"),
            "User \"jane\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"default\""
        );
        assert_eq!(
            denied("/apis/apps/v1/deployments"),
            "User \"jane\" cannot list resource \"deployments\" in API group \"apps\" at the cluster scope"
        );
        assert_eq!(
            denied("/api/v1/namespaces/x"),
            "User \"jane\" cannot get resource \"namespaces\" in API group \"\" in the namespace \"x\""
        );
        assert_eq!(denied("/metrics"), "User \"jane\" cannot get path \"/metrics\"");
    }
}
