//! Workloads: Deployment, ReplicaSet, StatefulSet, DaemonSet, ReplicationController, PodDisruptionBudget.
//!
//! In: an object, and its former state. Out: what is wrong with its spec or its status, in `Errors`.

use serde_json::Value;

use super::field::{Errors, Field};
use super::{meta, pod_spec, rules, selector, storage};

/// The only way a controller's pods may end.
const ALWAYS: &[&str] = &["Always"];
const MORE_THAN_ALL: &str = "cannot be greater than status.replicas";

// === Deployment ===

pub(super) fn deployment(object: &Field<'_>, errors: &mut Errors) {
    let spec = object.child("spec");
    rules::nonnegative(&spec.child("replicas"), errors);
    selector::of_workload(&spec, "deployment", errors);
    template(&spec, "ReplicaSet", errors);
    let strategy = spec.child("strategy");
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").text() {
        "Recreate" if rolling.is_set() => {
            errors.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" if !rolling.is_set() => {
            errors.required(&rolling, "this should be defaulted and never be nil");
        }
        "RollingUpdate" => rolling_update(&rolling, errors),
        _ => errors.not_supported(&strategy.child("type"), &["Recreate", "RollingUpdate"]),
    }
    let (ready, deadline) = (spec.child("minReadySeconds"), spec.child("progressDeadlineSeconds"));
    rules::nonnegative(&ready, errors);
    rules::nonnegative(&spec.child("revisionHistoryLimit"), errors);
    rules::nonnegative(&deadline, errors);
    if deadline.int().is_some_and(|seconds| seconds <= ready.int().unwrap_or_default()) {
        errors.invalid(&deadline, "must be greater than minReadySeconds");
    }
}

pub(super) fn deployment_status(object: &Field<'_>, old: &Value, errors: &mut Errors) {
    let status = object.child("status");
    let counts = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "collisionCount",
    ];
    rules::nonnegative_all(&status, &counts, errors);
    at_most(&status, "updatedReplicas", "replicas", MORE_THAN_ALL, errors);
    at_most(&status, "readyReplicas", "replicas", MORE_THAN_ALL, errors);
    at_most(&status, "availableReplicas", "replicas", MORE_THAN_ALL, errors);
    at_most(&status, "availableReplicas", "readyReplicas", "cannot be greater than readyReplicas", errors);
    collisions_do_not_fall(&status, old, errors);
}

fn rolling_update(rolling: &Field<'_>, errors: &mut Errors) {
    let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
    rules::int_or_percent(&unavailable, errors);
    rules::int_or_percent(&surge, errors);
    if rules::int_or_percent_value(&unavailable) == 0 && rules::int_or_percent_value(&surge) == 0 {
        errors.invalid(&unavailable, "may not be 0 when `maxSurge` is 0");
    }
    rules::at_most_100_percent(&unavailable, errors);
}

// === ReplicaSet, ReplicationController ===

pub(super) fn replica_set(object: &Field<'_>, errors: &mut Errors) {
    let spec = object.child("spec");
    rules::nonnegative_all(&spec, &["replicas", "minReadySeconds"], errors);
    // Upstream names a deployment here, too.
    selector::of_workload(&spec, "deployment", errors);
    template(&spec, "ReplicaSet", errors);
}

pub(super) fn replica_set_status(object: &Field<'_>, errors: &mut Errors) {
    let status = object.child("status");
    let counts =
        ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    rules::nonnegative_all(&status, &counts, errors);
    at_most(&status, "fullyLabeledReplicas", "replicas", MORE_THAN_ALL, errors);
    at_most(&status, "readyReplicas", "replicas", MORE_THAN_ALL, errors);
    at_most(&status, "availableReplicas", "replicas", MORE_THAN_ALL, errors);
    at_most(&status, "availableReplicas", "readyReplicas", "cannot be greater than readyReplicas", errors);
}

pub(super) fn replication_controller(object: &Field<'_>, errors: &mut Errors) {
    let spec = object.child("spec");
    rules::nonnegative(&spec.child("minReadySeconds"), errors);
    let chosen = spec.child("selector");
    if chosen.is_empty() {
        errors.required(&chosen, "");
    }
    rules::nonnegative(&spec.child("replicas"), errors);
    let pods = spec.child("template");
    if !pods.is_set() {
        errors.required(&pods, "");
        return;
    }
    let metadata = pods.child("metadata");
    let labels = metadata.child("labels");
    let wanted = |(key, value): (&str, Field<'_>)| labels.value().get(key) == Some(value.value());
    if !chosen.is_empty() && !chosen.entries().all(wanted) {
        errors.invalid(&labels, "`selector` does not match template `labels`");
    }
    template(&spec, "ReplicationController", errors);
}

// === StatefulSet ===

pub(super) fn stateful_set(object: &Field<'_>, errors: &mut Errors) {
    let spec = object.child("spec");
    rules::one_of(&spec.child("podManagementPolicy"), &["OrderedReady", "Parallel"], errors);
    let strategy = spec.child("updateStrategy");
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").text() {
        "" => errors.required(&strategy, ""),
        "OnDelete" if rolling.is_set() => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid(&rolling, detail);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rules::nonnegative(&rolling.child("partition"), errors);
            let unavailable = rolling.child("maxUnavailable");
            if unavailable.is_set() {
                rules::int_or_percent(&unavailable, errors);
                rules::at_most_100_percent(&unavailable, errors);
            }
        }
        _ => errors.invalid(&strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
    let kept = spec.child("persistentVolumeClaimRetentionPolicy");
    for name in ["whenDeleted", "whenScaled"] {
        rules::optional_one_of(&kept.child(name), &["Delete", "Retain"], errors);
    }
    rules::nonnegative_all(&spec, &["replicas", "minReadySeconds", "revisionHistoryLimit"], errors);
    let ordinals = spec.child("ordinals");
    rules::nonnegative(&ordinals.child("start"), errors);
    selector::of_workload(&spec, "statefulset", errors);
    template(&spec, "StatefulSet", errors);
    for claim in spec.child("volumeClaimTemplates").items() {
        storage::claim_spec(&claim.child("spec"), errors);
    }
}

pub(super) fn stateful_set_update(object: &Field<'_>, old: &Value, errors: &mut Errors) {
    const MAY_CHANGE: &[&str] = &[
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let spec = object.child("spec");
    let fixed = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|name, _| !MAY_CHANGE.contains(&name.as_str()));
        }
        spec
    };
    if fixed(spec.value()) != fixed(old.get("spec").unwrap_or(&Value::Null)) {
        errors.forbidden(
            &spec,
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
             'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
             'minReadySeconds' are forbidden",
        );
    }
}

// === DaemonSet ===

pub(super) fn daemon_set(object: &Field<'_>, errors: &mut Errors) {
    let spec = object.child("spec");
    selector::of_workload(&spec, "daemonset", errors);
    template(&spec, "DaemonSet", errors);
    rules::nonnegative_all(&spec, &["minReadySeconds", "revisionHistoryLimit"], errors);
    let strategy = spec.child("updateStrategy");
    match strategy.child("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = strategy.child("rollingUpdate");
            let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
            for share in [&unavailable, &surge] {
                rules::int_or_percent(share, errors);
                rules::at_most_100_percent(share, errors);
            }
            let count = rules::int_or_percent_value;
            match (count(&unavailable), count(&surge)) {
                (0, 0) => errors.required(&unavailable, "cannot be 0 when maxSurge is 0"),
                (1.., 1..) => errors.invalid(&surge, "may not be set when maxUnavailable is non-zero"),
                _ => {}
            }
        }
        _ => errors.not_supported(&strategy.child("type"), &["OnDelete", "RollingUpdate"]),
    }
}

// === PodDisruptionBudget ===

pub(super) fn disruption_budget(object: &Field<'_>, errors: &mut Errors) {
    let spec = object.child("spec");
    let (available, unavailable) = (spec.child("minAvailable"), spec.child("maxUnavailable"));
    if available.is_set() && unavailable.is_set() {
        errors.invalid(&spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for share in [&available, &unavailable] {
        if share.is_set() {
            rules::int_or_percent(share, errors);
            rules::at_most_100_percent(share, errors);
        }
    }
    selector::label_selector(&spec.child("selector"), errors);
    let policy = spec.child("unhealthyPodEvictionPolicy");
    rules::optional_one_of(&policy, &["AlwaysAllow", "IfHealthyBudget"], errors);
}

// === what they share ===

/// The pods of a controller: they run for ever and the controller ends them.
fn template(spec: &Field<'_>, owner: &str, errors: &mut Errors) {
    let template = spec.child("template");
    pod_spec::template(&template, errors);
    let pod = template.child("spec");
    let restarts = pod.child("restartPolicy");
    if !restarts.text().is_empty() && restarts.text() != ALWAYS[0] {
        errors.not_supported(&restarts, ALWAYS);
    }
    let deadline = pod.child("activeDeadlineSeconds");
    if deadline.is_set() {
        errors.forbidden(&deadline, format!("activeDeadlineSeconds in {owner} is not Supported"));
    }
}

/// A workload keeps the pods it has: what selects them does not change.
pub(super) fn selector_is_kept(object: &Field<'_>, old: &Value, errors: &mut Errors) {
    let former = old.pointer("/spec/selector").unwrap_or(&Value::Null);
    rules::immutable(&object.child("spec").child("selector"), former, errors);
}

/// A template of pods on its own.
pub(super) fn pod_template(object: &Field<'_>, errors: &mut Errors) {
    let template = object.child("template");
    meta::labels(&template.child("metadata").child("labels"), errors);
    pod_spec::template(&template, errors);
}

fn at_most(status: &Field<'_>, part: &str, whole: &str, detail: &str, errors: &mut Errors) {
    let count = |name| status.child(name).int().unwrap_or_default();
    if count(part) > count(whole) {
        let (field, value) = (status.child(part), Value::from(count(part)));
        errors.invalid(&field.with(&value), detail);
    }
}

fn collisions_do_not_fall(status: &Field<'_>, old: &Value, errors: &mut Errors) {
    let count = status.child("collisionCount");
    let former = old.pointer("/status/collisionCount").and_then(Value::as_i64);
    if former.is_some_and(|former| count.int().is_none_or(|now| now < former)) {
        errors.invalid(&count, "cannot be decremented");
    }
}
