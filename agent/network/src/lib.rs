//! Pod networking of one node: addresses, namespaces, veth pairs, routes.
//!
//! In: attach/detach requests from `kubelet`, peers' pod CIDRs from `agent`. Out: netlink state, pinned namespace
//! files, pod entries in `datapath`. Absent: Kubernetes types; any executed binary; netfilter.

mod attach;
mod checkpoint;
mod datapath;
mod error;
mod host;
mod ipam;
mod names;
mod namespaces;
mod netlink;
mod network;
mod peers;
mod restore;
mod sysctl;
mod turns;
pub mod types;
mod uplink;
mod wire;

pub use datapath::PodDatapath;
pub use error::{DatapathError, Error, Result};
pub use network::Network;
pub use types::{NetworkConfig, Peer, PodNetwork, PodRequest};
pub use uplink::Uplink;
