//! The service proxy: Services and EndpointSlices become load-balancing tables.
//!
//! In: watches of Service and EndpointSlice, this node's name, addresses and zone. Out: ordered [`LbOp`]s for an
//! [`LbSink`]. Pure but for its loop: parsing, endpoint selection, desired tables, ids and the plan do no I/O. Absent:
//! Pods (endpoint slices suffice), byte order, map layouts.
//!
//! ```text
//! watch ─▶ tracker ─(changed services)─▶ desired ─▶ planner ─▶ [LbOp] ─▶ sink
//!          parse, coalesce,              service +   ids, runs,
//!          drop no-ops                   topology    order
//! ```
//!
//! [`LbOp`]: xebec_datapath::lb::LbOp

mod applied;
mod backends;
mod desired;
mod endpoints;
mod error;
mod health;
mod healthcheck;
mod http;
mod ids;
mod metrics;
#[cfg(test)]
mod model;
mod observe;
mod operations;
mod plan;
mod proxier;
mod retry;
mod runs;
mod service;
mod sink;
mod slots;
mod topology;
mod tracker;
mod types;

pub use applied::Applied;
pub use error::{Error, Result};
pub use health::node_is_eligible;
pub use observe::{HealthCheck, HealthCheckChange, NoLocalEndpoints, Observer, SyncReport};
pub use operations::{HEALTHZ_PORT, METRICS_PORT, Operations, OperationsConfig};
pub use proxier::run;
pub use sink::{LbLimits, LbSink, SinkError};
pub use types::{NodeView, ProxyConfig};
