//! A pod as the scheduler sees it: parsed once, compared often.
//!
//! In: a Pod. Out: [`PodInfo`]. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ObjectReference, Pod, PodCondition, PodSpec, Toleration, TopologySpreadConstraint,
};
use xebec_api::wellknown::conditions::{DISRUPTION_TARGET, POD_SCHEDULED, TRUE};
use xebec_api::wellknown::names::DEFAULT_SCHEDULER;

use crate::pod_affinity::PodAffinity;
use crate::ports::HostPort;
use crate::resources::{Resources, pod_requests, pod_requests_nonzero};
use xebec_api::node_affinity::NodeAffinity;

/// Why a pod that makes room for another is deleted, as its DisruptionTarget condition says.
pub(crate) const PREEMPTION_BY_SCHEDULER: &str = "PreemptionByScheduler";

/// UID of a pod: what makes it itself, a name can come back.
pub(crate) type PodUid = Arc<str>;

/// Everything a scheduling cycle asks about a pod.
#[derive(Clone, Debug)]
pub(crate) struct PodInfo {
    pub(crate) uid: PodUid,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) resource_version: Option<String>,
    pub(crate) generation: Option<i64>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) priority: i32,
    /// It never takes the place of others, whatever its priority.
    pub(crate) never_preempts: bool,
    /// Where others made room for it.
    pub(crate) nominated_node: Option<String>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) scheduler_name: String,
    /// The node it is bound to.
    pub(crate) node_name: Option<String>,
    pub(crate) gated: bool,
    pub(crate) terminating: bool,
    /// It was told to make room for another.
    pub(crate) preempted: bool,
    /// Ran to its end: takes nothing on its node any more.
    pub(crate) terminal: bool,
    pub(crate) requests: Resources,
    pub(crate) requests_nonzero: Resources,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) affinity: NodeAffinity,
    pub(crate) pod_affinity: PodAffinity,
    pub(crate) host_ports: Vec<HostPort>,
    pub(crate) images: Vec<String>,
    pub(crate) containers: usize,
    pub(crate) spread: Vec<TopologySpreadConstraint>,
    /// Kind and UID of the controlling owner.
    pub(crate) controller: Option<(String, String)>,
    /// The PodScheduled condition as last seen.
    pub(crate) scheduled_condition: Option<PodCondition>,
}

impl PodInfo {
    pub(crate) fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let spec = pod.spec.clone().unwrap_or_default();
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let controller = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone(),
            generation: meta.generation,
            labels: meta.labels.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            nominated_node: status
                .and_then(|status| status.nominated_node_name.clone())
                .filter(|node| !node.is_empty()),
            started: status.and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            scheduler_name: spec.scheduler_name.clone().unwrap_or_else(|| DEFAULT_SCHEDULER.to_owned()),
            node_name: spec.node_name.clone().filter(|name| !name.is_empty()),
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            terminating: meta.deletion_timestamp.is_some(),
            preempted: status.is_some_and(|status| status.conditions.iter().flatten().any(is_preemption)),
            terminal: matches!(phase, Some("Succeeded" | "Failed")),
            requests: pod_requests(&spec),
            requests_nonzero: pod_requests_nonzero(&spec),
            affinity: NodeAffinity::of(&spec),
            pod_affinity: PodAffinity::of(
                &spec,
                meta.namespace.as_deref().unwrap_or_default(),
                meta.labels.as_ref().unwrap_or(&BTreeMap::new()),
            ),
            host_ports: host_ports(&spec),
            images: images(&spec),
            containers: spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len),
            tolerations: spec.tolerations.unwrap_or_default(),
            spread: spec.topology_spread_constraints.unwrap_or_default(),
            controller: controller.map(|owner| (owner.kind.clone(), owner.uid.clone())),
            scheduled_condition: status
                .and_then(|status| status.conditions.as_ref())
                .and_then(|conditions| conditions.iter().find(|c| c.type_ == POD_SCHEDULED))
                .cloned(),
        }
    }

    /// How Events refer to the pod.
    pub(crate) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.to_string()),
            resource_version: self.resource_version.clone(),
            ..ObjectReference::default()
        }
    }

    /// It takes as much of its node, and stands there for others, as the other does. All else that counts is fixed
    /// once a pod is bound.
    pub(crate) fn counts_like(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.terminating == other.terminating
            && self.requests == other.requests
            && self.requests_nonzero == other.requests_nonzero
    }

    /// Nothing a scheduling decision depends on differs.
    pub(crate) fn same_demands(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.gated == other.gated
            && self.requests == other.requests
            && self.tolerations == other.tolerations
            && self.priority == other.priority
            && self.generation == other.generation
    }
}

impl std::fmt::Display for PodInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn is_preemption(condition: &PodCondition) -> bool {
    condition.type_ == DISRUPTION_TARGET
        && condition.status == TRUE
        && condition.reason.as_deref() == Some(PREEMPTION_BY_SCHEDULER)
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports.filter_map(HostPort::of).collect()
}

fn images(spec: &PodSpec) -> Vec<String> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.filter_map(|container| container.image.clone()).collect()
}
