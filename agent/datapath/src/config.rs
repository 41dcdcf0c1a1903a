//! Settings of a node's datapath.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// Settings of [`crate::Datapath::open`].
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// Folder on a bpffs; the datapath keeps its pins in `xebec` below it.
    pub bpffs: PathBuf,
    /// Folder in the cgroup2 hierarchy under which all processes of the node live, its pods included.
    pub cgroup: PathBuf,
    /// Addresses of the node, the primary ones first; the first of a family is the one masqueraded flows bear.
    pub node_addresses: Vec<IpAddr>,
    /// Interface towards the other nodes; `None`: attached later.
    pub uplink: Option<String>,
    /// NodePort range.
    pub node_ports: RangeInclusive<u16>,
    /// Source ports of masqueraded flows: outside the NodePort range and `ip_local_port_range`.
    pub masquerade_ports: RangeInclusive<u16>,
    /// Cookie of the node's network namespace; `None`: the calling thread's.
    pub netns_cookie: Option<u64>,
    /// Sizes of the maps, where they are created. Pinned ones keep theirs.
    pub capacity: Capacity,
}

/// Sizes of the maps. Hash maps take memory by entry, arrays at once: 4 bytes a slot, 28 bytes a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Frontends per family.
    pub services: u32,
    /// Backend ids.
    pub backends: u32,
    /// Slots of all services.
    pub slots: u32,
    /// Pods of the node.
    pub pods: u32,
    /// Entries of translated flows per family; a flow takes two.
    pub flows: u32,
    /// Clients with session affinity per family.
    pub affinity: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            services: 65_536,
            backends: 131_072,
            slots: 262_144,
            pods: 4_096,
            flows: 262_144,
            affinity: 65_536,
        }
    }
}

impl DatapathConfig {
    /// Settings with the usual ranges and sizes.
    pub fn new(bpffs: PathBuf, cgroup: PathBuf, node_addresses: Vec<IpAddr>) -> Self {
        Self {
            bpffs,
            cgroup,
            node_addresses,
            uplink: None,
            node_ports: 30_000..=32_767,
            masquerade_ports: 61_000..=65_535,
            netns_cookie: None,
            capacity: Capacity::default(),
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let (masquerade, node) = (&self.masquerade_ports, &self.node_ports);
        if masquerade.is_empty() || *masquerade.start() == 0 {
            return Err(Error::Config(format!("masquerade ports {masquerade:?} are no range of ports")));
        }
        if masquerade.start() <= node.end() && node.start() <= masquerade.end() {
            return Err(Error::Config(format!(
                "masquerade ports {masquerade:?} overlap the NodePorts {node:?}"
            )));
        }
        let Capacity { services, backends, slots, pods, flows, affinity } = self.capacity;
        if [services, backends, slots, pods, flows, affinity].iter().any(|size| *size < 2) {
            return Err(Error::Config("every capacity must be at least 2".to_owned()));
        }
        Ok(())
    }
}
