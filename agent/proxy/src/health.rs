//! Whether the proxy keeps up.
//!
//! In: changes that arrive, synchronisations that succeed, the Node. Out: an answer for load balancers and probes. The rule
//! is kube-proxy's: a change may wait for a while, not longer; a node that is about to go takes no new connections but
//! is alive. Pure; time is a parameter.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde::Serialize;
use tokio::time::Instant;

/// How long a change may wait to be written: twice kube-proxy's default period of synchronisation.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Taint of a node that the cluster autoscaler is about to remove.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// Whether load balancers may send new connections to a node: it is not being deleted.
#[must_use]
pub fn node_is_eligible(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    node.metadata.deletion_timestamp.is_none() && !taints.into_iter().any(|taint| taint.key == TO_BE_DELETED)
}

/// The proxy's health.
#[derive(Debug)]
pub(crate) struct Health {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the oldest change that is not written arrived.
    pending_since: Option<Instant>,
    updated: Option<Timestamp>,
    eligible: bool,
}

/// An answer, as kube-proxy words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    #[serde(skip)]
    pub(crate) healthy: bool,
    /// Now where healthy, else when the tables were last in step.
    last_updated: Option<Timestamp>,
    current_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { pending_since: None, updated: None, eligible: true }) }
    }

    pub(crate) fn queued(&self, now: Instant) {
        self.state().pending_since.get_or_insert(now);
    }

    pub(crate) fn updated(&self, time: Timestamp) {
        let mut state = self.state();
        state.pending_since = None;
        state.updated = Some(time);
    }

    pub(crate) fn set_eligible(&self, eligible: bool) {
        self.state().eligible = eligible;
    }

    /// Whether no change waits for too long.
    pub(crate) fn keeps_up(&self, now: Instant) -> bool {
        let pending = self.state().pending_since;
        pending.is_none_or(|since| now.saturating_duration_since(since) < TIMEOUT)
    }

    /// For load balancers: may new connections come here?
    pub(crate) fn healthz(&self, now: Instant, time: Timestamp) -> Answer {
        let eligible = self.state().eligible;
        self.answer(self.keeps_up(now) && eligible, Some(eligible), time)
    }

    /// For probes: is the proxy alive?
    pub(crate) fn livez(&self, now: Instant, time: Timestamp) -> Answer {
        self.answer(self.keeps_up(now), None, time)
    }

    fn answer(&self, healthy: bool, node_eligible: Option<bool>, time: Timestamp) -> Answer {
        let last_updated = if healthy { Some(time) } else { self.state().updated };
        Answer { healthy, last_updated, current_time: time, node_eligible }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_that_waits_too_long_makes_the_proxy_unhealthy_until_it_is_written() {
        let (health, start, time) = (Health::new(), Instant::now(), Timestamp::UNIX_EPOCH);
        assert!(health.livez(start, time).healthy, "nothing waits");
        health.queued(start);
        health.queued(start + TIMEOUT / 2);
        assert!(health.healthz(start + TIMEOUT - Duration::from_millis(1), time).healthy);
        assert!(!health.healthz(start + TIMEOUT, time).healthy, "the oldest change counts");
        assert!(!health.livez(start + TIMEOUT, time).healthy);
        health.updated(time);
        assert!(health.healthz(start + TIMEOUT, time).healthy);
    }

    #[test]
    fn node_about_to_go_takes_no_connections_but_is_alive() {
        let (health, now, time) = (Health::new(), Instant::now(), Timestamp::UNIX_EPOCH);
        health.set_eligible(false);
        let (healthz, livez) = (health.healthz(now, time), health.livez(now, time));
        assert!(!healthz.healthy && livez.healthy);
        let json = serde_json::to_string(&healthz).unwrap();
        assert_eq!(json, r#"{"lastUpdated":null,"currentTime":"1970-01-01T00:00:00Z","nodeEligible":false}"#);
        assert!(!serde_json::to_string(&livez).unwrap().contains("nodeEligible"));
    }

    #[test]
    fn node_is_not_eligible_when_it_is_deleted_or_marked_for_it() {
        let node = |json: serde_json::Value| -> Node { serde_json::from_value(json).unwrap() };
        assert!(node_is_eligible(&node(
            serde_json::json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}})
        )));
        let tainted =
            serde_json::json!({"spec": {"taints": [{"key": TO_BE_DELETED, "effect": "NoSchedule"}]}});
        assert!(!node_is_eligible(&node(tainted)));
        let deleted = serde_json::json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert!(!node_is_eligible(&node(deleted)));
    }
}
