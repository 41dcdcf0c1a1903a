//! What callers say to the proxy and hear from it.
//!
//! In: [`ProxyConfig`]. Out: [`SyncReport`]s. No I/O here.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

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

/// Receives what happened; implemented by whoever keeps the metrics.
pub trait Observer: Send + Sync {
    /// Changes were written, or (with `error`) were not.
    fn synced(&self, report: &SyncReport);
}

/// One synchronisation.
#[derive(Clone, Debug, Default)]
pub struct SyncReport {
    /// The first one after the initial lists.
    pub first: bool,
    /// Services looked at.
    pub services: usize,
    /// Changes of Services that led to it.
    pub service_changes: usize,
    /// Changes of EndpointSlices that led to it.
    pub slice_changes: usize,
    /// Operations written.
    pub operations: usize,
    /// From the first of these changes to the last map write.
    pub duration: Duration,
    /// Earliest `endpoints.kubernetes.io/last-change-trigger-time` among the changed slices, as given.
    pub trigger_time: Option<jiff::Timestamp>,
    /// Services with endpoints elsewhere but none here, by an internal and an external Local policy.
    pub no_local_endpoints: [usize; 2],
    /// Services that do not fit the tables.
    pub refused: usize,
    /// Why nothing (or only a part) was written.
    pub error: Option<String>,
}

/// A service by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServiceKey(Arc<str>);

impl ServiceKey {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Observer for () {
    fn synced(&self, _: &SyncReport) {}
}
