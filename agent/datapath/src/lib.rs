//! The kernel-side tables and programs of one node, as seen from user space.
//!
//! In: desired load-balancing entries ([`lb::LbOp`]) from `proxy`, pod attachments ([`pod::PodEntry`]) from `network`.
//! Out: BPF maps, pinned programs and links, counters. Absent: Kubernetes types; nobody else names aya or the ABI crate,
//! and byte order ends here (callers speak `IpAddr` and host-order `u16`).

mod address;
mod attach;
mod config;
mod counters;
mod datapath;
mod error;
mod expiry;
pub mod lb;
mod loader;
mod maps;
mod object;
pub mod pod;
mod shape;
mod sys;
mod table;
mod test_run;

pub use config::{Capacity, DatapathConfig};
pub use counters::Drops;
pub use datapath::{Datapath, Lb, Pods, netns_cookie};
pub use error::{Error, Result};
pub use expiry::Swept;
pub use test_run::{Action, Hook, TestRun};
