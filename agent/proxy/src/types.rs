//! What callers say to the proxy.
//!
//! In: [`ProxyConfig`]. Out: nothing of its own. No I/O here.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::observe::Observer;

/// Settings of the proxy.
#[derive(Clone)]
pub struct ProxyConfig {
    /// Name of this node: endpoints with it are local.
    pub node_name: String,
    /// What is known of this node; a change recomputes every service.
    pub node: watch::Receiver<NodeView>,
    /// Serve `spec.externalIPs`. Off by default: whoever may write Services could take over any address
    /// (CVE-2020-8554).
    pub external_ips: bool,
    /// Told of every synchronisation.
    pub observer: Arc<dyn Observer>,
}

/// This node as the proxy needs to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Addresses that NodePorts are served at.
    pub addresses: Vec<IpAddr>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

/// A service by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServiceKey(Arc<str>);

impl ServiceKey {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// Namespace and name.
    pub(crate) fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or_default()
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
