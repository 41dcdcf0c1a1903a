//! What can go wrong between a Service and the tables.
//!
//! In: errors of the sink, limits. Out: one enum.

use std::io;
use std::net::SocketAddr;

use crate::sink::SinkError;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed step of the proxy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tables could not be read.
    #[error("reading the load-balancing tables: {0}")]
    Snapshot(#[source] SinkError),
    /// The tables could not be written.
    #[error("writing the load-balancing tables: {0}")]
    Apply(#[source] SinkError),
    /// No id is left for another endpoint.
    #[error("all {0} backend entries are in use")]
    BackendsExhausted(u32),
    /// No run of slots is left that is long enough.
    #[error("no room for {wanted} more endpoint slots of {total}")]
    SlotsExhausted {
        /// Slots asked for.
        wanted: u32,
        /// Slots there are.
        total: u32,
    },
    /// No id is left for another service port.
    #[error("all {0} service ids are in use")]
    ServicesExhausted(u32),
    /// An address of the proxy's own servers.
    #[error("cannot listen at {address}: {source}: is another proxy running?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A task of the proxy died.
    #[error("a task of the proxy ended early: {0}")]
    Task(String),
}
