//! What a socket remembers of its translation. Lives in socket storage: it ends with the socket and no spray of one
//! socket can evict another's.
#![expect(unsafe_code, reason = "implements Plain through its macro")]

use crate::addr::{Be16, V6};
use crate::plain::plain;

/// Services one unconnected datagram socket can talk to at once; beyond that one is forgotten.
pub const DATAGRAM_PEERS: usize = 8;

/// Value of `SOCK_PEER`: the service a connected socket dialled. IPv4 in mapped form, because an IPv6 socket may speak
/// either family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct SockPeer {
    /// Where packets really go.
    pub backend: V6,
    /// What the application dialled.
    pub vip: V6,
    /// Port of the backend.
    pub backend_port: Be16,
    /// Port the application dialled.
    pub vip_port: Be16,
    /// Index into the backend array.
    pub backend_id: u32,
    /// Service the choice was made for; 0: empty.
    pub service_id: u32,
}

/// Value of `SOCK_DATAGRAM`: the services an unconnected datagram socket talks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct SockDatagram {
    /// The peers, in no order.
    pub peers: [SockPeer; DATAGRAM_PEERS],
}

plain! { SockPeer = 44, SockDatagram = 44 * DATAGRAM_PEERS }
