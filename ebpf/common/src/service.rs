//! Frontends, slots and backends.
//!
//! In: what `proxy` planned, as bytes. Out: the layout both sides share. A frontend resolves to a run of slots in one flat
//! array; a slot holds a backend id; a backend id indexes an array per family.
#![expect(unsafe_code, reason = "implements Plain through its macro")]

use crate::addr::{Be16, V4, V6};
use crate::plain::plain;

/// Transport protocols, by their number in the IP header.
pub mod proto {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Who asks: [`ServiceKey::scope`].
pub mod scope {
    /// Pods and the node itself.
    pub const INTERNAL: u8 = 0;
    /// Packets that arrive at the uplink.
    pub const EXTERNAL: u8 = 1;
}

/// Bits of [`ServiceValue::flags`].
pub mod service_flags {
    /// Traffic from outside is masqueraded when its backend is on another node.
    pub const MASQUERADE: u8 = 1 << 0;
    /// Without a usable backend: drop instead of reject.
    pub const DROP_EMPTY: u8 = 1 << 1;
}

/// Values of [`ServiceValue::kind`].
pub mod service_kind {
    /// A cluster address.
    pub const CLUSTER_IP: u8 = 0;
    /// A port on the node's addresses.
    pub const NODE_PORT: u8 = 1;
    /// `spec.externalIPs`.
    pub const EXTERNAL_IP: u8 = 2;
    /// An address of `status.loadBalancer`.
    pub const LOAD_BALANCER: u8 = 3;
}

/// Bits of [`BackendValue::flags`].
pub mod backend_flags {
    /// The backend runs on this node.
    pub const LOCAL: u8 = 1 << 0;
}

/// Key of `SERVICES4` and `SERVICES6`: what a client dials.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct ServiceKey<A> {
    /// Virtual address.
    pub addr: A,
    /// Virtual port.
    pub port: Be16,
    /// One of [`proto`].
    pub proto: u8,
    /// One of [`scope`].
    pub scope: u8,
}

/// Value of `SERVICES4` and `SERVICES6`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct ServiceValue {
    /// Identity of the service port, stable over restarts; keys affinity.
    pub id: u32,
    /// First slot of the run.
    pub base: u32,
    /// Slots in the run; 0: no endpoint.
    pub count: u32,
    /// Rises with every change of the run, for whoever compares two looks at the table; programs do not read it.
    pub generation: u32,
    /// Affinity timeout in seconds; 0: no affinity.
    pub affinity: u32,
    /// Bits of [`service_flags`].
    pub flags: u8,
    /// One of [`service_kind`].
    pub kind: u8,
    /// Zero.
    pub pad: [u8; 2],
}

/// Value of `BACKENDS4` and `BACKENDS6`. An entry whose `proto` is 0 is empty: flows of that backend are over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct BackendValue<A> {
    /// Endpoint address.
    pub addr: A,
    /// Endpoint port.
    pub port: Be16,
    /// One of [`proto`].
    pub proto: u8,
    /// Bits of [`backend_flags`].
    pub flags: u8,
}

plain! {
    ServiceKey<V4> = 8,
    ServiceKey<V6> = 20,
    ServiceValue = 24,
    BackendValue<V4> = 8,
    BackendValue<V6> = 20,
}

const _: () = {
    assert!(core::mem::offset_of!(ServiceKey<V4>, port) == 4);
    assert!(core::mem::offset_of!(ServiceKey<V6>, scope) == 19);
    assert!(core::mem::offset_of!(ServiceValue, affinity) == 16);
    assert!(core::mem::offset_of!(ServiceValue, flags) == 20);
    assert!(core::mem::offset_of!(BackendValue<V6>, port) == 16);
};
