//! What a DaemonSet's pods need: where one is missing, one too many, one of an old template.
//!
//! In: the set, nodes, its pods by node. Out: nodes to start pods on, pods to delete, the status. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_api::int_or_string::{Rounding, scaled_value};
use xebec_api::wellknown::labels::CONTROLLER_REVISION_HASH;

use crate::daemonset::place::{Place, node_of, place};
use crate::pod::{self, Wait};

/// Pods created or deleted in one run at most.
const BURST: usize = 250;

/// One node as the set sees it.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) place: Place,
    /// Oldest first.
    pub(crate) pods: Vec<Arc<Pod>>,
}

pub(crate) type Sites = BTreeMap<String, Site>;

/// Pods to start and to remove.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    pub(crate) create_on: Vec<String>,
    pub(crate) delete: Vec<Arc<Pod>>,
    /// Pods that ended and are to be replaced.
    pub(crate) failed: Vec<Arc<Pod>>,
}

/// Every node with the pods on it; nodes that are gone only where pods still name them.
pub(crate) fn sites(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Sites {
    let mut sites: Sites = nodes
        .iter()
        .map(|node| {
            let name = node.metadata.name.clone().unwrap_or_default();
            (name, Site { place: place(set, node), pods: Vec::new() })
        })
        .collect();
    let mut pods: Vec<&Arc<Pod>> = pods.iter().collect();
    pods.sort_by_cached_key(|pod| {
        (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.metadata.name.clone())
    });
    for pod in pods {
        if let Some(node) = node_of(pod) {
            let gone = || Site { place: Place::Keep, pods: Vec::new() };
            sites.entry(node.to_owned()).or_insert_with(gone).pods.push(pod.clone());
        }
    }
    sites
}

fn is_current(pod: &Pod, hash: &str) -> bool {
    pod::labels(pod).get(CONTROLLER_REVISION_HASH).is_some_and(|label| label == hash)
}

fn min_ready_seconds(set: &DaemonSet) -> i32 {
    set.spec.min_ready_seconds.unwrap_or(0)
}

/// Brings each node to exactly one pod, or none.
pub(crate) fn manage(set: &DaemonSet, sites: &Sites, hash: &str, now: Timestamp) -> Steps {
    let surges = limits(set, 1).0 > 0;
    let mut steps = Steps::default();
    for (node, site) in sites {
        let (leaving, here): (Vec<_>, Vec<_>) =
            site.pods.iter().cloned().partition(|p| pod::is_terminating(p));
        match site.place {
            Place::Leave => steps.delete.extend(here),
            // A pod that leaves still holds its ports and its memory, unless it has ended.
            Place::Run if here.is_empty() && leaving.iter().all(|pod| pod::is_terminal(pod)) => {
                steps.create_on.push(node.clone());
            }
            Place::Run | Place::Keep => {
                let (ended, running): (Vec<_>, Vec<_>) =
                    here.into_iter().partition(|pod| pod::is_terminal(pod));
                steps.failed.extend(ended);
                steps.delete.extend(superfluous(running, surges, hash, min_ready_seconds(set), now));
            }
        }
    }
    steps.create_on.truncate(BURST);
    steps.delete.truncate(BURST);
    steps
}

/// All but the oldest; where old and new may run side by side, all but the oldest of each.
fn superfluous(
    mut running: Vec<Arc<Pod>>,
    surges: bool,
    hash: &str,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    if !surges {
        // A pod that has a node is worth more than an older one that waits for it.
        running.sort_by_key(|pod| pod::bound_to(pod).is_none());
        return running.into_iter().skip(1).collect();
    }
    let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| is_current(pod, hash));
    let replaced = new.first().is_some_and(|pod| pod::is_available(pod, min_ready_seconds, now));
    new.into_iter().skip(1).chain(old.into_iter().skip(usize::from(!replaced))).collect()
}

/// Replaces pods of old templates within the limits of the set.
pub(crate) fn roll(set: &DaemonSet, sites: &Sites, hash: &str, now: Timestamp) -> Steps {
    let strategy = set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    if strategy == Some("OnDelete") {
        return Steps::default();
    }
    let wanted = sites.values().filter(|site| site.place == Place::Run).count();
    let (max_surge, max_unavailable) = limits(set, wanted);
    let available = |pod: &Pod| pod::is_available(pod, min_ready_seconds(set), now);
    let (mut missing, mut surging) = (0, 0);
    let mut broken: Vec<(&String, Arc<Pod>)> = Vec::new();
    let mut candidates: Vec<(&String, Arc<Pod>)> = Vec::new();
    for (node, site) in sites.iter().filter(|(_, site)| site.place == Place::Run) {
        let running: Vec<&Arc<Pod>> =
            site.pods.iter().filter(|pod| !pod::is_terminating(pod) && !pod::is_terminal(pod)).collect();
        let new = running.iter().find(|pod| is_current(pod, hash));
        let old = running.iter().find(|pod| !is_current(pod, hash));
        match (old, new) {
            (None, Some(new)) => missing += usize::from(!available(new)),
            (Some(old), None) if !available(old) => {
                missing += 1;
                broken.push((node, (*old).clone()));
            }
            (Some(old), None) => candidates.push((node, (*old).clone())),
            (Some(_), Some(_)) => surging += 1,
            (None, None) => missing += 1,
        }
    }
    let mut steps = Steps::default();
    if max_surge > 0 {
        let room = max_surge.saturating_sub(surging);
        let nodes = broken.into_iter().chain(candidates.into_iter().take(room));
        // Where a pod leaves, its successor waits for it as everywhere.
        steps.create_on = nodes.map(|(node, _)| node.clone()).filter(|node| !leaves(&sites[node])).collect();
    } else {
        let room = max_unavailable.saturating_sub(missing);
        let pods = broken.into_iter().chain(candidates.into_iter().take(room));
        steps.delete = pods.map(|(_, pod)| pod).collect();
    }
    steps
}

fn leaves(site: &Site) -> bool {
    site.pods.iter().any(|pod| pod::is_terminating(pod))
}

/// How many pods may run beside old ones, and how many may be missing, of `wanted`.
fn limits(set: &DaemonSet, wanted: usize) -> (usize, usize) {
    let rolling = set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.clone());
    let RollingUpdateDaemonSet { max_surge, max_unavailable } = rolling.unwrap_or_default();
    let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
    let scale = |value: Option<IntOrString>, default: i32| {
        let value = value.unwrap_or(IntOrString::Int(default));
        usize::try_from(scaled_value(&value, wanted, Rounding::Up).unwrap_or(default)).unwrap_or(0)
    };
    let (surge, unavailable) = (scale(max_surge, 0), scale(max_unavailable, 1));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// The status these sites amount to.
pub(crate) fn status(set: &DaemonSet, sites: &Sites, hash: &str, now: Timestamp) -> DaemonSetStatus {
    let mut status = set.status.clone().unwrap_or_default();
    let (mut desired, mut current, mut mislaid, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0, 0);
    for site in sites.values() {
        let pods: Vec<&Arc<Pod>> = site.pods.iter().filter(|pod| !pod::is_terminating(pod)).collect();
        if site.place != Place::Run {
            mislaid += i32::from(!pods.is_empty());
            continue;
        }
        desired += 1;
        let Some(first) = pods.first() else {
            continue;
        };
        current += 1;
        let best = pods.iter().find(|pod| pod::is_ready(pod)).unwrap_or(first);
        ready += i32::from(pod::is_ready(best));
        available += i32::from(pod::is_available(best, min_ready_seconds(set), now));
        updated += i32::from(pods.iter().any(|pod| is_current(pod, hash)));
    }
    status.desired_number_scheduled = desired;
    status.current_number_scheduled = current;
    status.number_misscheduled = mislaid;
    status.number_ready = ready;
    status.number_available = Some(available).filter(|count| *count > 0);
    status.number_unavailable = Some(desired - available).filter(|count| *count > 0);
    status.updated_number_scheduled = Some(updated).filter(|count| *count > 0);
    status.observed_generation = set.metadata.generation;
    status
}

/// When the next ready pod becomes available.
pub(crate) fn next_available(set: &DaemonSet, sites: &Sites, now: Timestamp) -> Option<SignedDuration> {
    let seconds = min_ready_seconds(set);
    let pods = sites.values().flat_map(|site| &site.pods);
    let waits = pods.filter_map(|pod| match pod::available_in(pod, seconds, now) {
        Wait::For(left) if seconds > 0 => Some(left),
        Wait::For(_) | Wait::Over | Wait::Unknown => None,
    });
    waits.min()
}

/// Hashes of the revisions that pods run.
pub(crate) fn live_hashes(sites: &Sites, hash: &str) -> BTreeSet<String> {
    let pods = sites.values().flat_map(|site| &site.pods);
    let hashes = pods.filter_map(|pod| pod::labels(pod).get(CONTROLLER_REVISION_HASH).cloned());
    hashes.chain([hash.to_owned()]).collect()
}
