//! Tables of conditions, taints and zones.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::conditions::{Readiness, readiness, silenced};
use super::taints::{Eviction, plan};
use super::zones::{Pace, count, pause, zone_of};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn node(ready: Option<&str>, zone: &str, extra: &Value) -> Node {
    let mut node = json!({
        "metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": zone}},
        "spec": {},
        "status": {"conditions": ready.map(|status| vec![json!({"type": "Ready", "status": status})])},
    });
    if let Some(conditions) = extra.get("conditions") {
        let known = node["status"]["conditions"].as_array_mut().unwrap();
        known.extend(conditions.as_array().unwrap().iter().cloned());
    }
    if let Some(spec) = extra.get("spec") {
        node["spec"] = spec.clone();
    }
    serde_json::from_value(node).unwrap()
}

fn taints(node: &Node, eviction: Eviction) -> Vec<String> {
    plan(node, eviction, now())
        .iter()
        .map(|t| format!("{}:{}", t.key.replace("node.kubernetes.io/", ""), t.effect))
        .collect()
}

#[test]
fn taints_follow_conditions_and_cordon() {
    let none = json!({});
    let cordoned = json!({"spec": {"unschedulable": true}});
    let pressed = json!({"conditions": [
        {"type": "MemoryPressure", "status": "True"}, {"type": "DiskPressure", "status": "Unknown"},
        {"type": "NetworkUnavailable", "status": "True"},
    ]});
    let cases: [(Option<&str>, &Value, &[&str]); 6] = [
        (Some("True"), &none, &[]),
        (Some("True"), &cordoned, &["unschedulable:NoSchedule"]),
        (Some("True"), &pressed, &["memory-pressure:NoSchedule", "network-unavailable:NoSchedule"]),
        (Some("False"), &none, &["not-ready:NoSchedule", "not-ready:NoExecute"]),
        (Some("Unknown"), &none, &["unreachable:NoSchedule", "unreachable:NoExecute"]),
        (None, &none, &["not-ready:NoSchedule"]),
    ];
    for (ready, extra, expected) in cases {
        assert_eq!(taints(&node(ready, "", extra), Eviction::Allowed), expected, "{ready:?} {extra}");
    }
}

#[test]
fn taints_of_others_stay_and_ours_keep_their_time() {
    let tainted = |ready| {
        node(
            Some(ready),
            "",
            &json!({"spec": {"taints": [
                {"key": "dedicated", "value": "x", "effect": "NoSchedule"},
                {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "timeAdded": "2025-12-31T00:00:00Z"},
                {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
            ]}}),
        )
    };
    assert_eq!(
        plan(&tainted("False"), Eviction::Allowed, now()),
        tainted("False").spec.unwrap().taints.unwrap()
    );
    assert_eq!(taints(&tainted("True"), Eviction::Allowed), ["dedicated:NoSchedule"]);
    let swapped: Vec<Taint> = plan(&tainted("Unknown"), Eviction::Later, now());
    assert_eq!(swapped.len(), 3, "what evicts goes on evicting when the reason changes");
    assert!(swapped.iter().all(|taint| !taint.key.ends_with("not-ready")));
    assert_eq!(
        taints(&tainted("False"), Eviction::Stopped),
        ["dedicated:NoSchedule", "not-ready:NoSchedule"]
    );
}

#[test]
fn eviction_waits_its_turn() {
    let silent = node(Some("Unknown"), "", &json!({}));
    assert_eq!(taints(&silent, Eviction::Later), ["unreachable:NoSchedule"]);
}

#[test]
fn silent_node_is_unknown_in_everything_its_agent_said() {
    let known = node(
        Some("True"),
        "",
        &json!({"conditions": [
            {"type": "DiskPressure", "status": "False"}, {"type": "NetworkUnavailable", "status": "False"},
        ]}),
    );
    let silent = silenced(&known, now());
    let conditions = silent.status.as_ref().unwrap().conditions.clone().unwrap();
    let told: Vec<(&str, &str, &str)> = conditions
        .iter()
        .map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(
        told,
        [
            ("Ready", "Unknown", "NodeStatusUnknown"),
            ("DiskPressure", "Unknown", "NodeStatusUnknown"),
            ("NetworkUnavailable", "False", ""),
            ("MemoryPressure", "Unknown", "NodeStatusNeverUpdated"),
            ("PIDPressure", "Unknown", "NodeStatusNeverUpdated"),
        ]
    );
    assert_eq!(readiness(&silent), Readiness::Unknown);
    assert_eq!(silenced(&silent, Timestamp::MAX), silent, "said once");
}

#[test]
fn zones_in_trouble_evict_slower_or_not_at_all() {
    let zone = |name: &str, ready: usize, not_ready: usize| {
        let of = |status, count| std::iter::repeat_n(node(Some(status), name, &json!({})), count);
        of("True", ready).chain(of("Unknown", not_ready)).collect::<Vec<Node>>()
    };
    let judge = |nodes: Vec<Node>| pause(&count(&nodes), &zone_of(nodes.last().unwrap()));
    let seconds = |seconds| Ok(Duration::from_secs(seconds));
    assert_eq!(judge(zone("a", 1, 1)), seconds(10));
    assert_eq!(judge(zone("a", 2, 3)), Err(Eviction::Later), "60 % of a small zone");
    assert_eq!(judge(zone("a", 20, 40)), seconds(100), "66 % of a large zone");
    assert_eq!(judge(zone("a", 0, 1)), Err(Eviction::Stopped), "nobody is ready anywhere");
    assert_eq!(judge([zone("b", 1, 0), zone("a", 0, 3)].concat()), seconds(10), "another zone is well");
    assert_eq!(judge([zone("b", 0, 2), zone("a", 0, 3)].concat()), Err(Eviction::Stopped));
}

#[tokio::test(start_paused = true)]
async fn nodes_of_a_zone_take_turns() {
    let (pace, start) = (Pace::default(), Instant::now());
    let (a, b) = ((String::new(), "a".to_owned()), (String::new(), "b".to_owned()));
    let ten = Duration::from_secs(10);
    assert_eq!(pace.take(a.clone(), ten, start), Ok(()));
    assert_eq!(pace.take(a.clone(), ten, start), Err(ten));
    assert_eq!(pace.take(b, ten, start), Ok(()));
    assert_eq!(pace.take(a, ten, start + ten), Ok(()));
}
