//! What a PodDisruptionBudget allows right now.
//!
//! In: the budget, the pods it selects, how many pods their owners want, the time. Out: the status. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_api::int_or_string::{Rounding, ScaleError, scaled_value};
use xebec_api::wellknown::conditions::{DISRUPTION_ALLOWED, FALSE, TRUE};

use crate::pod;

/// How long an eviction that was granted may take until the pod shows that it leaves.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);

/// How many pods there should be, and how many of them have to be healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) pods: i32,
    pub(crate) healthy: i32,
}

/// Evictions that were granted and do not show yet.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    /// By the name of the pod, when.
    pub(crate) pods: BTreeMap<String, Time>,
    /// Pods whose time is over: they were not deleted after all.
    pub(crate) overdue: Vec<Arc<Pod>>,
    /// When the next one's time is over.
    pub(crate) next: Option<SignedDuration>,
}

/// The budget is a share of what the pods' owners want, so they must be asked.
pub(crate) fn asks_owners(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// What the budget expects of `selected` pods whose owners want `wanted` in all.
pub(crate) fn expected(
    budget: &PodDisruptionBudget,
    selected: usize,
    wanted: i32,
) -> Result<Expected, ScaleError> {
    let spec = budget.spec.clone().unwrap_or_default();
    if let Some(max_unavailable) = &spec.max_unavailable {
        let spared = scaled_value(max_unavailable, wanted, Rounding::Up)?;
        return Ok(Expected { pods: wanted, healthy: wanted.saturating_sub(spared).max(0) });
    }
    match &spec.min_available {
        Some(IntOrString::Int(healthy)) => {
            Ok(Expected { pods: i32::try_from(selected).unwrap_or(i32::MAX), healthy: *healthy })
        }
        Some(share) => Ok(Expected { pods: wanted, healthy: scaled_value(share, wanted, Rounding::Up)? }),
        None => Ok(Expected { pods: 0, healthy: 0 }),
    }
}

/// Sorts the granted evictions in the status by whether they are still to be waited for.
pub(crate) fn granted(budget: &PodDisruptionBudget, selected: &[Arc<Pod>], now: Timestamp) -> Granted {
    let known = budget.status.as_ref().and_then(|status| status.disrupted_pods.clone()).unwrap_or_default();
    let mut granted = Granted::default();
    for pod in selected.iter().filter(|pod| !pod::is_terminating(pod)) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(at) = known.get(&name) else {
            continue;
        };
        let left = DELETION_TIMEOUT - now.duration_since(at.0);
        if left.is_positive() {
            granted.next = Some(granted.next.map_or(left, |next| next.min(left)));
            granted.pods.insert(name, at.clone());
        } else {
            granted.overdue.push(pod.clone());
        }
    }
    granted
}

/// The status these pods amount to.
pub(crate) fn status(
    budget: &PodDisruptionBudget,
    selected: &[Arc<Pod>],
    expected: Expected,
    granted: &Granted,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let counts = |pod: &Pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        !pod::is_terminating(pod) && !granted.pods.contains_key(name) && pod::is_ready(pod)
    };
    let healthy = i32::try_from(selected.iter().filter(|pod| counts(pod)).count()).unwrap_or(i32::MAX);
    let spare = healthy.saturating_sub(expected.healthy).max(0);
    let allowed = if expected.pods <= 0 { 0 } else { spare };
    let (condition, reason) =
        if allowed > 0 { (TRUE, "SufficientPods") } else { (FALSE, "InsufficientPods") };
    PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(expected.healthy),
        expected_pods: Some(expected.pods),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(granted.pods.clone()).filter(|pods| !pods.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: Some(with_condition(budget, condition, reason, "", now)),
    }
}

/// The status when nobody can tell what is allowed: nothing is.
pub(crate) fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    status.conditions = Some(with_condition(budget, FALSE, "SyncFailed", why, now));
    status
}

fn with_condition(
    budget: &PodDisruptionBudget,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let known = budget.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let (of_this_type, mut conditions): (Vec<_>, Vec<_>) =
        known.into_iter().partition(|condition| condition.type_ == DISRUPTION_ALLOWED);
    let unchanged = of_this_type.into_iter().find(|condition| condition.status == status);
    conditions.push(Condition {
        type_: DISRUPTION_ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: unchanged.map_or(Time(now), |condition| condition.last_transition_time),
        observed_generation: budget.metadata.generation,
    });
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn budget(spec: &Value, status: &Value) -> PodDisruptionBudget {
        let budget = json!({"metadata": {"name": "b", "generation": 2}, "spec": spec, "status": status});
        serde_json::from_value(budget).unwrap()
    }

    fn pod(name: &str, ready: bool, leaving: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        let pod = json!({
            "metadata": {"name": name, "deletionTimestamp": leaving.then_some("2026-01-01T00:00:00Z")},
            "status": {"conditions": [{"type": "Ready", "status": status}]},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    #[test]
    fn expectation_follows_numbers_and_shares_of_what_is_wanted() {
        let cases = [
            (json!({"minAvailable": 2}), Expected { pods: 3, healthy: 2 }),
            (json!({"minAvailable": "50%"}), Expected { pods: 7, healthy: 4 }),
            (json!({"maxUnavailable": 1}), Expected { pods: 7, healthy: 6 }),
            (json!({"maxUnavailable": "30%"}), Expected { pods: 7, healthy: 4 }),
            (json!({"maxUnavailable": 9}), Expected { pods: 7, healthy: 0 }),
            (json!({}), Expected { pods: 0, healthy: 0 }),
        ];
        for (spec, wanted) in cases {
            assert_eq!(expected(&budget(&spec, &json!({})), 3, 7), Ok(wanted), "{spec}");
        }
        assert!(expected(&budget(&json!({"maxUnavailable": "x"}), &json!({})), 3, 7).is_err());
    }

    #[test]
    fn granted_evictions_and_leaving_pods_are_not_healthy() {
        let known = json!({"disruptedPods": {
            "a": "2026-01-01T00:09:30Z", "b": "2026-01-01T00:07:00Z", "gone": "2026-01-01T00:09:59Z",
        }});
        let budget = budget(&json!({"minAvailable": 1}), &known);
        let pods =
            [pod("a", true, false), pod("b", true, false), pod("c", true, true), pod("d", false, false)];
        let granted = granted(&budget, &pods, now());
        assert_eq!(granted.pods.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(granted.overdue.len(), 1);
        assert_eq!(granted.next, Some(SignedDuration::from_secs(90)));
        let status = status(&budget, &pods, Expected { pods: 4, healthy: 1 }, &granted, now());
        assert_eq!((status.current_healthy, status.disruptions_allowed), (Some(1), Some(0)));
        let condition = &status.conditions.as_ref().unwrap()[0];
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "InsufficientPods"));
        assert_eq!(status.observed_generation, Some(2));
    }

    #[test]
    fn condition_keeps_its_time_until_it_changes() {
        let known = json!({"conditions": [{
            "type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]});
        let budget = budget(&json!({"minAvailable": 1}), &known);
        let two = [pod("a", true, false), pod("b", true, false)];
        let of = |pods: &[Arc<Pod>]| {
            let expected = Expected { pods: 2, healthy: 1 };
            status(&budget, pods, expected, &Granted::default(), now()).conditions.unwrap()[0].clone()
        };
        assert_eq!(of(&two).last_transition_time.0.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!((of(&two[..1]).status.as_str(), of(&two[..1]).last_transition_time.0), ("False", now()));
        assert_eq!(failed(&budget, "why", now()).disruptions_allowed, Some(0));
    }
}
