//! Evicts pods from nodes whose NoExecute taints they do not tolerate, or not for longer.
//!
//! In: Pods, the taints of their Nodes. Out: the DisruptionTarget condition, deletions, Events. How long a pod has
//! stayed is read from the taint and the pod, so that a restart does not begin anew.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use kube::api::{DeleteParams, Preconditions};
use xebec_api::tolerations::covers;
use xebec_api::wellknown::conditions::POD_SCHEDULED;
use xebec_api::wellknown::taints::NO_EXECUTE;

use crate::cache::Change;
use crate::context::{Caches, Context, Controller, ControllerQueue, Informers, Outcome};
use crate::disruption;
use crate::error::{Error, is_conflict, is_not_found};
use crate::key::{ControllerName, ObjectKey};
use crate::pod;
use crate::recorder::Severity;

/// The controller. Its keys are pods.
pub(crate) struct TaintEviction {
    context: Context,
    queue: ControllerQueue,
}

/// How long a pod stays on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    Forever,
    Until(Timestamp),
    Over,
}

impl TaintEviction {
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> Self {
        let queue = context.queue_of(ControllerName::TaintEviction);
        informers.nodes.on_change({
            let (queue, caches) = (queue.clone(), context.caches.clone());
            move |change| enqueue_for_node(&queue, &caches, change)
        });
        informers.pods.on_change({
            let (queue, caches) = (queue.clone(), context.caches.clone());
            move |change| {
                if let Some(pod) = change.new.as_ref().filter(|pod| is_on_tainted_node(&caches, pod)) {
                    queue.add(ObjectKey::of(pod.as_ref()));
                }
            }
        });
        Self { context: context.clone(), queue }
    }

    async fn judge(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let caches = &self.context.caches;
        let Some(pod) = caches.pods.get(key).filter(|pod| !pod::is_terminating(pod)) else {
            return Ok(Outcome::Done);
        };
        let node = pod::bound_to(&pod).and_then(|name| caches.nodes.get(&ObjectKey::cluster(name)));
        let Some(node) = node else {
            return Ok(Outcome::Done);
        };
        let now = Timestamp::now();
        match stay(&pod, evicting_taints(&node), now) {
            Stay::Forever => Ok(Outcome::Done),
            Stay::Until(end) => {
                Ok(Outcome::After(Duration::try_from(end.duration_since(now)).unwrap_or_default()))
            }
            Stay::Over => self.evict(key, &pod).await,
        }
    }

    async fn evict(&self, key: &ObjectKey, pod: &Pod) -> Result<Outcome, Error> {
        let message = "Taint manager: deleting due to NoExecute taint";
        let api = self.context.api::<Pod>(&key.namespace);
        disruption::mark(&api, pod, "DeletionByTaintManager", message).await?;
        self.context.record(
            ControllerName::TaintEviction,
            pod,
            Severity::Normal,
            "TaintManagerEviction",
            format!("Marking for deletion Pod {key}"),
        );
        let params = DeleteParams::default()
            .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        match api.delete(&key.name, &params).await {
            Err(error) if !is_not_found(&error) && !is_conflict(&error) => {
                Err(Error::api(format!("evict pod {key}"), error))
            }
            _ => Ok(Outcome::Done),
        }
    }
}

impl Controller for TaintEviction {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.judge(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        for pod in self.context.caches.pods.all() {
            if is_on_tainted_node(&self.context.caches, &pod) {
                self.queue.add(ObjectKey::of(pod.as_ref()));
            }
        }
    }
}

fn evicting_taints(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == NO_EXECUTE)
}

fn is_on_tainted_node(caches: &Caches, pod: &Pod) -> bool {
    let node = pod::bound_to(pod).and_then(|name| caches.nodes.get(&ObjectKey::cluster(name)));
    node.is_some_and(|node| evicting_taints(&node).next().is_some())
}

/// New taints evict pods; a pod whose time was set by an old one looks again when that is over.
fn enqueue_for_node(queue: &ControllerQueue, caches: &Caches, change: &Change<Node>) {
    let Some(node) = &change.new else {
        return;
    };
    let before: Vec<&Taint> = change.old.iter().flat_map(|old| evicting_taints(old)).collect();
    let after: Vec<&Taint> = evicting_taints(node).collect();
    if after.is_empty() || before == after {
        return;
    }
    for pod in caches.pods.indexed(node.metadata.name.as_deref().unwrap_or_default()) {
        queue.add(ObjectKey::of(pod.as_ref()));
    }
}

/// How long the pod stays in spite of the taints. A toleration's time runs from when both pod and taint were there.
fn stay<'a>(pod: &Pod, taints: impl IntoIterator<Item = &'a Taint>, now: Timestamp) -> Stay {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let arrived = arrival(pod);
    let mut end: Option<Timestamp> = None;
    for taint in taints {
        let Some(toleration) = tolerations.iter().find(|toleration| covers(toleration, taint)) else {
            return Stay::Over;
        };
        let added = taint.time_added.as_ref().map_or(arrived, |time| time.0);
        if let Some(this) = last_moment(toleration, added.max(arrived)) {
            end = Some(end.map_or(this, |known| known.min(this)));
        }
    }
    match end {
        None => Stay::Forever,
        Some(end) if end > now => Stay::Until(end),
        Some(_) => Stay::Over,
    }
}

/// Until when the toleration holds; `None`: without end.
fn last_moment(toleration: &Toleration, since: Timestamp) -> Option<Timestamp> {
    let seconds = SignedDuration::from_secs(toleration.toleration_seconds?.max(0));
    Some(since.checked_add(seconds).unwrap_or(Timestamp::MAX))
}

/// When the pod came to its node.
fn arrival(pod: &Pod) -> Timestamp {
    let bound =
        pod::condition(pod, POD_SCHEDULED).and_then(|condition| condition.last_transition_time.as_ref());
    bound.or(pod.metadata.creation_timestamp.as_ref()).map_or(Timestamp::MIN, |time| time.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn taint(key: &str, added: i64) -> Taint {
        serde_json::from_value(json!({"key": key, "effect": "NoExecute", "timeAdded": at(added)})).unwrap()
    }

    fn pod(arrived: i64, tolerated: &[(&str, Option<i64>)]) -> Pod {
        let tolerations: Vec<_> = tolerated
            .iter()
            .map(|(key, seconds)| json!({"key": key, "operator": "Exists", "tolerationSeconds": seconds}))
            .collect();
        serde_json::from_value(json!({
            "metadata": {"creationTimestamp": at(0)},
            "spec": {"containers": [], "tolerations": tolerations},
            "status": {"conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(arrived)},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn stay_is_the_shortest_toleration_from_when_pod_and_taint_met() {
        let (a, b) = (taint("a", 100), taint("b", 100));
        let cases = [
            (pod(0, &[]), vec![&a], Stay::Over),
            (pod(0, &[("a", None)]), vec![&a], Stay::Forever),
            (pod(0, &[("a", None)]), vec![&a, &b], Stay::Over),
            (pod(0, &[("a", Some(30))]), vec![&a], Stay::Until(at(130))),
            (pod(110, &[("a", Some(30))]), vec![&a], Stay::Until(at(140))),
            (pod(0, &[("a", Some(30)), ("b", Some(20))]), vec![&a, &b], Stay::Until(at(120))),
            (pod(0, &[("a", Some(10)), ("b", None)]), vec![&a, &b], Stay::Over),
            (pod(0, &[("a", Some(-1))]), vec![&a], Stay::Over),
            (pod(0, &[("a", Some(i64::MAX))]), vec![&a], Stay::Until(Timestamp::MAX)),
            (pod(0, &[]), vec![], Stay::Forever),
        ];
        for (pod, taints, expected) in cases {
            let tolerations = &pod.spec.as_ref().unwrap().tolerations;
            assert_eq!(stay(&pod, taints.clone(), at(110)), expected, "{taints:?} {tolerations:?}");
        }
    }
}
