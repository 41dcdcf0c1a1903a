//! The scheduling plugins, one file each, under upstream's names.
//!
//! In: a cycle. Out: rejected candidates, scores. Pure.

mod balanced_allocation;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod pod_topology_spread;
mod taint_toleration;

pub(crate) use balanced_allocation::BalancedAllocation;
pub(crate) use image_locality::ImageLocality;
pub(crate) use inter_pod_affinity::InterPodAffinity;
pub(crate) use node_affinity::NodeAffinityPlugin;
pub(crate) use node_name::NodeName;
pub(crate) use node_ports::NodePorts;
pub(crate) use node_resources_fit::NodeResourcesFit;
pub(crate) use node_unschedulable::NodeUnschedulable;
pub(crate) use pod_topology_spread::PodTopologySpread;
pub(crate) use taint_toleration::TaintToleration;

use crate::namespaces::Namespaces;
use crate::pod_info::PodInfo;
use crate::spread::{Group, ServiceSelectors};

/// The groups of pods that the plugins ask about for this pod: they must be counted before the cycle.
pub(crate) fn groups(pod: &PodInfo, services: &ServiceSelectors, namespaces: &Namespaces) -> Vec<Group> {
    let mut groups = pod_topology_spread::groups(pod, services);
    groups.extend(inter_pod_affinity::groups(pod, namespaces));
    groups
}
