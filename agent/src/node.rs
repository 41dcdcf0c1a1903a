//! This node's Node object and Lease: registration, heartbeat, status.
//!
//! In: facts of the host, the runtime's answers. Out: writes to the API: the Node once, its Lease every ten seconds, its
//! status when it changed and every five minutes (KEP-589).

mod eviction;
mod facts;
mod lease;
mod object;
mod registration;
mod status;

pub use eviction::Thresholds;
pub use facts::Capacity;
pub use lease::renew;
pub use object::{Identity, hostname};
pub use registration::register;
pub use status::{Limits, keep_status};
