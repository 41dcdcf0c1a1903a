//! The kernel-side tables and programs of one node, as seen from user space.
//!
//! In: desired load-balancing entries ([`lb::LbOp`]) from `proxy`, pod attachments ([`pod::PodEntry`]) from `network`.
//! Out: BPF maps, pinned programs and links, counters. Absent: Kubernetes types; nobody else names aya or the ABI crate,
//! and byte order ends here (callers speak `IpAddr` and host-order `u16`).

pub mod lb;
pub mod pod;
