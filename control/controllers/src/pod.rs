//! What a Pod's status says, in the words controllers ask in.
//!
//! In: a Pod. Out: active, ready, available, since when; its addresses. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use xebec_api::wellknown::conditions::{POD_READY, TRUE};

/// Index for caches: the node a pod is bound to.
pub(crate) fn node_name(pod: &Pod) -> Option<String> {
    bound_to(pod).map(str::to_owned)
}

/// The node a pod is bound to.
pub(crate) fn bound_to(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Ran to its end, one way or the other.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Counts towards a controller's replicas.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, POD_READY).is_some_and(|ready| ready.status == TRUE)
}

/// Since when the pod is ready, if it is.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, POD_READY).filter(|ready| ready.status == TRUE)?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Ready for at least `min_ready_seconds`.
pub(crate) fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    is_ready(pod) && (min_ready_seconds <= 0 || available_in(pod, min_ready_seconds, now) == Wait::Over)
}

/// When a ready pod becomes available.
pub(crate) fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Wait {
    match ready_since(pod) {
        None => Wait::Unknown,
        Some(since) => {
            let left = SignedDuration::from_secs(min_ready_seconds.into()) - now.duration_since(since);
            if left.is_positive() { Wait::For(left) } else { Wait::Over }
        }
    }
}

/// Whether a time is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Nothing tells.
    Unknown,
    /// This long.
    For(SignedDuration),
    /// It has passed.
    Over,
}

/// The highest restart count among ordinary containers and among sidecars.
pub(crate) fn max_restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = &pod.status else {
        return (0, 0);
    };
    let sidecars: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let ordinary = status.container_statuses.iter().flatten().map(|c| c.restart_count).max();
    let sidecar = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|c| sidecars.contains(&c.name.as_str()))
        .map(|c| c.restart_count)
        .max();
    (ordinary.unwrap_or(0), sidecar.unwrap_or(0))
}

/// The pod's addresses of one family, in the order the node reports them.
pub(crate) fn addresses(pod: &Pod, ipv6: bool) -> Vec<String> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut found: Vec<String> = Vec::new();
    for address in listed.chain(status.pod_ip.as_deref()) {
        let of_family = address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == ipv6);
        if of_family && !found.iter().any(|known| known == address) {
            found.push(address.to_owned());
        }
    }
    found
}

pub(crate) fn has_address(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| {
        status.pod_ip.as_deref().is_some_and(|ip| !ip.is_empty())
            || status.pod_ips.as_ref().is_some_and(|ips| !ips.is_empty())
    })
}

/// The pod's labels, empty when it has none.
pub(crate) fn labels(pod: &Pod) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    pod.metadata.labels.as_ref().unwrap_or(&NONE)
}
