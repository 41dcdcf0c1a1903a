//! What a node may say: of itself and of its own pods, and not who it is trusted to be.
//!
//! In: writes by users of nodes. Out: 403 for what is another node's, for labels and taints that place pods, for owners,
//! and for mirror pods that would reach for what their node must not have.

use serde_json::Value;
use xebec_api::wellknown::annotations::MIRROR_POD;
use xebec_api::wellknown::labels::{NODE_RESTRICTION, SERVICE_NAME};
use xebec_api::wellknown::names::{KUBE_DNS, KUBE_NODE_LEASE, KUBE_SYSTEM};

use super::{Admit, Operation};
use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;

/// Labels of the system that a node sets itself.
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
/// Prefixes of labels of the system that are free for nodes.
const OWN_PREFIXES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

pub(super) fn validate(cx: &Cx<'_>, admit: &Admit<'_>, object: &Value) -> Result<(), ApiError> {
    let Some(node) = cx.user.node_name() else { return Ok(()) };
    let problem = match admit.target() {
        ("", "pods", subresource) => pod(node, admit, subresource, object),
        ("", "nodes", "" | "status") => node_object(node, admit, object),
        ("coordination.k8s.io", "leases", "") => lease(node, admit, object),
        ("storage.k8s.io", "csinodes", "") if meta::name(object) != node => {
            Some("can only access CSINode with the same name as the requesting node".to_owned())
        }
        ("discovery.k8s.io", "endpointslices", "") => slice(node, admit, object),
        _ => None,
    };
    problem.map_or(Ok(()), |problem| Err(admit.refuse(problem)))
}

fn pod(node: &str, admit: &Admit<'_>, subresource: &str, pod: &Value) -> Option<String> {
    let before = admit.old.unwrap_or(pod);
    let on = meta::text(before, &["spec", "nodeName"]);
    match (subresource, admit.operation) {
        ("", Operation::Create) => mirror_pod(node, pod),
        ("", Operation::Delete) if on != node => {
            Some(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        ("status", Operation::Update) => {
            let labels = |pod: &Value| meta::at(pod, &["metadata", "labels"]).cloned();
            if on != node {
                Some(format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                ))
            } else if labels(pod) != labels(before) {
                Some(format!("node {node:?} cannot update labels through pod status"))
            } else {
                None
            }
        }
        ("eviction", _) if on != node => {
            Some(format!("node {node:?} can only evict pods with spec.nodeName set to itself"))
        }
        _ => None,
    }
}

fn mirror_pod(node: &str, pod: &Value) -> Option<String> {
    if meta::at(pod, &["metadata", "annotations", MIRROR_POD]).is_none() {
        return Some(format!(
            "pod does not have {MIRROR_POD:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if meta::text(pod, &["spec", "nodeName"]) != node {
        return Some(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners: Vec<&Value> = meta::items(pod, &["metadata", "ownerReferences"]).collect();
    let is_node = |owner: &Value| {
        meta::text(owner, &["apiVersion"]) == "v1"
            && meta::text(owner, &["kind"]) == "Node"
            && meta::text(owner, &["name"]) == node
            && meta::at(owner, &["controller"]) == Some(&Value::Bool(true))
            && meta::at(owner, &["blockOwnerDeletion"]) != Some(&Value::Bool(true))
    };
    match owners[..] {
        [owner] if is_node(owner) => {}
        _ => {
            return Some(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
    }
    let uses = |what: &str| Some(format!("node {node:?} can not create pods that reference {what}"));
    if !meta::text(pod, &["spec", "serviceAccountName"]).is_empty() {
        return uses("a service account");
    }
    let text = pod.get("spec").map(ToString::to_string).unwrap_or_default();
    for (fields, what) in [
        (
            &[
                "secretKeyRef",
                "secretRef",
                "nodePublishSecretRef",
                "imagePullSecrets",
                "secretName",
                "secret",
            ][..],
            "secrets",
        ),
        (&["configMapKeyRef", "configMapRef", "configMap"], "configmaps"),
        (&["persistentVolumeClaim", "ephemeral"], "persistentvolumeclaims"),
        (&["resourceClaims"], "resource claims"),
        (&["serviceAccountToken"], "a service account"),
        (&["clusterTrustBundle"], "cluster trust bundles"),
        (&["podCertificate"], "pod certificates"),
    ] {
        // A value has its quotes escaped, so only a field can look like one.
        if fields.iter().any(|field| text.contains(&format!("\"{field}\":"))) {
            return uses(what);
        }
    }
    None
}

fn node_object(node: &str, admit: &Admit<'_>, object: &Value) -> Option<String> {
    if meta::name(object) != node {
        return Some(format!("node {node:?} is not allowed to modify node {:?}", meta::name(object)));
    }
    let empty = serde_json::Map::new();
    let labels =
        |object: &Value| meta::at(object, &["metadata", "labels"]).and_then(Value::as_object).cloned();
    let new = labels(object).unwrap_or_else(|| empty.clone());
    let old = admit.old.and_then(labels).unwrap_or(empty);
    let mut changed: Vec<&str> = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(*value))
        .map(|(key, _)| &**key)
        .chain(old.keys().filter(|key| !new.contains_key(*key)).map(|key| &**key))
        .filter(|key| is_forbidden(key))
        .collect();
    changed.sort_unstable();
    let labels = changed.join(", ");
    match admit.old {
        _ if labels.is_empty() => {}
        None => return Some(format!("node {node:?} is not allowed to set the following labels: {labels}")),
        Some(_) => return Some(format!("is not allowed to modify labels: {labels}")),
    }
    let old = admit.old?;
    let differs = |path: &[&str]| meta::at(object, path) != meta::at(old, path);
    if differs(&["spec", "taints"]) {
        return Some(format!("node {node:?} is not allowed to modify taints"));
    }
    if differs(&["metadata", "ownerReferences"]) {
        return Some(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    None
}

/// Labels by which people keep pods away from nodes they do not trust.
fn is_forbidden(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return false };
    let below = |domain: &str| prefix == domain || prefix.ends_with(&format!(".{domain}"));
    if below(NODE_RESTRICTION) {
        return true;
    }
    if !below("kubernetes.io") && !below("k8s.io") {
        return false;
    }
    !OWN_LABELS.contains(&key) && !OWN_PREFIXES.iter().any(|domain| below(domain))
}

fn lease(node: &str, admit: &Admit<'_>, lease: &Value) -> Option<String> {
    let before = admit.old.unwrap_or(lease);
    if meta::namespace(before) != KUBE_NODE_LEASE {
        return Some(format!("can only access leases in the {KUBE_NODE_LEASE:?} system namespace"));
    }
    (meta::name(before) != node)
        .then(|| "can only access lease with the same name as the requesting node".to_owned())
}

/// The slices a node writes say where it answers for the cluster's DNS.
fn slice(node: &str, admit: &Admit<'_>, slice: &Value) -> Option<String> {
    let is_own = |slice: &Value| {
        let owners: Vec<&Value> = meta::items(slice, &["metadata", "ownerReferences"]).collect();
        let owned = matches!(owners[..], [owner] if owner["kind"] == "Node" && owner["name"] == node);
        owned
            && meta::namespace(slice) == KUBE_SYSTEM
            && meta::text(slice, &["metadata", "labels", SERVICE_NAME]) == KUBE_DNS
            && meta::items(slice, &["endpoints"]).all(|endpoint| endpoint["nodeName"] == node)
    };
    (!is_own(slice) || !admit.old.is_none_or(is_own))
        .then(|| format!("node {node:?} can only write EndpointSlices of {KUBE_DNS:?} for itself"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Kinds;
    use serde_json::json;

    fn problem(
        plural: &str,
        subresource: &str,
        operation: Operation,
        object: &Value,
        old: Option<&Value>,
    ) -> Option<String> {
        let kinds = Kinds::builtin();
        let served = kinds.core(plural);
        let admit = Admit { served, operation, subresource, name: "x", old };
        match plural {
            "pods" => pod("n1", &admit, subresource, object),
            _ => node_object("n1", &admit, object),
        }
    }

    #[test]
    fn mirror_pods_reach_for_nothing() {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true});
        let mirror = json!({
            "metadata": {"name": "x", "annotations": {MIRROR_POD: "h"}, "ownerReferences": [owner]},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "env": [{"name": "A", "value": "\"secret\":"}]}]},
        });
        let create = |pod: &Value| problem("pods", "", Operation::Create, pod, None);
        assert_eq!(create(&mirror), None);
        for (path, value, told) in [
            ("/metadata/annotations", json!({}), "can only create mirror pods"),
            ("/spec/nodeName", json!("n2"), "spec.nodeName set to itself"),
            ("/metadata/ownerReferences", json!([]), "owner reference set to itself"),
            ("/spec/serviceAccountName", json!("robot"), "reference a service account"),
            ("/spec/volumes", json!([{"name": "v", "secret": {"secretName": "s"}}]), "reference secrets"),
            ("/spec/volumes", json!([{"name": "v", "configMap": {"name": "s"}}]), "reference configmaps"),
            (
                "/spec/volumes",
                json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
                "reference a service account",
            ),
            ("/spec/resourceClaims", json!([{"name": "gpu"}]), "reference resource claims"),
        ] {
            let mut pod = mirror.clone();
            let (parent, field) = path.rsplit_once('/').expect("a field");
            pod.pointer_mut(parent).expect("there")[field] = value;
            let problem = create(&pod).unwrap_or_default();
            assert!(problem.contains(told), "{path}: {problem:?}");
        }
    }

    #[test]
    fn a_node_does_not_say_who_trusts_it() {
        let old = json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "h"}}, "spec": {"taints": []}});
        let with = |path: &str, value: Value| {
            let mut node = old.clone();
            let (parent, field) = path.rsplit_once('/').expect("a field");
            node.pointer_mut(parent).expect("there")[field] = value;
            node
        };
        let update = |new: &Value| problem("nodes", "", Operation::Update, new, Some(&old));
        let labels = |key: &str| with("/metadata/labels", json!({"kubernetes.io/hostname": "h", key: "x"}));
        for free in ["example.com/a", "a", "node.kubernetes.io/a", "topology.kubernetes.io/zone"] {
            assert_eq!(update(&labels(free)), None, "{free}");
        }
        for kept in [
            "node-restriction.kubernetes.io/a",
            "x.node-restriction.kubernetes.io/a",
            "node-role.kubernetes.io/control-plane",
            "a.k8s.io/b",
        ] {
            assert!(update(&labels(kept)).is_some(), "{kept}");
            assert!(problem("nodes", "", Operation::Create, &labels(kept), None).is_some(), "{kept}");
        }
        assert!(update(&with("/spec/taints", json!([{"key": "a", "effect": "NoSchedule"}]))).is_some());
        assert!(update(&with("/metadata/ownerReferences", json!([{"uid": "x"}]))).is_some());
        assert!(update(&with("/metadata/name", json!("n2"))).is_some());
    }

    #[test]
    fn pods_of_other_nodes_are_left_alone() {
        let on = |node: &str| json!({"metadata": {"name": "x"}, "spec": {"nodeName": node}});
        let (mine, other) = (on("n1"), on("n2"));
        assert_eq!(problem("pods", "status", Operation::Update, &mine, Some(&mine)), None);
        assert!(problem("pods", "status", Operation::Update, &other, Some(&other)).is_some());
        assert_eq!(problem("pods", "", Operation::Delete, &mine, None), None);
        assert!(problem("pods", "", Operation::Delete, &other, None).is_some());
        let mut labelled = mine.clone();
        labelled["metadata"]["labels"] = json!({"a": "b"});
        assert!(problem("pods", "status", Operation::Update, &labelled, Some(&mine)).is_some());
    }
}
