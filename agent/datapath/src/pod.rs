//! Local pods as the datapath knows them.
//!
//! In: attachments from `network`. Out: entries of the pod maps. Absent: names, uids, Kubernetes.

pub(crate) mod writer;

use std::net::IpAddr;

/// One address of a pod on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodEntry {
    pub address: IpAddr,
    /// Index of the host end of the pod's veth in the node's network namespace.
    pub ifindex: u32,
    /// MAC address inside the pod.
    pub mac: [u8; 6],
    /// MAC address of the host end.
    pub host_mac: [u8; 6],
    /// Cookie of the pod's network namespace (`SO_NETNS_COOKIE`): keys affinity and source ranges on the socket path.
    pub netns_cookie: u64,
}
