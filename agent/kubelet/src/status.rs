//! The Pod's status as upstream words it, made from what the worker observes.
//!
//! Pure. In: Pod, [`Observed`], addresses of the node, the time. Out: `PodStatus`. Who writes it: `status_manager`.

mod conditions;
mod containers;
mod phase;

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::Instant;

use crate::machine::observed::{Observed, Stage};
use crate::machine::{TerminationReason, backoff::BackoffPolicy};
use crate::qos;
use crate::status::containers::ContainerStatuses;

/// The time on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub wall: Timestamp,
    pub mono: Instant,
}

impl Now {
    pub fn read() -> Self {
        Self { wall: Timestamp::now(), mono: Instant::now() }
    }
}

/// What status generation needs beside pod and observation.
#[derive(Clone, Debug)]
pub struct StatusContext {
    pub node_addresses: Vec<IpAddr>,
    pub crash_backoff: BackoffPolicy,
}

/// The whole status. `previous` is what was made last, or what the API holds: its transition times stay where nothing
/// changed, its foreign conditions stay, and a terminal phase stays terminal.
pub fn generate(
    pod: &Pod,
    observed: &Observed,
    previous: &PodStatus,
    context: &StatusContext,
    now: Now,
) -> PodStatus {
    let ended = match &observed.stage {
        Stage::Terminated(reason) => Some(reason),
        Stage::Syncing | Stage::Terminating(_) => None,
    };
    let mut containers = containers::generate(pod, observed, previous, context, now);
    if ended.is_some() {
        containers.end_all(now);
    }
    let terminal = matches!(previous.phase.as_deref(), Some("Succeeded" | "Failed"));
    if observed.rejection.is_some() || (terminal && previous.container_statuses.is_none()) {
        // Not admitted, now or before a restart of the agent: there never was a container.
        containers = ContainerStatuses::default();
    }
    let phase = match previous.phase.as_deref() {
        Some(terminal @ ("Succeeded" | "Failed")) => terminal.to_owned(),
        _ if deadline_exceeded(observed) || observed.rejection.is_some() => "Failed".to_owned(),
        _ => phase::phase(pod, &containers, ended.is_some()).to_owned(),
    };
    let host_ips: Vec<String> = context.node_addresses.iter().map(ToString::to_string).collect();
    let pod_ips = pod_ips(observed, previous);
    let (reason, message) = if let Some(rejection) = &observed.rejection {
        (Some(rejection.reason.clone()), Some(format!("Pod was rejected: {}", rejection.message)))
    } else if deadline_exceeded(observed) {
        let message = "Pod was active on the node longer than the specified deadline";
        (Some("DeadlineExceeded".to_owned()), Some(message.to_owned()))
    } else {
        (previous.reason.clone(), previous.message.clone())
    };
    let mut status = PodStatus {
        phase: Some(phase),
        reason,
        message,
        host_ip: host_ips.first().cloned(),
        host_ips: Some(host_ips.into_iter().map(|ip| HostIP { ip }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: (!pod_ips.is_empty()).then(|| pod_ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: Some(previous.start_time.clone().unwrap_or(Time(observed.start_time))),
        qos_class: Some(previous.qos_class.clone().unwrap_or_else(|| qos::class(pod).as_str().to_owned())),
        observed_generation: pod.metadata.generation,
        init_container_statuses: containers.init.take(),
        container_statuses: containers.main.take(),
        ephemeral_container_statuses: containers.ephemeral.take(),
        ..previous.clone()
    };
    status.conditions = Some(conditions::generate(pod, observed, &status, previous, now));
    status
}

fn deadline_exceeded(observed: &Observed) -> bool {
    matches!(
        &observed.stage,
        Stage::Terminating(TerminationReason::DeadlineExceeded)
            | Stage::Terminated(TerminationReason::DeadlineExceeded)
    )
}

fn pod_ips(observed: &Observed, previous: &PodStatus) -> Vec<String> {
    match observed.network.done() {
        Some(network) => network.addresses.iter().map(ToString::to_string).collect(),
        // Addresses that were given once stay in the status, as the record of who it was.
        None => previous.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
    }
}

/// Names of the kubelet's own conditions; all others in a pod's status belong to somebody else.
pub const OWN_CONDITIONS: [&str; 4] =
    ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];

/// Puts what others wrote to the API since into `previous`: their conditions, and a terminal phase.
pub(crate) fn take_foreign(previous: &mut PodStatus, api: Option<&PodStatus>) {
    let Some(api) = api else { return };
    let foreign = |c: &&PodCondition| !OWN_CONDITIONS.contains(&c.type_.as_str());
    let own = previous.conditions.take().unwrap_or_default().into_iter().filter(|c| !foreign(&c));
    let theirs = api.conditions.iter().flatten().filter(foreign).cloned();
    previous.conditions = Some(own.chain(theirs).collect());
    if let Some(phase @ ("Succeeded" | "Failed")) = api.phase.as_deref() {
        previous.phase = Some(phase.to_owned());
        previous.reason.clone_from(&api.reason);
        previous.message.clone_from(&api.message);
    }
    previous.resource_claim_statuses.clone_from(&api.resource_claim_statuses);
    previous.nominated_node_name.clone_from(&api.nominated_node_name);
}

#[cfg(test)]
#[path = "status/tests.rs"]
mod tests;
