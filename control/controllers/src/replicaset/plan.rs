//! What a ReplicaSet needs: pods claimed, created, deleted; the status that tells of it.
//!
//! In: the ReplicaSet, the pods that may concern it, the time. Out: claims, a scaling step, a status. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use xebec_api::wellknown::conditions::{REPLICA_FAILURE, TRUE};

use crate::pod::{self, Wait};
use crate::replicaset::rank::{Ranked, pods_to_delete};

/// Pods created or deleted in one run at most.
pub(crate) const BURST: usize = 500;

/// One step towards the wanted number of pods.
#[derive(Debug)]
pub(crate) enum Scale {
    Enough,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// Why the last scaling step fell short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

fn min_ready_seconds(set: &ReplicaSet) -> i32 {
    set.spec.min_ready_seconds.unwrap_or(0)
}

/// The next step towards `spec.replicas`. `related` are the pods of all ReplicaSets with the same owner: of two pods
/// the one on the node that already runs more of them goes first.
pub(crate) fn scale(set: &ReplicaSet, owned: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Scale {
    let active: Vec<&Arc<Pod>> = owned.iter().filter(|p| pod::is_active(p)).collect();
    let wanted = usize::try_from(replicas(set)).unwrap_or(0);
    if active.len() < wanted {
        return Scale::Create((wanted - active.len()).min(BURST));
    }
    let surplus = (active.len() - wanted).min(BURST);
    if surplus == 0 {
        return Scale::Enough;
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for node in related.iter().filter(|p| pod::is_active(p)).filter_map(|p| pod::bound_to(p)) {
        *on_node.entry(node).or_default() += 1;
    }
    let candidates = active
        .into_iter()
        .map(|pod| Ranked {
            rank: pod::bound_to(pod).and_then(|node| on_node.get(node)).copied().unwrap_or(0),
            pod: pod.clone(),
        })
        .collect();
    Scale::Delete(pods_to_delete(candidates, surplus, now))
}

/// The status these pods amount to.
pub(crate) fn status(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let template = set.spec.template.as_ref().and_then(|template| template.metadata.as_ref());
    let template_labels = template.and_then(|m| m.labels.clone()).unwrap_or_default();
    let count = |test: &dyn Fn(&Pod) -> bool| {
        i32::try_from(owned.iter().filter(|p| pod::is_active(p) && test(p)).count()).unwrap_or(i32::MAX)
    };
    let terminating = owned.iter().filter(|p| pod::is_terminating(p) && !pod::is_terminal(p)).count();
    let current = set.status.clone().unwrap_or_default();
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: Some(count(&|p| {
            template_labels.iter().all(|(key, value)| pod::labels(p).get(key) == Some(value))
        })),
        ready_replicas: Some(count(&pod::is_ready)),
        available_replicas: Some(count(&|p| pod::is_available(p, min_ready_seconds(set), now))),
        terminating_replicas: i32::try_from(terminating).ok(),
        observed_generation: set.metadata.generation.max(current.observed_generation),
        conditions: conditions(current.conditions, failure, now),
    }
}

/// When a pod that is ready now becomes available, if any has yet to.
pub(crate) fn next_available(set: &ReplicaSet, owned: &[Arc<Pod>], now: Timestamp) -> Option<SignedDuration> {
    let seconds = min_ready_seconds(set);
    if seconds <= 0 {
        return None;
    }
    let waits = owned.iter().filter(|p| pod::is_active(p)).map(|p| pod::available_in(p, seconds, now));
    waits.filter_map(|wait| if let Wait::For(left) = wait { Some(left) } else { None }).min()
}

fn conditions(
    current: Option<Vec<ReplicaSetCondition>>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = current.unwrap_or_default();
    let known = conditions.iter().any(|c| c.type_.as_deref() == Some(REPLICA_FAILURE));
    match failure {
        // The first failure is told; later ones of the same streak would only rewrite the status.
        Some(failure) if !known => conditions.push(ReplicaSetCondition {
            type_: Some(REPLICA_FAILURE.to_owned()),
            status: Some(TRUE.to_owned()),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(now)),
        }),
        Some(_) => {}
        None => conditions.retain(|c| c.type_.as_deref() != Some(REPLICA_FAILURE)),
    }
    (!conditions.is_empty()).then_some(conditions)
}
