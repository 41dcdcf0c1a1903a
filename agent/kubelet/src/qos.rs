//! Quality of service of a pod: its class, its OOM score.
//!
//! Pure. In: Pod. Out: [`QosClass`], `oom_score_adj`.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod;
use crate::resources;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The class the API server wrote, else the class of its requests and limits.
pub fn class(pod: &Pod) -> QosClass {
    match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        Some("Guaranteed") => return QosClass::Guaranteed,
        Some("Burstable") => return QosClass::Burstable,
        Some("BestEffort") => return QosClass::BestEffort,
        _ => {}
    }
    let whole = ["cpu", "memory"].map(|resource| {
        let request = resources::pod_level(pod, resource, |r| r.requests.as_ref());
        (request, resources::pod_level(pod, resource, |r| r.limits.as_ref()))
    });
    if whole.iter().any(|(request, limit)| request.is_some() || limit.is_some()) {
        return of_amounts(whole.into_iter());
    }
    of_amounts(pod::containers(pod).flat_map(|spec| {
        ["cpu", "memory"].map(|resource| {
            (resources::request(spec.container, resource), resources::limit(spec.container, resource))
        })
    }))
}

/// Of pairs of request and limit.
fn of_amounts(amounts: impl Iterator<Item = (Option<i128>, Option<i128>)>) -> QosClass {
    let mut any = false;
    let mut guaranteed = true;
    for (request, limit) in amounts {
        let (request, limit) = (request.filter(|q| *q > 0), limit.filter(|q| *q > 0));
        any |= request.is_some() || limit.is_some();
        guaranteed &= limit.is_some() && (request.is_none() || request == limit);
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// Who is killed first when memory runs out: the more of its request a container can exceed, the earlier.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory: u64) -> i32 {
    const CRITICAL_PRIORITY: i32 = 2_000_000_000;
    if pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|p| p >= CRITICAL_PRIORITY) {
        return -997;
    }
    match class(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = resources::request(container, "memory").unwrap_or(0).max(0);
            let share = request.saturating_mul(1000) / i128::from(node_memory.max(1));
            i32::try_from(1000 - share).unwrap_or(0).clamp(3, 999)
        }
    }
}
