//! The next step of a StatefulSet: up in order, down in reverse, updates from the top.
//!
//! In: the set, its pods, the two revisions. Out: one step (or, with parallel pod management, one for each pod), the
//! status. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_api::int_or_string::{Rounding, scaled_value};
use xebec_api::wellknown::labels::CONTROLLER_REVISION_HASH;

use crate::pod::{self, Wait};
use crate::statefulset::identity::{ordinal_of, ordinals};

/// The revision the set was at, and the one it is to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) current: String,
    pub(crate) update: String,
}

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// The pod of this ordinal, of the update revision or of the current one.
    Create {
        ordinal: i32,
        update: bool,
    },
    Delete(Arc<Pod>),
}

/// The set's pods by ordinal.
pub(crate) type Pods = BTreeMap<i32, Arc<Pod>>;

pub(crate) fn by_ordinal(set: &StatefulSet, owned: &[Arc<Pod>]) -> Pods {
    owned.iter().filter_map(|pod| Some((ordinal_of(set, pod)?, pod.clone()))).collect()
}

pub(crate) fn revision_of(pod: &Pod) -> &str {
    pod::labels(pod).get(CONTROLLER_REVISION_HASH).map_or("", String::as_str)
}

fn is_parallel(set: &StatefulSet) -> bool {
    set.spec.pod_management_policy.as_deref() == Some("Parallel")
}

fn is_rolling(set: &StatefulSet) -> bool {
    let strategy = set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    strategy != Some("OnDelete")
}

/// Ordinals below keep the current revision.
fn partition(set: &StatefulSet) -> i32 {
    let strategy = set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let partition = strategy.and_then(|rolling| rolling.partition).unwrap_or(0);
    ordinals(set).start.saturating_add(partition)
}

fn max_unavailable(set: &StatefulSet) -> usize {
    let strategy = set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let value = strategy.and_then(|rolling| rolling.max_unavailable.clone()).unwrap_or(IntOrString::Int(1));
    let scaled = scaled_value(&value, set.spec.replicas.unwrap_or(1), Rounding::Up).unwrap_or(1);
    usize::try_from(scaled).unwrap_or(1).max(1)
}

fn min_ready_seconds(set: &StatefulSet) -> i32 {
    set.spec.min_ready_seconds.unwrap_or(0)
}

fn is_running_and_ready(pod: &Pod) -> bool {
    pod::phase(pod) == "Running" && pod::is_ready(pod)
}

/// It serves, and has done so for long enough, and goes on.
fn is_healthy(set: &StatefulSet, pod: &Pod, now: Timestamp) -> bool {
    !pod::is_terminating(pod)
        && is_running_and_ready(pod)
        && pod::is_available(pod, min_ready_seconds(set), now)
}

/// What is to be done now. Nothing while a pod on the way is not healthy, unless pods are managed in parallel.
pub(crate) fn steps(set: &StatefulSet, pods: &Pods, target: &Target, now: Timestamp) -> Vec<Step> {
    let parallel = is_parallel(set);
    let mut steps = Vec::new();
    for ordinal in ordinals(set) {
        let step = match pods.get(&ordinal) {
            None => {
                let update = !is_rolling(set) || ordinal >= partition(set) || target.current == target.update;
                Some(Step::Create { ordinal, update })
            }
            Some(pod) if pod::is_terminating(pod) => None,
            // A pod that ended gives its name to the next.
            Some(pod) if pod::is_terminal(pod) => Some(Step::Delete(pod.clone())),
            Some(pod) if is_healthy(set, pod, now) => continue,
            Some(_) => None,
        };
        steps.extend(step);
        if !parallel {
            return steps;
        }
    }
    let range = ordinals(set);
    let condemned = pods.iter().rev().filter(|(ordinal, _)| !range.contains(*ordinal));
    let mut waits = false;
    for (_, pod) in condemned {
        if pod::is_terminating(pod) {
            waits = true;
        } else {
            steps.push(Step::Delete(pod.clone()));
        }
        if !parallel {
            return if waits { Vec::new() } else { steps };
        }
    }
    if steps.is_empty() && !waits {
        steps = roll(set, pods, target, now);
    }
    steps
}

/// The next pods of an old revision, from the highest ordinal down to the partition. Every pod of the set that does not
/// serve counts against `maxUnavailable`.
fn roll(set: &StatefulSet, pods: &Pods, target: &Target, now: Timestamp) -> Vec<Step> {
    if !is_rolling(set) {
        return Vec::new();
    }
    let limit = max_unavailable(set);
    let unhealthy =
        ordinals(set).filter_map(|ordinal| pods.get(&ordinal)).filter(|pod| !is_healthy(set, pod, now));
    let room = limit.saturating_sub(unhealthy.count());
    let old = (partition(set)..ordinals(set).end).rev().filter_map(|ordinal| pods.get(&ordinal));
    let old = old.filter(|pod| revision_of(pod) != target.update && !pod::is_terminating(pod));
    let (healthy, broken): (Vec<_>, Vec<_>) = old.partition(|pod| is_healthy(set, pod, now));
    // Those that serve nobody go first: their end costs nothing, and their next revision may be the cure.
    let going = broken.into_iter().take(limit).chain(healthy.into_iter().take(room));
    going.map(|pod| Step::Delete(pod.clone())).collect()
}

/// The status these pods amount to.
pub(crate) fn status(set: &StatefulSet, pods: &Pods, target: &Target, now: Timestamp) -> StatefulSetStatus {
    let mut status = set.status.clone().unwrap_or_default();
    let (mut replicas, mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0, 0);
    for pod in pods.values() {
        replicas += 1;
        if is_running_and_ready(pod) {
            ready += 1;
            available += i32::from(pod::is_available(pod, min_ready_seconds(set), now));
        }
        if !pod::is_terminating(pod) {
            current += i32::from(revision_of(pod) == target.current);
            updated += i32::from(revision_of(pod) == target.update);
        }
    }
    status.replicas = replicas;
    status.ready_replicas = Some(ready).filter(|count| *count > 0);
    status.available_replicas = Some(available);
    status.current_replicas = Some(current).filter(|count| *count > 0);
    status.updated_replicas = Some(updated).filter(|count| *count > 0);
    status.current_revision = Some(target.current.clone());
    status.update_revision = Some(target.update.clone());
    status.observed_generation = set.metadata.generation;
    if is_rolling(set)
        && updated == replicas
        && ready == replicas
        && replicas == set.spec.replicas.unwrap_or(1)
    {
        status.current_revision = Some(target.update.clone());
        status.current_replicas = status.updated_replicas;
    }
    status
}

/// When the next ready pod becomes available.
pub(crate) fn next_available(set: &StatefulSet, pods: &Pods, now: Timestamp) -> Option<SignedDuration> {
    let seconds = min_ready_seconds(set);
    let waits = pods.values().filter_map(|pod| match pod::available_in(pod, seconds, now) {
        Wait::For(left) if seconds > 0 => Some(left),
        Wait::For(_) | Wait::Over | Wait::Unknown => None,
    });
    waits.min()
}
