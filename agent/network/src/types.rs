//! What callers say to this crate and hear from it.
//!
//! In: [`NetworkConfig`], [`PodRequest`], [`Peer`]. Out: [`PodNetwork`]. No I/O here.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// Settings of one node's network.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Interface towards the other nodes.
    pub uplink: String,
    /// Addresses of this node, at most one per family, the primary family first.
    pub node_addresses: Vec<IpAddr>,
    /// `spec.podCIDRs` of this node, at most one per family.
    pub pod_cidrs: Vec<IpNet>,
    /// Folder of pinned namespaces and of the address checkpoint, for example `/run/xebec`.
    pub run_dir: PathBuf,
    /// MTU of pod interfaces; `None` takes the uplink's.
    pub mtu: Option<u32>,
}

/// A pod that wants its namespaces and, unless it uses the host's network, an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRequest {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// Set in the pod's UTS namespace.
    pub hostname: String,
    /// `spec.hostNetwork`: no network namespace, the node's addresses.
    pub host_network: bool,
    /// `spec.hostIPC`.
    pub host_ipc: bool,
}

/// What a pod got. Attaching the same uid again returns the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNetwork {
    /// Pod addresses, primary family first; the node's for host-network pods.
    pub addresses: Vec<IpAddr>,
    /// Pinned namespace files; `None` where the host's is used.
    pub netns: Option<PathBuf>,
    pub ipcns: Option<PathBuf>,
    pub utsns: Option<PathBuf>,
}

/// Another node and the pod ranges behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    pub node: String,
    pub addresses: Vec<IpAddr>,
    pub pod_cidrs: Vec<IpNet>,
}
