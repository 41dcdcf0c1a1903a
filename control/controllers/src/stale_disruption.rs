//! Takes back what was said of pods that were about to be terminated and were not.
//!
//! In: Pods with a DisruptionTarget condition. Out: the condition set to False two minutes later, if the pod still runs
//! on: whoever marked it did not delete it, and its owner must not take a later failure for a disruption.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use xebec_api::wellknown::conditions::{DISRUPTION_TARGET, FALSE, TRUE};

use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::error::Error;
use crate::key::{ControllerName, ObjectKey};
use crate::patch::{self, Half};
use crate::pod;

/// How long the deletion may take to follow.
const PATIENCE: SignedDuration = SignedDuration::from_secs(120);
/// The kubelet may take any time from saying so to ending the pod.
const BY_KUBELET: &str = "TerminationByKubelet";

/// The controller. Its keys are pods.
pub(crate) struct StaleDisruption {
    context: Context,
    queue: ControllerQueue,
}

impl StaleDisruption {
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> Self {
        let queue = context.queue_of(ControllerName::StaleDisruption);
        informers.pods.on_change({
            let queue = queue.clone();
            move |change| {
                if let Some(pod) = change.new.as_ref().filter(|pod| marked_at(pod).is_some()) {
                    queue.add(ObjectKey::of(pod.as_ref()));
                }
            }
        });
        Self { context: context.clone(), queue }
    }

    async fn look(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(pod) = self.context.caches.pods.get(key) else {
            return Ok(Outcome::Done);
        };
        let now = Timestamp::now();
        let Some(at) = marked_at(&pod) else {
            return Ok(Outcome::Done);
        };
        let left = PATIENCE - now.duration_since(at);
        if left.is_positive() {
            return Ok(Outcome::After(Duration::try_from(left).unwrap_or_default()));
        }
        let api = self.context.api::<Pod>(&key.namespace);
        match patch::update(&api, Half::Status, pod.as_ref(), &unmarked(&pod, now)).await {
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            written => written.map(|_| Outcome::Done),
        }
    }
}

impl Controller for StaleDisruption {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.look(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        for pod in self.context.caches.pods.all().iter().filter(|pod| marked_at(pod).is_some()) {
            self.queue.add(ObjectKey::of(pod.as_ref()));
        }
    }
}

/// Since when the pod is marked and nothing came of it.
fn marked_at(pod: &Pod) -> Option<Timestamp> {
    if pod::is_terminating(pod) || pod::is_terminal(pod) {
        return None;
    }
    let mark = pod::condition(pod, DISRUPTION_TARGET)?;
    let may_go_stale = mark.status == TRUE && mark.reason.as_deref() != Some(BY_KUBELET);
    may_go_stale.then(|| mark.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0))
}

fn unmarked(pod: &Pod, now: Timestamp) -> Pod {
    let mut unmarked = pod.clone();
    let conditions = unmarked.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
    for mark in conditions.filter(|condition| condition.type_ == DISRUPTION_TARGET) {
        mark.status = FALSE.to_owned();
        mark.last_transition_time = Some(Time(now));
        (mark.reason, mark.message) = (None, None);
    }
    unmarked
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(phase: &str, status: &str, reason: &str, leaving: bool) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"deletionTimestamp": leaving.then_some("2026-01-01T00:00:00Z")},
            "status": {"phase": phase, "conditions": [
                {"type": "DisruptionTarget", "status": status, "reason": reason,
                 "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn only_pods_that_run_on_are_unmarked() {
        let stale = pod("Running", "True", "EvictionByEvictionAPI", false);
        assert_eq!(marked_at(&stale), "2026-01-01T00:00:00Z".parse().ok());
        for other in [
            pod("Running", "True", "EvictionByEvictionAPI", true),
            pod("Failed", "True", "EvictionByEvictionAPI", false),
            pod("Running", "True", "TerminationByKubelet", false),
            pod("Running", "False", "", false),
        ] {
            assert_eq!(marked_at(&other), None, "{other:?}");
        }
        assert_eq!(marked_at(&unmarked(&stale, Timestamp::MAX)), None);
    }
}
