//! Where everything is: the workspace's own folders and those of one development cluster.
//!
//! In: the workspace root and `--dir`. Out: paths, names, addresses derived from them. No I/O except making the
//! cluster folder's path absolute.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Folders that belong to the workspace and are shared by all clusters made from it.
#[derive(Clone, Debug)]
pub struct Workspace {
    pub root: PathBuf,
}

/// One development cluster: its folder and the names derived from it (DESIGN §10).
#[derive(Clone, Debug)]
pub struct Cluster {
    pub dir: PathBuf,
    /// Six hex digits of a hash of `dir`: part of every name the cluster makes outside its folder.
    pub id: String,
}

/// The subnet of a cluster's bridge, chosen once and kept in the cluster folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Second and third octet of `10.a.b.0/24`; the same 16 bits name the IPv6 prefix.
    pub a: u8,
    pub b: u8,
}

pub const POD_CIDRS: &str = "10.244.0.0/16,fd00:10:244::/48";
pub const SERVICE_CIDRS: &str = "10.96.0.0/16,fd00:10:96::/112";
pub const CLUSTER_DNS: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];
pub const CLUSTER_DOMAIN: &str = "cluster.local";
pub const API_PORT: u16 = 6443;
pub const REGISTRY_PORT: u16 = 5000;
/// Port of the nodes' own DNS processes, behind the `kube-dns` Service.
pub const NODE_DNS_PORT: u16 = 10053;

// === impl Workspace ===

impl Workspace {
    /// The workspace this xtask was built from.
    pub fn current() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().context("xtask lives in the workspace root")?;
        Ok(Self { root: root.to_path_buf() })
    }

    /// cargo's target folder; everything fetched or made lives below it.
    pub fn target(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => self.root.join(dir),
            None => self.root.join("target"),
        }
    }

    /// What set-up makes besides cargo's own output: always below the workspace's `target`.
    fn made(&self) -> PathBuf {
        self.root.join("target")
    }

    pub fn tools(&self) -> PathBuf {
        self.made().join("tools")
    }

    pub fn build_inputs(&self) -> PathBuf {
        match std::env::var_os("XEBEC_BUILD_INPUTS") {
            Some(dir) => PathBuf::from(dir),
            None => self.made().join("build-inputs"),
        }
    }

    /// The OCI layout that the hubs' registries serve.
    pub fn images(&self) -> PathBuf {
        self.made().join("images")
    }

    pub fn default_cluster_dir(&self) -> PathBuf {
        self.made().join("xebec")
    }
}

// === impl Cluster ===

impl Cluster {
    /// # Errors
    /// When the current folder is gone and `dir` is relative.
    pub fn at(dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir).with_context(|| format!("--dir {}", dir.display()))?;
        let dir = dir.canonicalize().unwrap_or(dir);
        let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
        Ok(Self { dir, id: hex::encode(&digest[..3]) })
    }

    /// `xebec-<id>`: the cgroup, and the prefix of namespace names.
    pub fn name(&self) -> String {
        format!("xebec-{}", self.id)
    }

    pub fn netns(&self, member: &str) -> String {
        format!("xebec-{}-{member}", self.id)
    }

    /// The host's end of the one veth into the hub.
    pub fn host_link(&self) -> String {
        format!("xb-{}", self.id)
    }

    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }

    pub fn control_dir(&self) -> PathBuf {
        self.dir.join("control")
    }

    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    pub fn processes(&self) -> PathBuf {
        self.dir.join("processes")
    }

    pub fn state_file(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    /// A subnet to try first; `attempt` counts collisions with routes the host already has.
    pub fn preferred_subnet(&self, attempt: u8) -> Subnet {
        let digest = Sha256::digest(self.id.as_bytes());
        // 10.128–10.191: clear of the pod and service ranges above.
        Subnet { a: 128 + (digest[0].wrapping_add(attempt) % 64), b: digest[1] }
    }
}

// === impl Subnet ===

impl Subnet {
    fn v4(self, last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, self.a, self.b, last))
    }

    fn v6(self, last: u16) -> IpAddr {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x7ebc, u16::from_be_bytes([self.a, self.b]), 0, 0, 0, 0, last))
    }

    pub fn hub(self) -> [IpAddr; 2] {
        [self.v4(1), self.v6(1)]
    }

    pub fn host(self) -> [IpAddr; 2] {
        [self.v4(254), self.v6(254)]
    }

    /// Addresses of the node with this index (from 0).
    pub fn node(self, index: u8) -> [IpAddr; 2] {
        [self.v4(11 + index), self.v6(u16::from(11 + index))]
    }

    /// `10.a.b.0/24` as the kernel prints a route to it.
    pub fn v4_prefix(self) -> String {
        format!("10.{}.{}.0/24", self.a, self.b)
    }
}

/// `address/length` with the bridge's prefix length for its family.
pub fn with_prefix_len(address: IpAddr) -> String {
    match address {
        IpAddr::V4(_) => format!("{address}/24"),
        IpAddr::V6(_) => format!("{address}/64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_folders_have_two_ids_and_one_folder_always_the_same() {
        let a = Cluster::at(Path::new("/a/one")).unwrap();
        let b = Cluster::at(Path::new("/a/two")).unwrap();
        assert_ne!(a.id, b.id);
        assert_eq!(a.id, Cluster::at(Path::new("/a/one")).unwrap().id);
    }

    #[test]
    fn link_names_fit_the_kernels_fifteen_bytes() {
        assert!(Cluster::at(Path::new("/a")).unwrap().host_link().len() <= 15);
    }

    #[test]
    fn addresses_of_both_families_follow_the_subnet() {
        let subnet = Subnet { a: 130, b: 7 };
        assert_eq!(subnet.node(1).map(|a| a.to_string()), ["10.130.7.12", "fd00:7ebc:8207::c"]);
    }
}
