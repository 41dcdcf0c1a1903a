//! Table tests of the ReplicaSet plan.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::owner;
use crate::replicaset::plan::{self, Failure, Scale};

fn set(replicas: i32, min_ready: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "a", "uid": "u", "generation": 4},
        "spec": {
            "replicas": replicas, "minReadySeconds": min_ready,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web", "tier": "front"}}},
        },
    }))
    .unwrap()
}

fn pod(name: &str, node: &str, ready_since: Option<&str>, extra: serde_json::Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {
            "name": name, "namespace": "a", "uid": name, "labels": {"app": "web"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true
            }],
        },
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": "Running", "conditions": [{
            "type": "Ready", "status": if ready_since.is_some() { "True" } else { "False" },
            "lastTransitionTime": ready_since,
        }]},
    });
    json_merge(&mut pod, extra);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn json_merge(target: &mut serde_json::Value, patch: serde_json::Value) {
    match (target, patch) {
        (serde_json::Value::Object(target), serde_json::Value::Object(patch)) => {
            for (key, value) in patch {
                json_merge(target.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

const LONG_READY: Option<&str> = Some("2026-01-01T00:10:00Z");

#[test]
fn set_creates_what_is_missing_up_to_the_burst() {
    let owned = [pod("p", "n", LONG_READY, json!({}))];
    assert!(matches!(plan::scale(&set(3, 0), &owned, &[], now()), Scale::Create(2)));
    assert!(matches!(plan::scale(&set(1, 0), &owned, &[], now()), Scale::Enough));
    assert!(matches!(plan::scale(&set(9000, 0), &owned, &[], now()), Scale::Create(plan::BURST)));
}

#[test]
fn set_replaces_pods_that_failed_or_are_terminating() {
    let owned = [
        pod("failed", "n", None, json!({"status": {"phase": "Failed"}})),
        pod("leaving", "n", LONG_READY, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:59:00Z"}})),
    ];
    assert!(matches!(plan::scale(&set(1, 0), &owned, &[], now()), Scale::Create(1)));
}

#[test]
fn set_deletes_from_the_node_that_runs_most_related_pods() {
    let owned = [pod("a", "quiet", LONG_READY, json!({})), pod("b", "crowded", LONG_READY, json!({}))];
    let mut related = owned.to_vec();
    related.push(pod("c", "crowded", LONG_READY, json!({})));
    let Scale::Delete(gone) = plan::scale(&set(1, 0), &owned, &related, now()) else {
        panic!("a deletion was due");
    };
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].metadata.name.as_deref(), Some("b"));
}

#[test]
fn status_counts_labels_readiness_availability_and_termination() {
    let owned = [
        pod("old", "n", LONG_READY, json!({"metadata": {"labels": {"tier": "front"}}})),
        pod("fresh", "n", Some("2026-01-01T00:59:50Z"), json!({})),
        pod("starting", "n", None, json!({})),
        pod("leaving", "n", LONG_READY, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:59:00Z"}})),
        pod("failed", "n", None, json!({"status": {"phase": "Failed"}})),
    ];
    let status = plan::status(&set(3, 30), &owned, None, now());
    assert_eq!(
        (status.replicas, status.fully_labeled_replicas, status.ready_replicas),
        (3, Some(1), Some(2))
    );
    assert_eq!((status.available_replicas, status.terminating_replicas), (Some(1), Some(1)));
    assert_eq!((status.observed_generation, status.conditions), (Some(4), None));
    let wait = plan::next_available(&set(3, 30), &owned, now()).unwrap();
    assert_eq!(wait.as_secs(), 20);
}

#[test]
fn status_tells_of_the_first_failure_and_forgets_it_after_success() {
    let failure = |message: &str| Failure { reason: "FailedCreate", message: message.to_owned() };
    let mut set = set(3, 0);
    set.status = Some(plan::status(&set, &[], Some(&failure("quota")), now()));
    let second = plan::status(&set, &[], Some(&failure("other")), now());
    assert_eq!(second.conditions.as_ref().unwrap()[0].message.as_deref(), Some("quota"));
    assert_eq!(plan::status(&set, &[], None, now()).conditions, None);
}

#[test]
fn claims_leave_finished_pods_alone() {
    let set = set(1, 0);
    let selector = owner::selector(&set, &set.spec.selector).unwrap();
    let orphan = |phase: &str| {
        pod(
            phase,
            "n",
            LONG_READY,
            json!({"metadata": {"ownerReferences": null}, "status": {"phase": phase}}),
        )
    };
    let moved = pod("moved", "n", LONG_READY, json!({"metadata": {"labels": {"app": "other"}}}));
    let claims = owner::claims(
        &set,
        &selector,
        vec![orphan("Running"), orphan("Failed"), moved],
        crate::pod::is_active,
    );
    assert_eq!((claims.owned.len(), claims.adopt.len(), claims.release.len()), (0, 1, 1));
}
