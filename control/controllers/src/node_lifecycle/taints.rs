//! The taints a node has because of its conditions.
//!
//! In: a node, whether its pods may be evicted. Out: its taints as they should be; those of others stay. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use xebec_api::wellknown::conditions::{
    DISK_PRESSURE, MEMORY_PRESSURE, NETWORK_UNAVAILABLE as NETWORK_CONDITION, PID_PRESSURE, TRUE,
};
use xebec_api::wellknown::taints::{
    DISK_PRESSURE as DISK_TAINT, MEMORY_PRESSURE as MEMORY_TAINT, NETWORK_UNAVAILABLE, NO_EXECUTE,
    NO_SCHEDULE, NOT_READY, PID_PRESSURE as PID_TAINT, UNREACHABLE, UNSCHEDULABLE,
};

use crate::node_lifecycle::conditions::{Readiness, condition, readiness};

const PRESSURES: [(&str, &str); 4] = [
    (MEMORY_PRESSURE, MEMORY_TAINT),
    (DISK_PRESSURE, DISK_TAINT),
    (PID_PRESSURE, PID_TAINT),
    (NETWORK_CONDITION, NETWORK_UNAVAILABLE),
];
const MANAGED: [(&str, &str); 9] = [
    (NOT_READY, NO_SCHEDULE),
    (UNREACHABLE, NO_SCHEDULE),
    (MEMORY_TAINT, NO_SCHEDULE),
    (DISK_TAINT, NO_SCHEDULE),
    (PID_TAINT, NO_SCHEDULE),
    (NETWORK_UNAVAILABLE, NO_SCHEDULE),
    (UNSCHEDULABLE, NO_SCHEDULE),
    (NOT_READY, NO_EXECUTE),
    (UNREACHABLE, NO_EXECUTE),
];

/// What is done about pods on a node that is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// Those that do not tolerate it for longer go.
    Allowed,
    /// Not now; what began goes on.
    Later,
    /// Nobody is ready: the trouble is more likely here than there.
    Stopped,
}

/// The taint with which pods of such a node are evicted.
pub(crate) fn evicting(readiness: Readiness) -> Option<&'static str> {
    match readiness {
        Readiness::Ready | Readiness::Unsaid => None,
        Readiness::NotReady => Some(NOT_READY),
        Readiness::Unknown => Some(UNREACHABLE),
    }
}

pub(crate) fn has(node: &Node, key: &str, effect: &str) -> bool {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|t| t.key == key && t.effect == effect)
}

/// Pods are being evicted from the node, for whichever of the two reasons.
pub(crate) fn evicts(node: &Node) -> bool {
    has(node, NOT_READY, NO_EXECUTE) || has(node, UNREACHABLE, NO_EXECUTE)
}

/// The node's taints as they should be.
pub(crate) fn plan(node: &Node, eviction: Eviction, now: Timestamp) -> Vec<Taint> {
    let wanted = wanted(node, eviction);
    let current = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let is = |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let stays = |taint: &&Taint| {
        !MANAGED.iter().any(|managed| is(taint, *managed)) || wanted.iter().any(|wanted| is(taint, *wanted))
    };
    let mut taints: Vec<Taint> = current.filter(stays).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| is(taint, (key, effect))) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: Some(Time(now)),
            });
        }
    }
    taints
}

fn wanted(node: &Node, eviction: Eviction) -> Vec<(&'static str, &'static str)> {
    let readiness = readiness(node);
    let mut wanted = Vec::new();
    match readiness {
        Readiness::Ready => {}
        Readiness::NotReady | Readiness::Unsaid => wanted.push((NOT_READY, NO_SCHEDULE)),
        Readiness::Unknown => wanted.push((UNREACHABLE, NO_SCHEDULE)),
    }
    for (type_, taint) in PRESSURES {
        if condition(node, type_).is_some_and(|condition| condition.status == TRUE) {
            wanted.push((taint, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let evict = match eviction {
        Eviction::Allowed => true,
        Eviction::Later => evicts(node),
        Eviction::Stopped => false,
    };
    if let Some(key) = evicting(readiness).filter(|_| evict) {
        wanted.push((key, NO_EXECUTE));
    }
    wanted
}
