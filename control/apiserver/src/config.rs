//! What the API server is told at start.
//!
//! In: the control plane's configuration, keys and addresses. Out: one struct, checked once by [`ApiServer::new`].
//!
//! [`ApiServer::new`]: crate::ApiServer::new

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::token::{TokenIssuer, TokenVerifier};

/// Everything that is not in the store.
#[derive(Clone)]
pub struct ApiServerConfig {
    /// One range per IP family; the first is the family of services that name none.
    pub service_cidrs: Vec<IpNet>,
    /// Ports of NodePort services, 30000-32767 by default upstream.
    pub node_ports: RangeInclusive<u16>,
    /// Where clients reach this server; written into the slice of the `kubernetes` service.
    pub advertise_addresses: Vec<IpAddr>,
    pub advertise_port: u16,
    /// Addresses of the `kube-dns` service, one per family at most, inside `service_cidrs`.
    pub dns_addresses: Vec<IpAddr>,
    /// `cluster.local` unless configured otherwise.
    pub cluster_domain: String,
    pub tokens: Arc<Tokens>,
    /// Whether Services may name external addresses. Who may write Services could take over any address by them
    /// (CVE-2020-8554), so nobody may unless this is said.
    pub service_external_ips: bool,
    /// How to talk to kubelets: our client certificate, whom to trust. Without it logs are refused.
    pub kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    pub requests: RequestLimits,
}

/// What requests may take, by upstream's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// `--max-requests-inflight`: requests that read, at work at once; 0 is no limit.
    pub reading: usize,
    /// `--max-mutating-requests-inflight`: those that write.
    pub writing: usize,
    /// `--request-timeout`: until an answer begins; streams go on after it.
    pub timeout: Duration,
    /// `--min-request-timeout`: watches that name no time end after this to twice this.
    pub watch: Duration,
}

/// Signs and checks service-account tokens.
pub struct Tokens {
    pub issuer: TokenIssuer,
    pub verifier: TokenVerifier,
}

/// Why the API server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no service address range is configured: at least one CIDR is needed")]
    NoServiceRange,
    #[error("at most one service address range per IP family can be used, found {0}")]
    TooManyServiceRanges(String),
    #[error("the DNS address {0} is outside of the service address ranges")]
    DnsOutsideRange(IpAddr),
    #[error("the NodePort range {start}-{end} holds no port")]
    EmptyPortRange { start: u16, end: u16 },
    #[error("no advertise address is configured: clients inside the cluster need one")]
    NoAdvertiseAddress,
    #[error(transparent)]
    Schema(#[from] &'static crate::schema::SchemaError),
    #[error("the store holds a service that cannot be read: {0}")]
    Store(String),
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            reading: 400,
            writing: 200,
            timeout: Duration::from_secs(60),
            watch: Duration::from_secs(1800),
        }
    }
}

impl ApiServerConfig {
    /// Refuses what cannot work, before anything is served.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let ranges = &self.service_cidrs;
        let families = |v6: bool| ranges.iter().filter(|range| range.addr().is_ipv6() == v6).count();
        if ranges.is_empty() {
            return Err(ConfigError::NoServiceRange);
        }
        if families(true) > 1 || families(false) > 1 {
            let list: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            return Err(ConfigError::TooManyServiceRanges(list.join(", ")));
        }
        for address in &self.dns_addresses {
            if !ranges.iter().any(|range| range.contains(address)) {
                return Err(ConfigError::DnsOutsideRange(*address));
            }
        }
        if self.node_ports.is_empty() {
            let (start, end) = (*self.node_ports.start(), *self.node_ports.end());
            return Err(ConfigError::EmptyPortRange { start, end });
        }
        if self.advertise_addresses.is_empty() {
            return Err(ConfigError::NoAdvertiseAddress);
        }
        Ok(())
    }
}
