//! Defaults of the replicating workloads.
//!
//! In: the fields of an object. Out: the same, filled.

use serde_json::{Value, json};

use super::fill::{Fields, empty, ensure, object, objects, text, unset};
use super::{pod_spec, storage};

pub(super) fn deployment(deployment: &mut Fields) {
    let Some(spec) = ensure(deployment, "spec") else { return };
    unset(spec, "replicas", 1);
    if let Some(strategy) = ensure(spec, "strategy") {
        empty(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = ensure(strategy, "rollingUpdate")
        {
            unset(rolling, "maxUnavailable", "25%");
            unset(rolling, "maxSurge", "25%");
        }
    }
    unset(spec, "revisionHistoryLimit", 10);
    unset(spec, "progressDeadlineSeconds", 600);
    pod_spec::template(spec);
}

pub(super) fn replica_set(set: &mut Fields) {
    let Some(spec) = ensure(set, "spec") else { return };
    unset(spec, "replicas", 1);
    pod_spec::template(spec);
}

pub(super) fn daemon_set(set: &mut Fields) {
    let Some(spec) = ensure(set, "spec") else { return };
    if let Some(strategy) = ensure(spec, "updateStrategy") {
        empty(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = ensure(strategy, "rollingUpdate")
        {
            unset(rolling, "maxUnavailable", 1);
            unset(rolling, "maxSurge", 0);
        }
    }
    unset(spec, "revisionHistoryLimit", 10);
    pod_spec::template(spec);
}

pub(super) fn stateful_set(set: &mut Fields) {
    let Some(spec) = ensure(set, "spec") else { return };
    empty(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = ensure(spec, "updateStrategy") {
        if text(strategy, "type").is_empty() {
            strategy.insert("type".to_owned(), "RollingUpdate".into());
            unset(strategy, "rollingUpdate", json!({}));
        }
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = object(strategy, "rollingUpdate")
        {
            unset(rolling, "partition", 0);
            unset(rolling, "maxUnavailable", 1);
        }
    }
    if let Some(retention) = ensure(spec, "persistentVolumeClaimRetentionPolicy") {
        empty(retention, "whenDeleted", "Retain");
        empty(retention, "whenScaled", "Retain");
    }
    unset(spec, "replicas", 1);
    unset(spec, "revisionHistoryLimit", 10);
    objects(spec, "volumeClaimTemplates").for_each(storage::claim);
    pod_spec::template(spec);
}

/// A controller without selector or labels takes those of its template.
pub(super) fn replication_controller(controller: &mut Fields) {
    let Some(spec) = ensure(controller, "spec") else { return };
    unset(spec, "replicas", 1);
    pod_spec::template(spec);
    let labels = object(spec, "template").and_then(|template| object(template, "metadata"));
    let Some(labels) = labels.and_then(|metadata| metadata.get("labels")).cloned() else { return };
    let missing = |fields: &Fields, name: &str| {
        fields.get(name).and_then(Value::as_object).is_none_or(serde_json::Map::is_empty)
    };
    if missing(spec, "selector") {
        spec.insert("selector".to_owned(), labels.clone());
    }
    if let Some(metadata) = ensure(controller, "metadata")
        && missing(metadata, "labels")
    {
        metadata.insert("labels".to_owned(), labels);
    }
}
