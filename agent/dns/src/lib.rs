//! Node-local DNS of the cluster: `xebec-agent dns`.
//!
//! In: watches of Services and EndpointSlices, DNS queries of this node's pods. Out: answers by the Kubernetes DNS
//! specification 1.1 for the cluster domain; everything else is asked of the node's resolvers. When the API server is
//! away the last known state is served on. Absent: the datapath; `kube-dns` is an ordinary Service.
//!
//! ```text
//! Service, EndpointSlice ─watch─▶ zone (names, addresses) ◀─ query ─ handler ─ else ─▶ forwarder ─▶ resolvers
//! ```

mod error;
mod forward;
mod handler;
mod serve;
pub mod slice;
mod sync;
mod zone;

pub use error::{Error, Result};
pub use serve::{DnsConfig, run};
