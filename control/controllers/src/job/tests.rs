//! Tables of plans: from a Job and its pods to the next steps.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::outcome::condition;
use super::plan::{News, Plan, Terms, plan};

fn job(spec: &Value, status: &Value) -> Job {
    let mut job = json!({
        "metadata": {"name": "j", "namespace": "a", "uid": "u"},
        "spec": {"parallelism": 1, "backoffLimit": 6, "template": {"spec": {"containers": [{"name": "c"}]}}},
        "status": status,
    });
    for (field, value) in spec.as_object().unwrap() {
        job["spec"][field] = value.clone();
    }
    serde_json::from_value(job).unwrap()
}

struct Made {
    name: &'static str,
    phase: &'static str,
    tracked: bool,
    leaving: bool,
    index: Option<i32>,
    failures: i32,
}

const RUNNING: Made =
    Made { name: "p", phase: "Running", tracked: true, leaving: false, index: None, failures: 0 };

fn pod(made: &Made) -> Arc<Pod> {
    let annotations = json!({
        "batch.kubernetes.io/job-completion-index": made.index.map_or(String::new(), |index| index.to_string()),
        "batch.kubernetes.io/job-index-failure-count": made.failures.to_string(),
    });
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {
                "name": made.name, "namespace": "a", "uid": made.name, "annotations": annotations,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "deletionTimestamp": made.leaving.then_some("2026-01-01T00:05:00Z"),
                "finalizers": made.tracked.then_some(["batch.kubernetes.io/job-tracking"]),
            },
            "status": {"phase": made.phase},
        }))
        .unwrap(),
    )
}

fn at(job: &Job, pods: &[Arc<Pod>]) -> Plan {
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    plan(job, pods, Terms { now, backoff: Duration::from_secs(10), caught_up: true })
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect()
}

/// Types and reasons of the conditions that hold.
fn conditions(plan: &Plan) -> Vec<(String, String)> {
    let all = plan.status.conditions.iter().flatten().filter(|condition| condition.status == "True");
    all.map(|condition| (condition.type_.clone(), condition.reason.clone().unwrap())).collect()
}

#[test]
fn as_many_run_as_may_and_are_left_to_do() {
    let cases = [
        (json!({"completions": 1}), 0, 1),
        (json!({"completions": 5, "parallelism": 3}), 0, 3),
        (json!({"completions": 5, "parallelism": 3}), 4, 1),
        (json!({"parallelism": 2}), 0, 2),
        (json!({"completions": 5, "parallelism": 0}), 0, 0),
        (json!({"completions": 5, "suspend": true}), 0, 0),
    ];
    for (spec, succeeded, expected) in cases {
        let plan = at(&job(&spec, &json!({"succeeded": succeeded})), &[]);
        assert_eq!(plan.create.len(), expected, "{spec} {succeeded}");
    }
}

#[test]
fn pod_is_counted_once_over_all_steps() {
    let spec = json!({"completions": 2});
    // It ended: listed, and then let go.
    let ended = pod(&Made { phase: "Succeeded", ..RUNNING });
    let first = at(&job(&spec, &json!({})), std::slice::from_ref(&ended));
    assert_eq!(first.status.succeeded, None);
    assert_eq!(
        first.status.uncounted_terminated_pods.as_ref().unwrap().succeeded,
        Some(vec!["p".to_owned()])
    );
    assert_eq!(names(&first.untrack), ["p"]);
    assert_eq!(first.create.len(), 1, "it counts for the plan at once");
    // Written, but the finalizer is still seen.
    let status = serde_json::to_value(&first.status).unwrap();
    let second = at(&job(&spec, &status), &[ended]);
    assert_eq!((second.status.succeeded, second.create.len()), (None, 1));
    // The finalizer is off, or the pod is gone.
    for pods in [vec![pod(&Made { phase: "Succeeded", tracked: false, ..RUNNING })], Vec::new()] {
        let third = at(&job(&spec, &status), &pods);
        assert_eq!(third.status.succeeded, Some(1));
        let listed = third.status.uncounted_terminated_pods.clone().unwrap();
        assert_eq!((listed.succeeded, third.untrack.len()), (None, 0));
        let again = at(&job(&spec, &serde_json::to_value(&third.status).unwrap()), &pods);
        assert_eq!(again.status.succeeded, Some(1));
    }
}

#[test]
fn job_completes_when_its_last_pod_is_counted() {
    let spec = json!({"completions": 1});
    let first = at(&job(&spec, &json!({})), &[pod(&Made { phase: "Succeeded", ..RUNNING })]);
    assert_eq!(conditions(&first), [("SuccessCriteriaMet".to_owned(), "CompletionsReached".to_owned())]);
    let status = serde_json::to_value(&first.status).unwrap();
    let done = at(&job(&spec, &status), &[]);
    assert_eq!(conditions(&done)[1], ("Complete".to_owned(), "CompletionsReached".to_owned()));
    assert!(done.status.completion_time.is_some());
    assert!(matches!(done.news.as_slice(), [News::Ended(ending)] if ending.success));
}

#[test]
fn limit_deadline_and_policy_end_a_job_and_its_pods() {
    let running = || pod(&Made { name: "runs", ..RUNNING });
    let failed = |name| pod(&Made { name, phase: "Failed", ..RUNNING });
    let limited = job(&json!({"completions": 3, "backoffLimit": 1}), &json!({}));
    assert!(conditions(&at(&limited, &[running(), failed("a")])).is_empty());
    let over = at(&limited, &[running(), failed("a"), failed("b")]);
    assert_eq!(conditions(&over), [("FailureTarget".to_owned(), "BackoffLimitExceeded".to_owned())]);
    assert_eq!(names(&over.delete), ["runs"]);
    assert!(over.news.is_empty(), "not before the last pod is gone");
    let status = serde_json::to_value(&over.status).unwrap();
    let done = at(&job(&json!({"completions": 3, "backoffLimit": 1}), &status), &[]);
    assert_eq!(conditions(&done)[1], ("Failed".to_owned(), "BackoffLimitExceeded".to_owned()));

    let late = job(&json!({"activeDeadlineSeconds": 60}), &json!({"startTime": "2026-01-01T00:58:59Z"}));
    assert_eq!(conditions(&at(&late, &[running()]))[0].1, "DeadlineExceeded");
    let soon = job(&json!({"activeDeadlineSeconds": 60}), &json!({"startTime": "2026-01-01T00:59:30Z"}));
    assert_eq!(at(&soon, &[running()]).next, Some(jiff::SignedDuration::from_secs(30)));
}

#[test]
fn next_pod_waits_for_the_backoff() {
    let mut failed = (*pod(&Made { phase: "Failed", ..RUNNING })).clone();
    failed.metadata.creation_timestamp = Some("2026-01-01T00:59:57Z".parse::<Timestamp>().unwrap().into());
    let plan = at(&job(&json!({"completions": 1}), &json!({})), &[Arc::new(failed)]);
    assert!(plan.create.is_empty());
    assert_eq!(plan.next, Some(jiff::SignedDuration::from_secs(7)));
}

#[test]
fn indexes_that_neither_run_nor_ended_start_in_order() {
    let spec = json!({"completions": 5, "parallelism": 3, "completionMode": "Indexed"});
    let pods = [
        pod(&Made { name: "zero", phase: "Succeeded", index: Some(0), ..RUNNING }),
        pod(&Made { name: "one", index: Some(1), ..RUNNING }),
        pod(&Made { name: "leaves", index: Some(2), leaving: true, tracked: false, ..RUNNING }),
    ];
    let plan = at(&job(&spec, &json!({"completedIndexes": "3"})), &pods);
    let started: Vec<_> = plan.create.iter().map(|start| start.index).collect();
    assert_eq!(started, [Some(2), Some(4)]);
    assert_eq!(plan.status.completed_indexes.as_deref(), Some("0,3"));
    assert_eq!(plan.status.succeeded, Some(2));
    let let_go = pod(&Made { phase: "Succeeded", index: Some(2), tracked: false, ..RUNNING });
    assert_eq!(at(&job(&spec, &json!({})), &[let_go]).status.completed_indexes.as_deref(), Some("2"));
    let twice = [
        pod(&Made { name: "a", index: Some(1), ..RUNNING }),
        pod(&Made { name: "b", index: Some(1), ..RUNNING }),
        pod(&Made { name: "c", index: Some(9), ..RUNNING }),
    ];
    assert_eq!(at(&job(&spec, &json!({})), &twice).withdraw.len(), 2, "one of each index, and no other");
}

#[test]
fn index_is_given_up_after_its_own_limit() {
    let spec = json!({
        "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        "backoffLimit": i32::MAX,
    });
    let failed = |failures| pod(&Made { phase: "Failed", index: Some(0), failures, ..RUNNING });
    let first = at(&job(&spec, &json!({})), &[failed(0)]);
    assert_eq!(first.status.failed_indexes.as_deref(), Some(""));
    let again: Vec<_> = first.create.iter().map(|start| (start.index, start.failures)).collect();
    assert_eq!(again, [(Some(0), Some((1, 0))), (Some(1), Some((0, 0)))]);
    let second = at(&job(&spec, &json!({})), &[failed(1)]);
    assert_eq!(second.status.failed_indexes.as_deref(), Some("0"));
    assert_eq!(second.create.iter().map(|start| start.index).collect::<Vec<_>>(), [Some(1)]);
    let status = json!({"completedIndexes": "1", "failedIndexes": "0"});
    assert_eq!(conditions(&at(&job(&spec, &status), &[]))[0].1, "FailedIndexes");
}

#[test]
fn success_policy_ends_a_job_early() {
    let spec = json!({
        "completions": 5, "parallelism": 5, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "0-2", "succeededCount": 2}]},
    });
    assert!(conditions(&at(&job(&spec, &json!({"completedIndexes": "0,3,4"})), &[])).is_empty());
    let met =
        at(&job(&spec, &json!({"completedIndexes": "0,2"})), &[pod(&Made { index: Some(1), ..RUNNING })]);
    assert_eq!(conditions(&met), [("SuccessCriteriaMet".to_owned(), "SuccessPolicy".to_owned())]);
    assert_eq!(names(&met.delete), ["p"]);
}

#[test]
fn suspension_withdraws_pods_without_counting_them() {
    let suspended = at(&job(&json!({"completions": 1, "suspend": true}), &json!({})), &[pod(&RUNNING)]);
    assert_eq!((names(&suspended.withdraw), suspended.news), (vec!["p"], vec![News::Suspended]));
    assert!(suspended.status.start_time.is_none());
    let resumed = job(&json!({"completions": 1}), &serde_json::to_value(&suspended.status).unwrap());
    assert!(condition(&resumed, "Suspended").is_some());
    let plan = at(&resumed, &[]);
    assert_eq!((plan.create.len(), plan.news), (1, vec![News::Resumed]));
    assert!(plan.status.start_time.is_some());
}

#[test]
fn leaving_pod_is_replaced_at_once_or_when_it_failed() {
    let leaving = || pod(&Made { leaving: true, ..RUNNING });
    let at_once = at(&job(&json!({"completions": 1}), &json!({})), &[leaving()]);
    assert_eq!((at_once.create.len(), names(&at_once.untrack)), (1, vec!["p"]));
    let later = job(&json!({"completions": 1, "podReplacementPolicy": "Failed"}), &json!({}));
    let plan = at(&later, &[leaving()]);
    assert!(plan.create.is_empty() && plan.untrack.is_empty());
}
