//! Pods: what may be created, and the little that may change afterwards.
//!
//! In: a Pod, and its former state. Out: what is wrong, in `Errors`.

use std::collections::HashSet;

use serde_json::{Map, Value};
use xebec_api::names;
use xebec_api::wellknown::annotations;

use super::field::{Errors, Field};
use super::pod_spec;

const UPDATES: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                       `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
                       to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
                       was previously negative)";

pub(super) fn create(pod: &Field<'_>, errors: &mut Errors) {
    let spec = pod.child("spec");
    mirror(pod, &spec, errors);
    pod_spec::pod_spec(&spec, errors);
    let ephemeral = spec.child("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.forbidden(&ephemeral, "cannot be set on create");
    }
    let node = spec.child("nodeName");
    if !node.text().is_empty() && !spec.child("schedulingGates").is_empty() {
        errors.forbidden(&node, "cannot be set until all schedulingGates have been cleared");
    }
}

pub(super) fn update(pod: &Field<'_>, old: &Value, errors: &mut Errors) {
    let spec = pod.child("spec");
    let none = Value::Object(Map::new());
    let former = old.get("spec").unwrap_or(&none);
    mirror_is_kept(pod, old, errors);
    for name in ["containers", "initContainers"] {
        let list = spec.child(name);
        let count = former.get(name).and_then(Value::as_array).map_or(0, Vec::len);
        if list.len() != count {
            errors.forbidden(&list, "pod updates may not add or remove containers");
            return;
        }
        for container in list.items() {
            let image = container.child("image");
            if image.text().is_empty() {
                errors.required(&image, "");
            }
        }
    }
    deadline(&spec, former, errors);
    tolerations(&spec.child("tolerations"), former, errors);
    gates(&spec.child("schedulingGates"), former, errors);
    let changed = changed_fields(&spec, former);
    if !changed.is_empty() {
        errors.forbidden(&spec, format!("{UPDATES}\nchanged: {}", changed.join(", ")));
    }
}

/// A copy of a static pod says which node runs it.
fn mirror(pod: &Field<'_>, spec: &Field<'_>, errors: &mut Errors) {
    let metadata = pod.child("metadata");
    let all = metadata.child("annotations");
    let mirror = all.key(annotations::MIRROR_POD);
    if mirror.is_set() && spec.child("nodeName").text().is_empty() {
        errors.invalid(&mirror, "must set spec.nodeName if mirror pod annotation is set");
    }
}

fn mirror_is_kept(pod: &Field<'_>, old: &Value, errors: &mut Errors) {
    let metadata = pod.child("metadata");
    let all = metadata.child("annotations");
    let mirror = all.key(annotations::MIRROR_POD);
    let former = old.pointer("/metadata/annotations").and_then(|all| all.get(annotations::MIRROR_POD));
    match (former, mirror.is_set()) {
        (None, true) => errors.forbidden(&mirror, "may not add mirror pod annotation"),
        (Some(former), _) if former != mirror.value() => {
            errors.forbidden(&mirror, "may not remove or update mirror pod annotation");
        }
        _ => {}
    }
}

/// From none to some, from more to less.
fn deadline(spec: &Field<'_>, former: &Value, errors: &mut Errors) {
    let field = spec.child("activeDeadlineSeconds");
    let before = former.get("activeDeadlineSeconds").and_then(Value::as_i64);
    match (field.int(), before) {
        (Some(now), _) if !(0..=i64::from(i32::MAX)).contains(&now) => {
            errors.invalid_all(&field, names::in_range(now, 0, i32::MAX.into()));
        }
        (Some(now), Some(before)) if before < now => {
            errors.invalid(&field, "must be less than or equal to previous value");
        }
        (None, Some(_)) => errors.invalid(&field, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

fn tolerations(field: &Field<'_>, former: &Value, errors: &mut Errors) {
    let before = former.get("tolerations").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(fields) = toleration.as_object_mut() {
            fields.remove("tolerationSeconds");
        }
        toleration
    };
    // How long a taint is tolerated may change.
    let now: HashSet<Value> = field.items().map(|new| without_seconds(new.value())).collect();
    if !before.iter().all(|old| now.contains(&without_seconds(old))) {
        errors.forbidden(field, "existing toleration can not be modified except its tolerationSeconds");
    }
    super::scheduling::tolerations(field, errors);
}

fn gates(field: &Field<'_>, former: &Value, errors: &mut Errors) {
    let before = former.get("schedulingGates").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let before: HashSet<&Value> = before.iter().filter_map(|old| old.get("name")).collect();
    for gate in field.items() {
        let name = gate.child("name");
        if !before.contains(name.value()) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", name.text());
            errors.forbidden(&gate, detail);
        }
    }
}

/// The top-level fields of the spec that differ in what may not differ.
fn changed_fields(spec: &Field<'_>, former: &Value) -> Vec<String> {
    let gated =
        former.get("schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty());
    let (none, before) = (Map::new(), former.as_object());
    let (now, before) = (spec.value().as_object().unwrap_or(&none), before.unwrap_or(&none));
    let mut names: Vec<&String> = now.keys().chain(before.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let null = Value::Null;
    let differs = |name: &&String| {
        let (new, old) = (now.get(*name).unwrap_or(&null), before.get(*name).unwrap_or(&null));
        match name.as_str() {
            "activeDeadlineSeconds" | "tolerations" | "schedulingGates" => false,
            "containers" | "initContainers" => without_images(new) != without_images(old),
            "terminationGracePeriodSeconds" => {
                new != old && !(old.as_i64().is_some_and(|seconds| seconds < 0) && new.as_i64() == Some(1))
            }
            // While the pod is gated its placement may be narrowed.
            "nodeSelector" if gated => !is_narrowed(new, old),
            "affinity" if gated => {
                !old.is_null() && new != old && new.get("nodeAffinity") == old.get("nodeAffinity")
            }
            _ => new != old,
        }
    };
    names.into_iter().filter(differs).map(|name| format!("spec.{name}")).collect()
}

fn without_images(containers: &Value) -> Value {
    let mut containers = containers.clone();
    for container in containers.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        container.remove("image");
    }
    containers
}

fn is_narrowed(new: &Value, old: &Value) -> bool {
    let kept = |(key, value): (&String, &Value)| new.get(key) == Some(value);
    old.as_object().is_none_or(|old| old.iter().all(kept))
}
