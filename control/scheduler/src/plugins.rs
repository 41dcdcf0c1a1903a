//! The scheduling plugins, one file each, under upstream's names.
//!
//! In: a cycle. Out: rejected candidates, scores. Pure.

mod balanced_allocation;
mod image_locality;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod pod_topology_spread;
mod taint_toleration;

pub(crate) use balanced_allocation::BalancedAllocation;
pub(crate) use image_locality::ImageLocality;
pub(crate) use node_affinity::NodeAffinityPlugin;
pub(crate) use node_name::NodeName;
pub(crate) use node_ports::NodePorts;
pub(crate) use node_resources_fit::NodeResourcesFit;
pub(crate) use node_unschedulable::NodeUnschedulable;
pub(crate) use pod_topology_spread::{PodTopologySpread, groups};
pub(crate) use taint_toleration::TaintToleration;
