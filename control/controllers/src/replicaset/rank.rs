//! Which pods go first when there are too many.
//!
//! In: active pods, each with its rank (how many related pods share its node). Out: the pods to delete. Pure.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use xebec_api::wellknown::annotations::POD_DELETION_COST;

use crate::pod;

/// An active pod and how many related active pods run on its node.
#[derive(Clone, Debug)]
pub(crate) struct Ranked {
    pub(crate) pod: Arc<Pod>,
    pub(crate) rank: usize,
}

/// The `count` pods that are missed least: not bound before bound, not running before running, not ready before ready,
/// cheaper before dearer, crowded node before quiet node, then whichever was ready or alive for less long.
pub(crate) fn pods_to_delete(mut candidates: Vec<Ranked>, count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if count < candidates.len() {
        candidates.sort_by(|a, b| order(a, b, now));
        candidates.truncate(count);
    }
    candidates.into_iter().map(|ranked| ranked.pod).collect()
}

/// Less = goes earlier.
fn order(a: &Ranked, b: &Ranked, now: Timestamp) -> Ordering {
    let (one, other) = (&*a.pod, &*b.pod);
    pod::bound_to(one)
        .is_some()
        .cmp(&pod::bound_to(other).is_some())
        .then_with(|| phase_order(one).cmp(&phase_order(other)))
        .then_with(|| pod::is_ready(one).cmp(&pod::is_ready(other)))
        .then_with(|| deletion_cost(one).cmp(&deletion_cost(other)))
        .then_with(|| b.rank.cmp(&a.rank))
        .then_with(|| by_age(one, other, pod::ready_since(one), pod::ready_since(other), now))
        .then_with(|| pod::max_restarts(other).cmp(&pod::max_restarts(one)))
        .then_with(|| by_age(one, other, created(one), created(other), now))
}

fn phase_order(pod: &Pod) -> u8 {
    match pod::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod.metadata.annotations.as_ref().and_then(|a| a.get(POD_DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Younger first, but ages of one order of magnitude count as equal and the UID decides: so that a scale-down does not
/// always take the newest, whose failure domain is usually the same.
fn by_age(one: &Pod, other: &Pod, a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) if a == b => Ordering::Equal,
        (Some(a), Some(b)) => {
            magnitude(a, now).cmp(&magnitude(b, now)).then_with(|| one.metadata.uid.cmp(&other.metadata.uid))
        }
    }
}

/// The binary logarithm of an age in nanoseconds; -1 for the future.
fn magnitude(since: Timestamp, now: Timestamp) -> i64 {
    let age = now.as_nanosecond() - since.as_nanosecond();
    if age > 0 { i64::from(age.ilog2()) } else { -1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-02T00:00:00Z";

    fn ranked(uid: &str, rank: usize, change: impl FnOnce(&mut Value)) -> Ranked {
        let mut pod = json!({
            "metadata": {"name": uid, "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "containers": []},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}],
                "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "image": "", "imageID": ""}],
            },
        });
        change(&mut pod);
        Ranked { pod: Arc::new(serde_json::from_value(pod).unwrap()), rank }
    }

    #[test]
    fn first_to_go_is_the_least_missed() {
        let keep = || ranked("keep", 1, |_| {});
        let cases: Vec<(&str, Ranked)> = vec![
            ("unbound", ranked("x", 1, |p| p["spec"]["nodeName"] = Value::Null)),
            ("pending", ranked("x", 1, |p| p["status"]["phase"] = json!("Pending"))),
            ("unknown", ranked("x", 1, |p| p["status"]["phase"] = json!("Unknown"))),
            ("not ready", ranked("x", 1, |p| p["status"]["conditions"][0]["status"] = json!("False"))),
            ("cheap", ranked("x", 1, |p| p["metadata"]["annotations"] = json!({POD_DELETION_COST: "-5"}))),
            ("crowded", ranked("x", 2, |_| {})),
            (
                "ready lately",
                ranked("x", 1, |p| {
                    p["status"]["conditions"][0]["lastTransitionTime"] = json!("2026-01-01T23:59:00Z");
                }),
            ),
            (
                "restarting",
                ranked("x", 1, |p| p["status"]["containerStatuses"][0]["restartCount"] = json!(3)),
            ),
            ("young", ranked("x", 1, |p| p["metadata"]["creationTimestamp"] = json!("2026-01-01T23:59:00Z"))),
        ];
        for (what, loser) in cases {
            for candidates in [vec![keep(), loser.clone()], vec![loser.clone(), keep()]] {
                let gone = pods_to_delete(candidates, 1, NOW.parse().unwrap());
                assert_eq!(gone[0].metadata.uid.as_deref(), Some("x"), "{what}");
            }
        }
    }

    #[test]
    fn ages_of_one_magnitude_are_decided_by_uid() {
        let older = ranked("a", 1, |p| p["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z"));
        let younger = ranked("b", 1, |p| p["metadata"]["creationTimestamp"] = json!("2026-01-01T00:30:00Z"));
        let gone = pods_to_delete(vec![younger, older], 1, NOW.parse().unwrap());
        assert_eq!(gone[0].metadata.uid.as_deref(), Some("a"));
    }

    #[test]
    fn all_go_without_sorting_when_all_are_too_many() {
        assert_eq!(pods_to_delete(vec![ranked("a", 1, |_| {})], 3, NOW.parse().unwrap()).len(), 1);
    }
}
