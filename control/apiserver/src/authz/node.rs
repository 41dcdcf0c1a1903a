//! What a node's agent needs: its own objects to write, what its pods and its proxy need to read.
//!
//! In: a user of the group `system:nodes`, the request. Out: whether it is one an agent makes.

use xebec_api::fields::FieldSelector;
use xebec_api::wellknown::names::{GROUP_NODES, KUBE_NODE_LEASE, KUBE_SYSTEM, USER_NODE_PREFIX};

use super::Attributes;
use crate::authn::UserInfo;

const READ: &[&str] = &["get", "list", "watch"];

pub(super) fn allows(user: &UserInfo, attributes: &Attributes<'_>) -> bool {
    let Some(node) = user.name.strip_prefix(USER_NODE_PREFIX).filter(|_| user.in_group(GROUP_NODES)) else {
        return false;
    };
    let info = attributes.info;
    if !info.is_resource_request {
        return false;
    }
    let (verb, name) = (info.verb, info.name.as_str());
    let namespace = info.namespace.as_deref().unwrap_or_default();
    match (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
        // Every pod is looked at through its node.
        ("", "pods", "") => match verb {
            "list" | "watch" => selects_node(attributes.field_selector, node),
            // Mirror pods are made here; a finished pod is removed for good.
            _ => matches!(verb, "get" | "create" | "delete"),
        },
        ("", "pods", "status") => matches!(verb, "update" | "patch"),
        ("", "pods", "eviction") => verb == "create",
        ("", "nodes", "" | "status") if name == node => matches!(verb, "get" | "update" | "patch"),
        // Whether the name in the body is its own is seen when the object is read.
        ("", "nodes", "") => READ.contains(&verb) || verb == "create",
        ("", "services" | "endpoints" | "namespaces" | "persistentvolumes", "") => READ.contains(&verb),
        ("", "configmaps" | "secrets", "") => {
            // Never all of them: one by one, or the one a watch names.
            verb == "get" || (READ.contains(&verb) && names_one(attributes.field_selector))
        }
        ("", "serviceaccounts", "") => READ.contains(&verb),
        ("", "serviceaccounts", "token") => verb == "create",
        ("", "persistentvolumeclaims", "") => verb == "get",
        ("" | "events.k8s.io", "events", "") => matches!(verb, "create" | "update" | "patch"),
        ("discovery.k8s.io", "endpointslices", "") => {
            // Slices of the node-local DNS are written by the agents.
            READ.contains(&verb)
                || (namespace == KUBE_SYSTEM && matches!(verb, "create" | "update" | "patch" | "delete"))
        }
        ("coordination.k8s.io", "leases", "") if namespace == KUBE_NODE_LEASE => {
            READ.contains(&verb)
                || verb == "create"
                || (name == node && matches!(verb, "update" | "patch" | "delete"))
        }
        ("certificates.k8s.io", "certificatesigningrequests", "") => {
            matches!(verb, "create" | "get" | "list" | "watch")
        }
        ("authentication.k8s.io", "tokenreviews", "") => verb == "create",
        ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => {
            verb == "create"
        }
        ("node.k8s.io", "runtimeclasses", "") => READ.contains(&verb),
        ("storage.k8s.io", "csidrivers", "") => READ.contains(&verb),
        ("networking.k8s.io", "networkpolicies", "") => READ.contains(&verb),
        _ => false,
    }
}

fn selects_node(selector: &str, node: &str) -> bool {
    FieldSelector::parse(selector).is_ok_and(|selector| selector.exact("spec.nodeName") == Some(node))
}

fn names_one(selector: &str) -> bool {
    FieldSelector::parse(selector).is_ok_and(|selector| selector.exact("metadata.name").is_some())
}
