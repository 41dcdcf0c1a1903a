//! Tables of places and steps.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::place::{Place, node_of, place, pod_for};
use super::plan::{manage, roll, sites, status};

fn set(strategy: &Value, spec: &Value) -> DaemonSet {
    let mut pod_spec = json!({"containers": [{"name": "c"}]});
    for (field, value) in spec.as_object().unwrap() {
        pod_spec[field] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {"name": "d", "uid": "u", "generation": 3},
        "spec": {
            "selector": {"matchLabels": {"app": "d"}}, "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": pod_spec},
        },
    }))
    .unwrap()
}

fn node(name: &str, taint: Option<(&str, &str)>) -> Arc<Node> {
    let taints = taint.map(|(key, effect)| vec![json!({"key": key, "effect": effect})]);
    let node = json!({"metadata": {"name": name, "labels": {"n": name}}, "spec": {"taints": taints}});
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod(name: &str, node: &str, hash: &str, state: &str) -> Arc<Pod> {
    let ready = if state == "ready" { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "labels": {"app": "d", "controller-revision-hash": hash},
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "deletionTimestamp": (state == "leaving").then_some("2026-01-01T00:00:00Z"),
            },
            "spec": {"nodeName": node, "containers": []},
            "status": {
                "phase": if state == "failed" { "Failed" } else { "Running" },
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            },
        }))
        .unwrap(),
    )
}

fn now() -> Timestamp {
    "2026-01-01T00:01:00Z".parse().unwrap()
}

fn names(pods: &[Arc<Pod>]) -> Vec<String> {
    pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect()
}

#[test]
fn place_follows_selector_and_taints() {
    let any = set(&json!({}), &json!({}));
    let picky = set(&json!({}), &json!({"nodeSelector": {"n": "a"}}));
    let cases = [
        (&any, node("a", None), Place::Run),
        (&any, node("a", Some(("dedicated", "NoSchedule"))), Place::Keep),
        (&any, node("a", Some(("dedicated", "NoExecute"))), Place::Leave),
        (&any, node("a", Some(("node.kubernetes.io/unschedulable", "NoSchedule"))), Place::Run),
        (&any, node("a", Some(("node.kubernetes.io/unreachable", "NoExecute"))), Place::Run),
        (&any, node("a", Some(("node.kubernetes.io/network-unavailable", "NoSchedule"))), Place::Keep),
        (&any, node("a", Some(("dedicated", "PreferNoSchedule"))), Place::Run),
        (&picky, node("a", None), Place::Run),
        (&picky, node("b", None), Place::Leave),
    ];
    for (set, node, expected) in cases {
        assert_eq!(place(set, &node), expected, "{node:?}");
    }
    let host = set(&json!({}), &json!({"hostNetwork": true}));
    let unavailable = node("a", Some(("node.kubernetes.io/network-unavailable", "NoSchedule")));
    assert_eq!(place(&host, &unavailable), Place::Run);
}

#[test]
fn pod_is_pinned_to_its_node() {
    let pod = pod_for(&set(&json!({}), &json!({})), "a", "h1");
    assert_eq!(node_of(&pod), Some("a"));
    assert_eq!(pod.metadata.labels.unwrap()["controller-revision-hash"], "h1");
    assert_eq!(pod.spec.unwrap().tolerations.unwrap().len(), 6);
}

#[test]
fn every_node_gets_one_pod() {
    let set = set(&json!({}), &json!({}));
    let nodes = ["a", "b", "c", "d", "e"].map(|name| node(name, None));
    let pods = [
        pod("one", "b", "h", "ready"),
        pod("first", "c", "h", "ready"),
        pod("second", "c", "h", "ready"),
        pod("ended", "d", "h", "failed"),
        pod("leaving", "e", "h", "leaving"),
    ];
    let steps = manage(&set, &sites(&set, &nodes, &pods), "h", now());
    assert_eq!(steps.create_on, ["a"]);
    assert_eq!(names(&steps.delete), ["second"]);
    assert_eq!(names(&steps.failed), ["ended"]);
}

#[test]
fn rollout_takes_unavailable_pods_first_and_keeps_its_limit() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}});
    let set_ = set(&strategy, &json!({}));
    let nodes = ["a", "b", "c", "d"].map(|name| node(name, None));
    let rolled = |pods: &[Arc<Pod>]| names(&roll(&set_, &sites(&set_, &nodes, pods), "new", now()).delete);
    let old = |broken: &str| -> Vec<Arc<Pod>> {
        ["a", "b", "c", "d"]
            .iter()
            .map(|name| pod(name, name, "old", if *name == broken { "broken" } else { "ready" }))
            .collect()
    };
    assert_eq!(rolled(&old("")), ["a", "b"]);
    assert_eq!(rolled(&old("d")), ["d", "a"]);
    let mut half = old("");
    half[0] = pod("a2", "a", "new", "broken");
    half[1] = pod("b2", "b", "new", "broken");
    assert!(rolled(&half).is_empty(), "two are missing already");
    let on_delete = set(&json!({"type": "OnDelete"}), &json!({}));
    assert!(roll(&on_delete, &sites(&on_delete, &nodes, &old("")), "new", now()).delete.is_empty());
}

#[test]
fn surging_rollout_starts_before_it_stops() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let set = set(&strategy, &json!({}));
    let nodes = ["a", "b"].map(|name| node(name, None));
    let mut pods = vec![pod("a", "a", "old", "ready"), pod("b", "b", "old", "ready")];
    assert_eq!(roll(&set, &sites(&set, &nodes, &pods), "new", now()).create_on, ["a"]);
    pods.push(pod("a2", "a", "new", "broken"));
    let both = sites(&set, &nodes, &pods);
    assert!(manage(&set, &both, "new", now()).delete.is_empty(), "the old one serves until the new one does");
    assert!(roll(&set, &both, "new", now()).create_on.is_empty());
    pods[2] = pod("a2", "a", "new", "ready");
    assert_eq!(names(&manage(&set, &sites(&set, &nodes, &pods), "new", now()).delete), ["a"]);
}

#[test]
fn status_counts_nodes() {
    let set = set(&json!({}), &json!({}));
    let nodes = [node("a", None), node("b", None), node("c", None), node("d", Some(("x", "NoSchedule")))];
    let pods = [pod("a", "a", "new", "ready"), pod("b", "b", "old", "broken"), pod("d", "d", "old", "ready")];
    let status = status(&set, &sites(&set, &nodes, &pods), "new", now());
    assert_eq!((status.desired_number_scheduled, status.current_number_scheduled), (3, 2));
    assert_eq!((status.number_misscheduled, status.number_ready), (1, 1));
    assert_eq!((status.number_available, status.number_unavailable), (Some(1), Some(2)));
    assert_eq!((status.updated_number_scheduled, status.observed_generation), (Some(1), Some(3)));
}
