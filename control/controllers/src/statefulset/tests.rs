//! Tables of identities and steps.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::identity::{claims, ordinal_of, pod};
use super::plan::{Step, Target, by_ordinal, status, steps};

fn set(extra: &Value) -> StatefulSet {
    let mut set = json!({
        "metadata": {"name": "web", "uid": "u", "namespace": "a"},
        "spec": {
            "replicas": 3, "serviceName": "svc", "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}},
        },
    });
    for (field, value) in extra.as_object().unwrap() {
        set["spec"][field] = value.clone();
    }
    serde_json::from_value(set).unwrap()
}

fn member(ordinal: i32, revision: &str, state: &str) -> Arc<Pod> {
    let ready = if state == "ready" || state == "leaving" { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("web-{ordinal}"), "labels": {"controller-revision-hash": revision},
                "deletionTimestamp": (state == "leaving").then_some("2026-01-01T00:00:00Z"),
            },
            "status": {
                "phase": if state == "failed" { "Failed" } else { "Running" },
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            },
        }))
        .unwrap(),
    )
}

fn target() -> Target {
    Target { current: "old".to_owned(), update: "new".to_owned() }
}

/// The steps in short: `+2n` creates ordinal 2 of the new revision, `-web-1` deletes that pod.
fn short(set: &StatefulSet, pods: &[Arc<Pod>]) -> Vec<String> {
    let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
    steps(set, &by_ordinal(set, pods), &target(), now)
        .iter()
        .map(|step| match step {
            Step::Create { ordinal, update } => format!("+{ordinal}{}", if *update { "n" } else { "o" }),
            Step::Delete(pod) => format!("-{}", pod.metadata.name.as_deref().unwrap()),
        })
        .collect()
}

#[test]
fn pod_has_name_labels_host_name_and_claims() {
    let set = set(&json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}));
    let pod = pod(&set, 2, &set.spec.template, "web-abc");
    assert_eq!(pod.metadata.name.as_deref(), Some("web-2"));
    assert_eq!(pod.metadata.labels.as_ref().unwrap()["apps.kubernetes.io/pod-index"], "2");
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-2"), Some("svc")));
    let claim = spec.volumes.as_ref().unwrap()[0].persistent_volume_claim.as_ref().unwrap();
    assert_eq!(claim.claim_name, "data-web-2");
    assert_eq!(claims(&set, 2)[0].metadata.name.as_deref(), Some("data-web-2"));
    assert_eq!(ordinal_of(&set, &pod), Some(2));
    for name in ["web-02", "web-x", "web", "other-1", "web--1"] {
        let named = Pod {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            ..Pod::default()
        };
        assert_eq!(ordinal_of(&set, &named), None, "{name}");
    }
}

#[test]
fn pods_come_one_by_one_and_wait_for_the_one_before() {
    let set = set(&json!({}));
    assert_eq!(short(&set, &[]), ["+0n"]);
    assert!(short(&set, &[member(0, "new", "broken")]).is_empty());
    assert_eq!(short(&set, &[member(0, "new", "ready")]), ["+1n"]);
    assert_eq!(short(&set, &[member(0, "new", "failed")]), ["-web-0"]);
    assert!(short(&set, &[member(0, "new", "leaving")]).is_empty(), "its name is still taken");
}

#[test]
fn parallel_pods_come_all_at_once() {
    let set = set(&json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(short(&set, &[member(1, "new", "broken")]), ["+0n", "+2n"]);
}

#[test]
fn surplus_goes_from_the_top_when_the_rest_is_well() {
    let set = set(&json!({"replicas": 1}));
    let three = |state| vec![member(0, "new", "ready"), member(1, "new", "ready"), member(2, "new", state)];
    assert_eq!(short(&set, &three("ready")), ["-web-2"]);
    assert!(short(&set, &three("leaving")).is_empty());
}

#[test]
fn update_goes_from_the_top_down_to_the_partition() {
    let all = |top: &str, state: &str| {
        vec![member(0, "old", "ready"), member(1, "old", "ready"), member(2, top, state)]
    };
    let plain = set(&json!({}));
    assert_eq!(short(&plain, &all("old", "ready")), ["-web-2"]);
    assert!(short(&plain, &all("new", "broken")).is_empty());
    assert_eq!(short(&plain, &all("new", "ready")), ["-web-1"]);
    let parted = set(&json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}}));
    assert!(short(&parted, &all("new", "ready")).is_empty());
    assert_eq!(short(&parted, &[]), ["+0o"], "below the partition a lost pod comes back as it was");
    let by_hand = set(&json!({"updateStrategy": {"type": "OnDelete"}}));
    assert!(short(&by_hand, &all("old", "ready")).is_empty());
    let two = set(&json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}}));
    assert_eq!(short(&two, &all("old", "ready")), ["-web-2", "-web-1"]);
}

#[test]
fn pods_anywhere_that_do_not_serve_count_against_the_limit() {
    let limited = |partition: i32| {
        set(&json!({
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": 2, "partition": partition}},
        }))
    };
    let below = [member(0, "old", "broken"), member(1, "old", "ready"), member(2, "old", "ready")];
    assert_eq!(short(&limited(1), &below), ["-web-2"], "one below the partition is away already");
    let leaving = [member(0, "old", "ready"), member(1, "old", "leaving"), member(2, "new", "broken")];
    assert!(short(&limited(0), &leaving).is_empty());
    let stuck = [member(0, "old", "broken"), member(1, "old", "broken"), member(2, "old", "ready")];
    assert_eq!(short(&limited(0), &stuck), ["-web-1", "-web-0"], "what serves nobody goes first");
}

#[test]
fn status_reaches_the_new_revision_when_all_pods_are_of_it() {
    let set = set(&json!({}));
    let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
    let of = |pods: &[Arc<Pod>]| status(&set, &by_ordinal(&set, pods), &target(), now);
    let mixed = of(&[member(0, "old", "ready"), member(1, "old", "ready"), member(2, "new", "ready")]);
    assert_eq!(
        (mixed.current_revision.as_deref(), mixed.current_replicas, mixed.updated_replicas),
        (Some("old"), Some(2), Some(1))
    );
    let done = of(&[member(0, "new", "ready"), member(1, "new", "ready"), member(2, "new", "ready")]);
    assert_eq!((done.current_revision.as_deref(), done.current_replicas), (Some("new"), Some(3)));
}
