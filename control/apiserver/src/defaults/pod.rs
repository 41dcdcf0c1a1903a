//! Defaults of a pod itself, which templates do not get.
//!
//! In: the fields of a Pod. Out: the same, filled.

use serde_json::Value;

use super::fill::{Fields, empty, ensure, object, objects, unset};
use super::{pod_resources, pod_spec};

pub(super) fn pod(pod: &mut Fields) {
    let Some(spec) = object(pod, "spec") else { return };
    pod_spec::pod_spec(spec);
    for list in ["containers", "initContainers"] {
        objects(spec, list).for_each(requests_from_limits);
    }
    pod_resources::pod_level(spec);
    unset(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        for list in ["containers", "initContainers"] {
            objects(spec, list).for_each(host_ports);
        }
    }
}

fn requests_from_limits(container: &mut Fields) {
    let Some(resources) = object(container, "resources") else { return };
    let Some(limits) = object(resources, "limits").cloned() else { return };
    let Some(requests) = ensure(resources, "requests") else { return };
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
    if requests.is_empty() {
        resources.remove("requests");
    }
}

/// With the host's network a port is the host's port.
fn host_ports(container: &mut Fields) {
    for port in objects(container, "ports") {
        if let Some(number) = port.get("containerPort").cloned() {
            empty(port, "hostPort", number);
        }
    }
}
