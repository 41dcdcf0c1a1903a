//! Settings of the kubelet. Filled by the agent from flags and its configuration file.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::dns::ClusterDns;
use crate::resources::NodeCapacity;

/// Far above what programs need, far below what would take the node's last process from others.
const PIDS: i64 = 4096;

#[derive(Clone, Debug)]
pub struct KubeletConfig {
    pub node_name: String,
    /// At most one per family, the primary family first.
    pub node_addresses: Vec<IpAddr>,
    /// Pods' folders live in `pods/` below it: `/var/lib/xebec`.
    pub state_dir: PathBuf,
    /// A folder on the disk that holds the images.
    pub image_dir: PathBuf,
    /// `/var/log/pods`.
    pub log_dir: PathBuf,
    /// Folder for links to logs under the names that collectors look for (`/var/log/containers`); none: no links.
    pub log_links_dir: Option<PathBuf>,
    /// cgroup that `kubepods` is made in, relative to the hierarchies' roots; empty for the roots themselves.
    pub cgroup_root: String,
    pub cluster_dns: ClusterDns,
    /// The node's own resolver configuration; empty for none.
    pub resolv_conf: PathBuf,
    pub capacity: NodeCapacity,
    /// Pods that are admitted at a time.
    pub max_pods: u32,
    pub max_parallel_pulls: usize,
    pub log_max_size: u64,
    pub log_max_files: u32,
    /// Processes a container may have.
    pub pids_limit: Option<i64>,
    /// Safety net behind watches and events.
    pub resync: Duration,
}

impl KubeletConfig {
    /// Upstream's defaults for what is not particular to a node; a limit of processes, which upstream leaves to the
    /// installer.
    pub fn new(node_name: &str, node_addresses: Vec<IpAddr>, capacity: NodeCapacity) -> Self {
        Self {
            node_name: node_name.to_owned(),
            node_addresses,
            state_dir: PathBuf::from("/var/lib/xebec"),
            image_dir: PathBuf::from("/var/lib"),
            log_dir: PathBuf::from("/var/log/pods"),
            log_links_dir: None,
            cgroup_root: String::new(),
            cluster_dns: ClusterDns::default(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            capacity,
            max_pods: 110,
            max_parallel_pulls: 4,
            log_max_size: 10 << 20,
            log_max_files: 5,
            pids_limit: Some(PIDS),
            resync: Duration::from_secs(180),
        }
    }
}
