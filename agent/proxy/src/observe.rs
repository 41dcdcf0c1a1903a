//! What the proxy tells about its work.
//!
//! In: nothing. Out: [`Observer`], implemented by whoever keeps metrics, health and health-check ports. No I/O here.

use std::time::Duration;

use crate::applied::Applied;

/// Receives what happened. Called from the proxy's loop: an implementation must not block.
pub trait Observer: Send + Sync {
    /// A change has arrived that is not written yet.
    fn queued(&self) {}
    /// Changes were written, or (with `error`) were not.
    fn synced(&self, report: &SyncReport);
    /// The tables follow the EndpointSlices this far.
    fn applied(&self, applied: Applied) {
        drop(applied);
    }
    /// Services with a health-check port came, went or have another number of endpoints here.
    fn health_checks(&self, changes: &[HealthCheckChange]) {
        let _ = changes;
    }
}

/// One synchronisation.
#[derive(Clone, Debug, Default)]
pub struct SyncReport {
    /// The first one after the initial lists.
    pub first: bool,
    /// Every service was compared with the tables, not only those that changed.
    pub full: bool,
    /// Services looked at.
    pub services: usize,
    /// Changes of Services that led to it.
    pub service_changes: usize,
    /// Changes of EndpointSlices that led to it.
    pub slice_changes: usize,
    /// Operations written.
    pub operations: usize,
    /// From the first of these changes to the last map write.
    pub latency: Duration,
    /// Planning and writing alone.
    pub duration: Duration,
    /// Earliest `endpoints.kubernetes.io/last-change-trigger-time` among the changed slices.
    pub trigger_time: Option<jiff::Timestamp>,
    /// Service ports with endpoints elsewhere but none here, for IPv4 and IPv6.
    pub no_local_endpoints: [NoLocalEndpoints; 2],
    /// Services that do not fit the tables.
    pub refused: usize,
    /// Why nothing (or only a part) was written.
    pub error: Option<String>,
}

/// Service ports of one family whose traffic is dropped here by a Local policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoLocalEndpoints {
    /// By `internalTrafficPolicy`.
    pub internal: usize,
    /// By `externalTrafficPolicy`.
    pub external: usize,
}

/// A Service's health-check port, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckChange {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `None`: it has no health-check port any more.
    pub state: Option<HealthCheck>,
}

/// What a load balancer is told about a Service on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// `spec.healthCheckNodePort`.
    pub port: u16,
    /// Ready endpoints on this node, for IPv4 and IPv6; `None` where the Service is not of that family.
    pub ready: [Option<usize>; 2],
}

impl Observer for () {
    fn synced(&self, _: &SyncReport) {}
}

impl NoLocalEndpoints {
    pub(crate) fn is_zero(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.internal += other.internal;
        self.external += other.external;
    }
}
