//! Which objects the pods of a node refer to.
//!
//! In: pods. Out: whether a node may read a Secret, a ConfigMap, a claim, or ask for a ServiceAccount's tokens: only if
//! one of its pods needs it.

use std::collections::HashMap;

use serde_json::Value;
use xebec_api::wellknown::annotations::MIRROR_POD;

use crate::follow::Fold;
use crate::meta;

/// Where pods are kept.
pub(crate) const PREFIX: &str = "/registry/core/pods/";

/// Kinds of objects that pods refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
}

/// An object: its kind, `namespace/name`.
type Object = (Kind, String);

/// Pods, where they run, what they need.
#[derive(Default)]
pub(crate) struct Graph {
    /// By `namespace/name`.
    pods: HashMap<String, Placed>,
    /// Per node how many of its pods refer to an object.
    needs: HashMap<String, HashMap<Object, usize>>,
}

struct Placed {
    node: String,
    needs: Vec<Object>,
}

// === impl Graph ===

impl Graph {
    /// Whether a pod of the node refers to the object.
    pub(crate) fn needs(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        self.needs.get(node).is_some_and(|needs| needs.contains_key(&(kind, format!("{namespace}/{name}"))))
    }

    /// Whether the pod exists and is not the node's.
    pub(crate) fn is_elsewhere(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.pods.get(&format!("{namespace}/{name}")).is_some_and(|pod| pod.node != node)
    }
}

impl Fold for Graph {
    fn put(&mut self, place: &str, pod: Value) {
        self.delete(place);
        let needs = needs_of(&pod);
        let node = meta::text(&pod, &["spec", "nodeName"]).to_owned();
        if !node.is_empty() {
            let counts = self.needs.entry(node.clone()).or_default();
            for object in &needs {
                *counts.entry(object.clone()).or_default() += 1;
            }
        }
        self.pods.insert(place.to_owned(), Placed { node, needs });
    }

    fn delete(&mut self, place: &str) {
        let Some(pod) = self.pods.remove(place) else { return };
        let Some(counts) = self.needs.get_mut(&pod.node) else { return };
        for object in &pod.needs {
            if let Some(count) = counts.get_mut(object) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(object);
                }
            }
        }
        if counts.is_empty() {
            self.needs.remove(&pod.node);
        }
    }
}

/// What a pod refers to. A mirror pod refers to nothing: a node makes it itself, and would make it refer to anything.
fn needs_of(pod: &Value) -> Vec<Object> {
    if meta::at(pod, &["metadata", "annotations", MIRROR_POD]).is_some() {
        return Vec::new();
    }
    let namespace = meta::namespace(pod);
    let mut found: Vec<Object> = Vec::new();
    let mut need = |kind: Kind, name: &str| {
        let object = (kind, format!("{namespace}/{name}"));
        if !name.is_empty() && !found.contains(&object) {
            found.push(object);
        }
    };
    need(Kind::ServiceAccount, meta::text(pod, &["spec", "serviceAccountName"]));
    for secret in meta::items(pod, &["spec", "imagePullSecrets"]) {
        need(Kind::Secret, meta::text(secret, &["name"]));
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in meta::items(pod, &["spec", list]) {
            for from in meta::items(container, &["envFrom"]) {
                need(Kind::Secret, meta::text(from, &["secretRef", "name"]));
                need(Kind::ConfigMap, meta::text(from, &["configMapRef", "name"]));
            }
            for env in meta::items(container, &["env"]) {
                need(Kind::Secret, meta::text(env, &["valueFrom", "secretKeyRef", "name"]));
                need(Kind::ConfigMap, meta::text(env, &["valueFrom", "configMapKeyRef", "name"]));
            }
        }
    }
    for volume in meta::items(pod, &["spec", "volumes"]) {
        need(Kind::Secret, meta::text(volume, &["secret", "secretName"]));
        need(Kind::ConfigMap, meta::text(volume, &["configMap", "name"]));
        need(Kind::Claim, meta::text(volume, &["persistentVolumeClaim", "claimName"]));
        if meta::at(volume, &["ephemeral"]).is_some() {
            need(Kind::Claim, &format!("{}-{}", meta::name(pod), meta::text(volume, &["name"])));
        }
        need(Kind::Secret, meta::text(volume, &["csi", "nodePublishSecretRef", "name"]));
        for source in meta::items(volume, &["projected", "sources"]) {
            need(Kind::Secret, meta::text(source, &["secret", "name"]));
            need(Kind::ConfigMap, meta::text(source, &["configMap", "name"]));
        }
        for legacy in ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
            need(Kind::Secret, meta::text(volume, &[legacy, "secretRef", "name"]));
        }
        need(Kind::Secret, meta::text(volume, &["azureFile", "secretName"]));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(node: &str) -> Value {
        json!({
            "metadata": {"name": "p", "namespace": "a"},
            "spec": {
                "nodeName": node, "serviceAccountName": "robot", "imagePullSecrets": [{"name": "pull"}],
                "containers": [{
                    "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}],
                    "envFrom": [{"configMapRef": {"name": "from"}}],
                }],
                "volumes": [
                    {"name": "s", "secret": {"secretName": "vol"}},
                    {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "e", "ephemeral": {}},
                    {"name": "p", "projected": {"sources": [{"configMap": {"name": "root"}}, {"secret": {"name": "proj"}}]}},
                ],
            },
        })
    }

    #[test]
    fn a_node_needs_what_its_pods_name_and_nothing_else() {
        let mut graph = Graph::default();
        graph.put("a/p", pod("n1"));
        for (kind, names) in [
            (Kind::Secret, &["pull", "env", "vol", "proj"][..]),
            (Kind::ConfigMap, &["from", "root"]),
            (Kind::Claim, &["claim", "p-e"]),
            (Kind::ServiceAccount, &["robot"]),
        ] {
            for name in names {
                assert!(graph.needs("n1", kind, "a", name), "{name}");
                assert!(!graph.needs("n2", kind, "a", name), "{name}");
                assert!(!graph.needs("n1", kind, "b", name), "{name}");
            }
        }
        assert!(!graph.needs("n1", Kind::Secret, "a", "other"));
        assert!(graph.is_elsewhere("n2", "a", "p") && !graph.is_elsewhere("n2", "a", "q"));
        graph.delete("a/p");
        assert!(!graph.needs("n1", Kind::Secret, "a", "vol") && graph.needs.is_empty());
    }

    #[test]
    fn needs_come_with_the_node_and_mirrors_have_none() {
        let mut graph = Graph::default();
        graph.put("a/p", pod(""));
        assert!(!graph.needs("n1", Kind::Secret, "a", "vol"));
        graph.put("a/p", pod("n1"));
        assert!(graph.needs("n1", Kind::Secret, "a", "vol"));
        let mut mirror = pod("n1");
        mirror["metadata"]["annotations"] = json!({ MIRROR_POD: "hash" });
        graph.put("a/m", mirror);
        graph.delete("a/p");
        assert!(!graph.needs("n1", Kind::Secret, "a", "vol"));
    }
}
