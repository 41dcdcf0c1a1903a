//! Defaults of Job and CronJob.
//!
//! In: the fields of an object. Out: the same, filled.

use serde_json::{Map, Value};

use super::fill::{Fields, empty, ensure, object, objects, unset};
use super::pod_spec;

pub(super) fn job(job: &mut Fields) {
    let Some(spec) = ensure(job, "spec") else { return };
    if !spec.contains_key("parallelism") {
        unset(spec, "completions", 1);
    }
    unset(spec, "parallelism", 1);
    let per_index = spec.contains_key("backoffLimitPerIndex");
    unset(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    unset(spec, "completionMode", "NonIndexed");
    unset(spec, "suspend", false);
    let replacement = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    unset(spec, "podReplacementPolicy", replacement);
    failure_policy(spec);
    pod_spec::template(spec);
    let labels = object(spec, "template").and_then(|template| object(template, "metadata"));
    let Some(labels) = labels.and_then(|metadata| metadata.get("labels")).cloned() else { return };
    if let Some(metadata) = ensure(job, "metadata")
        && metadata.get("labels").and_then(Value::as_object).is_none_or(Map::is_empty)
    {
        metadata.insert("labels".to_owned(), labels);
    }
}

pub(super) fn cron_job(job: &mut Fields) {
    let Some(spec) = ensure(job, "spec") else { return };
    empty(spec, "concurrencyPolicy", "Allow");
    unset(spec, "suspend", false);
    unset(spec, "successfulJobsHistoryLimit", 3);
    unset(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = object(spec, "jobTemplate").and_then(|template| object(template, "spec")) {
        failure_policy(template);
        pod_spec::template(template);
    }
}

fn failure_policy(spec: &mut Fields) {
    let Some(policy) = object(spec, "podFailurePolicy") else { return };
    for rule in objects(policy, "rules") {
        for condition in objects(rule, "onPodConditions") {
            empty(condition, "status", "True");
        }
    }
}
