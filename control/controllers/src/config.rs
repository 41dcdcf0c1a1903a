//! Settings of the controllers.
//!
//! In: what `control` was told on its command line or generated. Out: [`ControllersConfig`], checked. No I/O.

use std::time::Duration;

use ipnet::IpNet;

/// What [`crate::run`] needs to know.
#[derive(Clone, Debug)]
pub struct ControllersConfig {
    /// PEM bundle that pods trust the API server by; published as `kube-root-ca.crt` in every namespace.
    pub root_ca: String,
    /// Ranges that nodes get their pod ranges from: one IPv4, one IPv6, or one of each. Empty: nodes bring their own.
    pub cluster_cidrs: Vec<IpNet>,
    /// Prefix length of a node's IPv4 pod range.
    pub node_mask_ipv4: u8,
    /// Prefix length of a node's IPv6 pod range.
    pub node_mask_ipv6: u8,
    /// Ranges of Service addresses; never given to a node.
    pub service_cidrs: Vec<IpNet>,
    /// How long a node's Lease may go without renewal before its Ready condition becomes Unknown.
    pub node_monitor_grace_period: Duration,
    /// How long a pod whose node is gone is kept, in case the node comes back.
    pub orphaned_pod_quarantine: Duration,
    /// Pods that have ended are kept up to this many; 0: all of them.
    pub terminated_pod_threshold: usize,
    /// Wait of a Job after its first failed pod; doubles with each further one.
    pub job_pod_failure_backoff: Duration,
    /// Reconciles under way at once.
    pub workers: usize,
}

impl Default for ControllersConfig {
    fn default() -> Self {
        Self {
            root_ca: String::new(),
            cluster_cidrs: Vec::new(),
            node_mask_ipv4: 24,
            node_mask_ipv6: 64,
            service_cidrs: Vec::new(),
            node_monitor_grace_period: Duration::from_secs(40),
            orphaned_pod_quarantine: Duration::from_secs(40),
            terminated_pod_threshold: 12_500,
            job_pod_failure_backoff: Duration::from_secs(10),
            workers: 16,
        }
    }
}

/// A setting that cannot work, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Two ranges of one family were given.
    #[error("cluster CIDRs {0} and {1} are of one family; give at most one IPv4 and one IPv6 range")]
    TwoOfOneFamily(IpNet, IpNet),
    /// The node mask does not lie within the cluster range.
    #[error(
        "node mask /{mask} does not fit cluster CIDR {cidr}; it must be between /{shortest} and /{longest}"
    )]
    NodeMask {
        /// The cluster range.
        cidr: IpNet,
        /// The mask that was given.
        mask: u8,
        /// Shortest prefix that is accepted.
        shortest: u8,
        /// Longest prefix that is accepted.
        longest: u8,
    },
    /// There would be no worker.
    #[error("workers is 0; give at least 1")]
    NoWorkers,
}

impl ControllersConfig {
    /// The node prefix length for a range's family.
    pub(crate) fn node_mask(&self, cidr: &IpNet) -> u8 {
        match cidr {
            IpNet::V4(_) => self.node_mask_ipv4,
            IpNet::V6(_) => self.node_mask_ipv6,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        for (position, cidr) in self.cluster_cidrs.iter().enumerate() {
            let rest = &self.cluster_cidrs[position + 1..];
            if let Some(other) = rest.iter().find(|o| o.addr().is_ipv4() == cidr.addr().is_ipv4()) {
                return Err(ConfigError::TwoOfOneFamily(*cidr, *other));
            }
            let mask = self.node_mask(cidr);
            let shortest = cidr.prefix_len();
            // 2^16 node ranges are upstream's limit as well; the bitmap of a range stays at 8 KiB.
            let longest = cidr.max_prefix_len().min(shortest.saturating_add(16));
            if !(shortest..=longest).contains(&mask) {
                return Err(ConfigError::NodeMask { cidr: *cidr, mask, shortest, longest });
            }
        }
        if self.workers == 0 {
            return Err(ConfigError::NoWorkers);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cidrs: &[&str], v4: u8, v6: u8) -> Result<(), String> {
        let config = ControllersConfig {
            cluster_cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
            node_mask_ipv4: v4,
            node_mask_ipv6: v6,
            ..ControllersConfig::default()
        };
        config.validate().map_err(|e| e.to_string())
    }

    #[test]
    fn config_accepts_dual_stack_and_names_what_is_wrong() {
        assert_eq!(with(&["10.244.0.0/16", "fd00::/56"], 24, 64), Ok(()));
        assert_eq!(with(&[], 24, 64), Ok(()));
        assert!(with(&["10.0.0.0/16", "10.1.0.0/16"], 24, 64).unwrap_err().contains("one family"));
        assert!(with(&["10.0.0.0/25"], 24, 64).unwrap_err().contains("between /25 and /32"));
        assert!(with(&["fd00::/40"], 24, 64).unwrap_err().contains("between /40 and /56"));
    }
}
