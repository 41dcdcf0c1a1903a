//! Jobs and CronJobs.
//!
//! In: an object, and its former state. Out: what is wrong with its spec, in `Errors`.

use jiff::tz::TimeZone;
use serde_json::Value;
use xebec_api::cron::Schedule;

use super::field::{Errors, Field};
use super::{pod_spec, rules, selector};

const MOST_INDEXED: i64 = 100_000;
const INDEXED: &str = "requires indexed completion mode";
/// Parts of a template that may still change while the Job is suspended and has not begun.
const MAY_CHANGE_BEFORE: &[&str] = &["nodeSelector", "tolerations", "affinity", "schedulingGates"];

// === Job ===

pub(super) fn job(object: &Field<'_>, errors: &mut Errors) {
    let spec = object.child("spec");
    let chosen = spec.child("selector");
    if chosen.is_set() {
        selector::label_selector(&chosen, errors);
        selector::matches_template(&spec, errors);
    } else {
        errors.required(&chosen, "");
    }
    job_spec(&spec, errors);
}

fn job_spec(spec: &Field<'_>, errors: &mut Errors) {
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    rules::nonnegative_all(spec, &counts, errors);
    let (limit, most) = (spec.child("backoffLimitPerIndex"), spec.child("maxFailedIndexes"));
    if most.is_set() && !limit.is_set() {
        errors.required(&limit, "when maxFailedIndexes is specified");
    }
    completion_mode(spec, errors);
    let success = spec.child("successPolicy");
    if success.is_set() {
        let success_rules = success.child("rules");
        if spec.child("completionMode").text() != "Indexed" {
            errors.invalid(&success, INDEXED);
        }
        if success_rules.is_empty() {
            errors.required(
                &success_rules,
                "at least one rules must be specified when the successPolicy is specified",
            );
        }
    }
    let replacement = spec.child("podReplacementPolicy");
    let fails_by_rule = spec.child("podFailurePolicy").is_set();
    let replacements: &[&str] = if fails_by_rule { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    rules::optional_one_of(&replacement, replacements, errors);
    let template = spec.child("template");
    pod_spec::template(&template, errors);
    let pod = template.child("spec");
    let restarts = pod.child("restartPolicy");
    match restarts.text() {
        "" | "Always" => errors.required(&restarts, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" | "Never" => {}
        _ => errors.not_supported(&restarts, &["OnFailure", "Never"]),
    }
    if fails_by_rule && restarts.text() != "Never" {
        errors.invalid(&restarts, "only \"Never\" is supported when podFailurePolicy is specified");
    }
    failure_policy(spec, errors);
}

fn completion_mode(spec: &Field<'_>, errors: &mut Errors) {
    let (mode, completions) = (spec.child("completionMode"), spec.child("completions"));
    let (limit, most) = (spec.child("backoffLimitPerIndex"), spec.child("maxFailedIndexes"));
    match mode.text() {
        "Indexed" => {
            if !completions.is_set() {
                errors.required(&completions, "when completion mode is Indexed");
            }
            let parallelism = spec.child("parallelism");
            if parallelism.int().is_some_and(|count| count > MOST_INDEXED) {
                let detail =
                    format!("must be less than or equal to {MOST_INDEXED} when completion mode is Indexed");
                errors.invalid(&parallelism, detail);
            }
            let total = completions.int().unwrap_or_default();
            if most.int().is_some_and(|count| count > total) {
                errors.invalid(&most, "must be less than or equal to completions");
            }
        }
        "" | "NonIndexed" => {
            for field in [&limit, &most] {
                if field.is_set() {
                    errors.invalid(field, INDEXED);
                }
            }
        }
        _ => errors.not_supported(&mode, &["Indexed", "NonIndexed"]),
    }
}

fn failure_policy(spec: &Field<'_>, errors: &mut Errors) {
    let policy = spec.child("podFailurePolicy");
    for rule in policy.child("rules").items() {
        let action = rule.child("action");
        rules::one_of(&action, &["Count", "FailIndex", "FailJob", "Ignore"], errors);
        if action.text() == "FailIndex" && !spec.child("backoffLimitPerIndex").is_set() {
            errors.invalid(&action, "requires the backoffLimitPerIndex to be set");
        }
        let (codes, conditions) = (rule.child("onExitCodes"), rule.child("onPodConditions"));
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => {
                errors.invalid(&rule, "specifying both OnExitCodes and OnPodConditions is not supported");
            }
            (false, false) => {
                errors.invalid(&rule, "specifying one of OnExitCodes and OnPodConditions is required");
            }
            (true, false) => exit_codes(&codes, errors),
            (false, true) => {}
        }
    }
}

fn exit_codes(codes: &Field<'_>, errors: &mut Errors) {
    let (operator, values) = (codes.child("operator"), codes.child("values"));
    rules::one_of(&operator, &["In", "NotIn"], errors);
    if values.is_empty() {
        errors.invalid(&values, "at least one value is required");
    }
    for value in values.items() {
        if operator.text() == "In" && value.int() == Some(0) {
            errors.invalid(&value, "must not be 0 for the In operator");
        }
    }
}

pub(super) fn job_update(object: &Field<'_>, old: &Value, errors: &mut Errors) {
    let spec = object.child("spec");
    let former = old.get("spec").unwrap_or(&Value::Null);
    let fixed = [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ];
    completions_update(&spec, former, errors);
    rules::immutable_all(&spec, former, &fixed, errors);
    let template = spec.child("template");
    let begun = old.pointer("/status/startTime").is_some_and(|time| !time.is_null());
    let waits = former.get("suspend").and_then(Value::as_bool) == Some(true) && !begun;
    let held = |template: &Value| if waits { without_placement(template) } else { template.clone() };
    if held(template.value()) != held(former.get("template").unwrap_or(&Value::Null)) {
        errors.invalid(&template, rules::IMMUTABLE);
    }
}

/// An indexed Job grows and shrinks by both numbers at once.
fn completions_update(spec: &Field<'_>, former: &Value, errors: &mut Errors) {
    let completions = spec.child("completions");
    let same = completions.value() == former.get("completions").unwrap_or(&Value::Null);
    if same {
        return;
    }
    let together = completions.is_set() && completions.value() == spec.child("parallelism").value();
    if spec.child("completionMode").text() != "Indexed" {
        errors.invalid(&completions, rules::IMMUTABLE);
    } else if !together {
        errors.invalid(&completions, "can only be modified in tandem with spec.parallelism");
    }
}

fn without_placement(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("labels");
        metadata.remove("annotations");
    }
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|name, _| !MAY_CHANGE_BEFORE.contains(&name.as_str()));
    }
    template
}

// === CronJob ===

pub(super) fn cron_job(object: &Field<'_>, errors: &mut Errors) {
    let spec = object.child("spec");
    schedule(&spec.child("schedule"), errors);
    let counts = ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
    rules::nonnegative_all(&spec, &counts, errors);
    time_zone(&spec.child("timeZone"), errors);
    rules::one_of(&spec.child("concurrencyPolicy"), &["Allow", "Forbid", "Replace"], errors);
    let template = spec.child("jobTemplate");
    let job = template.child("spec");
    let chosen = job.child("selector");
    if chosen.is_set() {
        errors.invalid(&chosen, "`selector` will be auto-generated");
    }
    let manual = job.child("manualSelector");
    if manual.flag() {
        errors.not_supported(&manual, &["nil", "false"]);
    }
    job_spec(&job, errors);
}

fn schedule(schedule: &Field<'_>, errors: &mut Errors) {
    let text = schedule.text();
    if text.is_empty() {
        errors.required(schedule, "");
    } else if text.contains("TZ") {
        errors.invalid(schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if let Err(error) = Schedule::parse(text) {
        errors.invalid(schedule, error.to_string());
    }
}

fn time_zone(zone: &Field<'_>, errors: &mut Errors) {
    if !zone.is_set() {
        return;
    }
    match zone.text() {
        "" => errors.invalid(zone, "timeZone must be nil or non-empty string"),
        name if name.eq_ignore_ascii_case("local") => {
            let detail =
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
            errors.invalid(zone, detail);
        }
        name if TimeZone::get(name).is_err() => errors.invalid(zone, format!("unknown time zone {name}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::{validate_create, validate_update};
    use crate::defaults;
    use crate::kinds::Gvk;
    use serde_json::{Value, json};

    fn template(restarts: &str) -> Value {
        json!({
            "metadata": {"labels": {"u": "1"}},
            "spec": {"restartPolicy": restarts, "containers": [{"name": "c", "image": "busybox"}]},
        })
    }

    fn job(patch: &Value) -> Value {
        let mut job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "a"},
            "spec": {"selector": {"matchLabels": {"u": "1"}}, "template": template("Never")},
        });
        json_patch::merge(&mut job["spec"], patch);
        filled(job, "Job")
    }

    fn cron_job(patch: &Value) -> Value {
        let mut cron = json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c", "namespace": "a"},
            "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": template("OnFailure")}}},
        });
        json_patch::merge(&mut cron["spec"], patch);
        filled(cron, "CronJob")
    }

    fn filled(mut object: Value, kind: &str) -> Value {
        let gvk = Gvk::new("batch", "v1", kind);
        crate::schema::decode(&gvk, &mut object).expect("fits the schema");
        defaults::apply(&gvk, &mut object);
        object
    }

    fn causes(kind: &str, object: &Value) -> Vec<String> {
        let errors = validate_create(&Gvk::new("batch", "v1", kind), object);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn bad_jobs_are_told_what_is_wrong() {
        let cases = [
            (json!({}), None),
            (json!({"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 1}), None),
            (
                json!({"template": {"spec": {"restartPolicy": "Always"}}}),
                Some(
                    "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                ),
            ),
            (
                json!({"completions": -1}),
                Some("spec.completions: Invalid value: -1: must be greater than or equal to 0"),
            ),
            (
                json!({"completionMode": "Indexed", "parallelism": 1}),
                Some("spec.completions: Required value: when completion mode is Indexed"),
            ),
            (
                json!({"backoffLimitPerIndex": 1}),
                Some("spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"),
            ),
            (
                json!({"selector": {"matchLabels": {"u": "2"}}}),
                Some("`selector` does not match template `labels`"),
            ),
            (
                json!({"podFailurePolicy": {"rules": [
                    {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [0]}},
                ]}}),
                Some("must not be 0 for the In operator"),
            ),
        ];
        for (patch, expected) in cases {
            let causes = causes("Job", &job(&patch));
            match expected {
                None => assert_eq!(causes, Vec::<String>::new(), "{patch}"),
                Some(expected) => {
                    assert!(causes.iter().any(|cause| cause.contains(expected)), "{patch}: {causes:?}");
                }
            }
        }
    }

    #[test]
    fn template_and_selector_of_a_job_are_kept() {
        let gvk = Gvk::new("batch", "v1", "Job");
        let changed = |old: &Value, patch: &Value| -> Vec<String> {
            validate_update(&gvk, &job(patch), old).iter().map(ToString::to_string).collect()
        };
        let old = job(&json!({}));
        let other = json!({"template": {"spec": {"nodeSelector": {"a": "b"}}}});
        assert!(changed(&old, &json!({"parallelism": 4, "completions": 1})).is_empty());
        assert_eq!(changed(&old, &other).len(), 1, "the template is immutable");
        assert_eq!(changed(&old, &json!({"completions": 2})).len(), 1);
        let waiting = job(&json!({"suspend": true}));
        assert!(changed(&waiting, &other).is_empty(), "it has not begun");
        let indexed = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2});
        let grown = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3});
        assert!(changed(&job(&indexed), &grown).is_empty());
    }

    #[test]
    fn bad_cron_jobs_are_told_what_is_wrong() {
        let cases = [
            (json!({}), None),
            (json!({"schedule": "@every 90s", "timeZone": "UTC"}), None),
            (json!({"schedule": "61 * * * *"}), Some("spec.schedule: Invalid value: \"61 * * * *\"")),
            (json!({"schedule": "TZ=UTC * * * * *"}), Some("cannot use TZ or CRON_TZ in schedule")),
            (json!({"timeZone": "Nowhere/Land"}), Some("unknown time zone Nowhere/Land")),
            (json!({"timeZone": "Local"}), Some("timeZone must be an explicit time zone")),
            (json!({"concurrencyPolicy": "Sometimes"}), Some("spec.concurrencyPolicy: Unsupported value")),
            (json!({"failedJobsHistoryLimit": -1}), Some("must be greater than or equal to 0")),
            (
                json!({"jobTemplate": {"spec": {"selector": {"matchLabels": {"a": "b"}}}}}),
                Some("`selector` will be auto-generated"),
            ),
        ];
        for (patch, expected) in cases {
            let causes = causes("CronJob", &cron_job(&patch));
            match expected {
                None => assert_eq!(causes, Vec::<String>::new(), "{patch}"),
                Some(expected) => {
                    assert!(causes.iter().any(|cause| cause.contains(expected)), "{patch}: {causes:?}");
                }
            }
        }
    }
}
