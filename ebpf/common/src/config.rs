//! What the programs must know of their node.
#![expect(unsafe_code, reason = "implements Plain through its macro")]

use crate::addr::{V4, V6};
use crate::plain::plain;

/// The one value of `CONFIG`. A map rather than read-only data, because a node's addresses may change while it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct ConfigValue {
    /// Cookie of the node's own network namespace: sockets there are the host's.
    pub netns_cookie: u64,
    /// Address that masqueraded IPv4 flows bear; zero: none.
    pub v4: V4,
    /// Address that masqueraded IPv6 flows bear; zero: none.
    pub v6: V6,
    /// Interface towards the other nodes; 0: none yet.
    pub uplink: u32,
    /// First port of masqueraded flows, host order.
    pub masquerade_first: u16,
    /// Last port of masqueraded flows, host order.
    pub masquerade_last: u16,
    /// First NodePort, host order.
    pub node_port_first: u16,
    /// Last NodePort, host order.
    pub node_port_last: u16,
    /// Extra flag for checksum updates of IPv6 addresses (`BPF_F_IPV6`, kernels from 6.16 on), else 0.
    pub csum_v6_flag: u32,
    /// Zero.
    pub pad: u32,
}

plain! { ConfigValue = 48 }

const _: () = assert!(core::mem::offset_of!(ConfigValue, uplink) == 28);
