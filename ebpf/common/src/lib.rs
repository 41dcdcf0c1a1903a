//! The ABI between the kernel programs and the agent: keys, values, map names, capacities, drop reasons.
//!
//! In: nothing. Out: plain types that both sides read and write as bytes. `no_std`, no dependency, no logic beyond
//! conversions. Every type here is `repr(C)`, has no padding, no `bool`, `enum` or `Option`, and keeps addresses and
//! ports in the order of the wire, so that a lookup costs no byte swap in the kernel.
//!
//! | map | key → value | writer | reader |
//! |---|---|---|---|
//! | `SERVICES4/6` | [`ServiceKey`] → [`ServiceValue`] | datapath `lb` | socket hooks, tcx |
//! | `SLOTS` | index → backend id | datapath `lb` | socket hooks, tcx |
//! | `BACKENDS4/6` | backend id → [`BackendValue`] | datapath `lb` | socket hooks, tcx |
//! | `PODS4/6` | pod address → [`PodValue`] | datapath `pods` | tcx |
//! | `NETNS` | netns cookie → [`NetnsValue`] | datapath `pods` | socket hooks |
//! | `POD_FLOWS` | pod index → 1 once a flow of that pod is translated | kernel | tcx |
//! | `FLOWS4/6` | [`FlowKey`] → [`FlowValue`] | kernel; the agent deletes what expired | tcx |
//! | `AFFINITY4/6` | [`AffinityKey`] → [`AffinityValue`] | kernel; the agent deletes what expired | socket hooks, tcx |
//! | `SOCK_PEER`, `SOCK_DATAGRAM` | socket → [`SockPeer`], [`SockDatagram`] | kernel, freed with the socket | socket hooks |
//! | `CONFIG` | 0 → [`ConfigValue`] | datapath | all |
//! | `COUNTERS` | [`Reason`] → [`CounterValue`], per CPU | kernel | datapath |
#![no_std]
#![warn(missing_docs)]

mod addr;
mod affinity;
mod config;
mod flow;
pub mod names;
mod plain;
mod pod;
mod reason;
mod service;
mod socket;

pub use addr::{Addr, Be16, V4, V6};
pub use affinity::{AffinityKey, AffinityValue};
pub use config::ConfigValue;
pub use flow::{FlowKey, FlowValue, direction, flow_state, ticks};
pub use plain::Plain;
pub use pod::{HOST_INDEX, NetnsValue, PodValue};
pub use reason::{COUNTER_ENTRIES, CounterValue, Reason};
pub use service::{
    BackendValue, ServiceKey, ServiceValue, backend_flags, proto, scope, service_flags, service_kind,
};
pub use socket::{DATAGRAM_PEERS, SockDatagram, SockPeer};

/// Version of everything in this crate. It is part of the pin path: maps of another version are never opened.
/// Rises with every change of a size, an offset or a meaning.
pub const ABI_VERSION: u32 = 1;
