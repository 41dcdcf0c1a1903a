//! Pods and nodes for tests.
//!
//! In: the parts a test cares about, as JSON. Out: objects as the API would send them.

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::pod_info::PodInfo;

/// A pod in namespace `a` with this spec; its UID is its name.
pub(crate) fn pod(name: &str, spec: Value) -> PodInfo {
    pod_with(name, json!({}), spec)
}

/// The same with more metadata.
pub(crate) fn pod_with(name: &str, metadata: Value, spec: Value) -> PodInfo {
    PodInfo::of(&raw_pod(name, metadata, spec))
}

/// The API object behind [`pod_with`].
pub(crate) fn raw_pod(name: &str, metadata: Value, spec: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"namespace": "a", "name": name, "uid": name},
        "spec": {"containers": [{"name": "c"}]},
    });
    for (part, more) in [("metadata", metadata), ("spec", spec)] {
        for (key, value) in more.as_object().into_iter().flatten() {
            pod[part][key] = value.clone();
        }
    }
    serde_json::from_value(pod).unwrap()
}

/// A node with these allocatable resources and labels.
pub(crate) fn node(name: &str, allocatable: &Value, labels: &Value) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {"allocatable": allocatable},
    }))
    .unwrap()
}
