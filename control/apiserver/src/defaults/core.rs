//! Defaults of the small kinds: Namespace, Node, Secret, Endpoints, LimitRange, ResourceQuota, PriorityClass, token and
//! certificate requests.
//!
//! In: the fields of an object. Out: the same, filled.

use serde_json::{Map, Value};
use xebec_api::wellknown::labels;

use super::fill::{Fields, empty, ensure, object, objects, round_resources, text, unset};

pub(super) fn namespace(namespace: &mut Fields) {
    if let Some(metadata) = ensure(namespace, "metadata") {
        let name = text(metadata, "name").to_owned();
        // A generated name is not known yet; the strategy labels such a namespace.
        if !name.is_empty()
            && let Some(labels) = ensure(metadata, "labels")
        {
            labels.insert(labels::METADATA_NAME.to_owned(), name.into());
        }
    }
    if let Some(status) = ensure(namespace, "status") {
        empty(status, "phase", "Active");
    }
}

pub(super) fn node(node: &mut Fields) {
    let Some(status) = object(node, "status") else { return };
    round_resources(status, "capacity");
    round_resources(status, "allocatable");
    if let Some(capacity) = status.get("capacity").cloned() {
        unset(status, "allocatable", capacity);
    }
}

pub(super) fn secret(secret: &mut Fields) {
    empty(secret, "type", "Opaque");
}

pub(super) fn endpoints(endpoints: &mut Fields) {
    for subset in objects(endpoints, "subsets") {
        for port in objects(subset, "ports") {
            empty(port, "protocol", "TCP");
        }
    }
}

/// A container limit that says part of itself implies the rest: default from max, request from default, then min.
pub(super) fn limit_range(range: &mut Fields) {
    let Some(spec) = object(range, "spec") else { return };
    for item in objects(spec, "limits") {
        for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            round_resources(item, list);
        }
        if text(item, "type") == "Container" {
            complete(item, "default", "max");
            complete(item, "defaultRequest", "default");
            complete(item, "defaultRequest", "min");
        }
    }
}

pub(super) fn resource_quota(quota: &mut Fields) {
    if let Some(spec) = object(quota, "spec") {
        round_resources(spec, "hard");
    }
    if let Some(status) = object(quota, "status") {
        round_resources(status, "hard");
        round_resources(status, "used");
    }
}

pub(super) fn priority_class(class: &mut Fields) {
    unset(class, "preemptionPolicy", "PreemptLowerPriority");
}

pub(super) fn token_request(request: &mut Fields) {
    if let Some(spec) = ensure(request, "spec") {
        unset(spec, "expirationSeconds", 3600);
    }
}

pub(super) fn pod_certificate_request(request: &mut Fields) {
    if let Some(spec) = ensure(request, "spec") {
        unset(spec, "maxExpirationSeconds", 86_400);
    }
}

fn complete(item: &mut Fields, target: &str, source: &str) {
    let Some(Value::Object(source)) = item.get(source).cloned() else { return };
    let target = item.entry(target).or_insert_with(|| Value::Object(Map::new()));
    for (name, amount) in source {
        if let Value::Object(target) = target {
            target.entry(name).or_insert(amount);
        }
    }
}
