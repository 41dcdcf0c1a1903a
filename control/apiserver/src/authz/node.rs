//! What a node's agent needs: its own objects to write, what its pods and its proxy need to read.
//!
//! In: a node's name, what it asks for, the [`Graph`] of pods. Out: whether a node may ask that. What a write says is
//! looked at later, by the admission of node restriction.

use std::ops::Deref;

use xebec_api::fields::FieldSelector;
use xebec_api::wellknown::names::{KUBE_NODE_LEASE, KUBE_SYSTEM};

use super::Attributes;
use super::graph::{Graph, Kind};

const READ: &[&str] = &["get", "list", "watch"];

pub(super) fn allows<G: Deref<Target = Graph>>(
    node: &str,
    asked: &Attributes<'_>,
    graph: impl FnOnce() -> G,
) -> bool {
    if asked.path.is_some() {
        return false;
    }
    let (verb, name, namespace) = (asked.verb, asked.name, asked.namespace);
    match (asked.group, asked.resource, asked.subresource) {
        ("", "pods", "") => match verb {
            "list" | "watch" => selects_node(asked.field_selector, node),
            // That a pod does not exist may be known.
            "get" => !graph().is_elsewhere(node, namespace, name),
            // Mirror pods are made here; a finished pod is removed for good.
            _ => matches!(verb, "create" | "delete"),
        },
        ("", "pods", "status") => matches!(verb, "get" | "update" | "patch"),
        ("", "pods", "eviction") => verb == "create",
        ("", "nodes", "" | "status") if name == node => matches!(verb, "get" | "update" | "patch"),
        // All nodes are read for the routes between them.
        ("", "nodes", "") => READ.contains(&verb) || verb == "create",
        ("", "services" | "endpoints" | "namespaces", "") => READ.contains(&verb),
        ("", "configmaps", "") => reads_needed(node, asked, Kind::ConfigMap, graph),
        ("", "secrets", "") => reads_needed(node, asked, Kind::Secret, graph),
        ("", "serviceaccounts", "") => {
            verb == "get" && graph().needs(node, Kind::ServiceAccount, namespace, name)
        }
        ("", "serviceaccounts", "token") => {
            verb == "create" && graph().needs(node, Kind::ServiceAccount, namespace, name)
        }
        ("", "persistentvolumeclaims", "") => {
            verb == "get" && graph().needs(node, Kind::Claim, namespace, name)
        }
        // Whose claim a volume is for is in the volume, which is looked at after this.
        ("", "persistentvolumes", "") => verb == "get",
        ("" | "events.k8s.io", "events", "") => matches!(verb, "create" | "update" | "patch"),
        ("discovery.k8s.io", "endpointslices", "") => {
            // Slices of the node-local DNS are written by the agents.
            READ.contains(&verb)
                || (namespace == KUBE_SYSTEM && matches!(verb, "create" | "update" | "patch" | "delete"))
        }
        // Pods are drained once every node's lease says that it knows.
        ("coordination.k8s.io", "leases", "") if namespace == KUBE_NODE_LEASE => {
            READ.contains(&verb)
                || verb == "create"
                || (name == node && matches!(verb, "update" | "patch" | "delete"))
        }
        ("certificates.k8s.io", "certificatesigningrequests", "") => {
            matches!(verb, "create" | "get" | "list" | "watch")
        }
        ("authentication.k8s.io", "tokenreviews", "")
        | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => {
            verb == "create"
        }
        ("node.k8s.io", "runtimeclasses", "")
        | ("storage.k8s.io", "csidrivers", "")
        | ("networking.k8s.io", "networkpolicies" | "servicecidrs", "") => READ.contains(&verb),
        ("storage.k8s.io", "csinodes", "") => {
            verb == "create" || (name == node && matches!(verb, "get" | "update" | "patch" | "delete"))
        }
        ("storage.k8s.io", "volumeattachments", "") => verb == "get",
        _ => false,
    }
}

/// Never all of them: one by one, or the one a watch names, and only what a pod of the node refers to.
fn reads_needed<G: Deref<Target = Graph>>(
    node: &str,
    asked: &Attributes<'_>,
    kind: Kind,
    graph: impl FnOnce() -> G,
) -> bool {
    let selector = FieldSelector::parse(asked.field_selector).ok();
    let name = match asked.verb {
        "get" => Some(asked.name),
        "list" | "watch" => selector.as_ref().and_then(|selector| selector.exact("metadata.name")),
        _ => None,
    };
    name.is_some_and(|name| !asked.namespace.is_empty() && graph().needs(node, kind, asked.namespace, name))
}

fn selects_node(selector: &str, node: &str) -> bool {
    FieldSelector::parse(selector).is_ok_and(|selector| selector.exact("spec.nodeName") == Some(node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follow::Fold;
    use crate::options::Query;
    use crate::request::RequestInfo;
    use serde_json::json;

    fn graph() -> Box<Graph> {
        let mut graph = Box::new(Graph::default());
        for (name, node) in [("mine", "n1"), ("other", "n2")] {
            let pod = json!({
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"nodeName": node, "serviceAccountName": name, "volumes": [{"secret": {"secretName": name}}]},
            });
            graph.put(&format!("default/{name}"), pod);
        }
        graph
    }

    fn allowed(method: &str, path: &str) -> bool {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = Query::parse(Some(query));
        let info = RequestInfo::parse(&method.parse().expect("a method"), path, &query);
        allows("n1", &Attributes::of(&info, query.get("fieldSelector").unwrap_or_default()), graph)
    }

    #[test]
    fn nodes_may_what_agents_need() {
        for (method, path) in [
            ("GET", "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1"),
            ("GET", "/api/v1/namespaces/default/pods/mine"),
            ("GET", "/api/v1/namespaces/default/pods/unknown"),
            ("GET", "/apis/discovery.k8s.io/v1/endpointslices?watch=1"),
            ("GET", "/api/v1/namespaces/default/secrets/mine"),
            ("GET", "/api/v1/namespaces/default/secrets?watch=1&fieldSelector=metadata.name%3Dmine"),
            ("POST", "/api/v1/nodes"),
            ("PATCH", "/api/v1/nodes/n1/status"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"),
            ("PATCH", "/api/v1/namespaces/default/pods/a/status"),
            ("POST", "/api/v1/namespaces/default/serviceaccounts/mine/token"),
            ("POST", "/api/v1/namespaces/default/events"),
        ] {
            assert!(allowed(method, path), "{method} {path}");
        }
    }

    #[test]
    fn nodes_may_nothing_of_other_nodes() {
        for (method, path) in [
            ("GET", "/api/v1/secrets"),
            ("GET", "/api/v1/namespaces/default/secrets"),
            ("GET", "/api/v1/namespaces/default/secrets/other"),
            ("GET", "/api/v1/namespaces/default/secrets/unknown"),
            ("GET", "/api/v1/namespaces/default/configmaps/mine"),
            ("GET", "/api/v1/namespaces/default/secrets?watch=1&fieldSelector=metadata.name%3Dother"),
            ("GET", "/api/v1/secrets?watch=1&fieldSelector=metadata.name%3Dmine"),
            ("GET", "/api/v1/namespaces/default/pods/other"),
            ("GET", "/api/v1/pods"),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2"),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName!%3Dn1"),
            ("POST", "/api/v1/namespaces/default/serviceaccounts/other/token"),
            ("PATCH", "/api/v1/nodes/n2/status"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/default/leases/n1"),
            ("POST", "/api/v1/namespaces/default/secrets"),
            ("DELETE", "/api/v1/nodes/n2"),
            ("DELETE", "/api/v1/namespaces/default/pods"),
            ("POST", "/apis/apps/v1/namespaces/default/deployments"),
            ("GET", "/metrics"),
        ] {
            assert!(!allowed(method, path), "{method} {path}");
        }
    }
}
