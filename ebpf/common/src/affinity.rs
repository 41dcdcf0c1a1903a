//! `sessionAffinity: ClientIP`.
#![expect(unsafe_code, reason = "implements Plain through its macro")]

use crate::addr::{V4, V6};
use crate::plain::plain;

/// Key of `AFFINITY4` and `AFFINITY6`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct AffinityKey<A> {
    /// Address of the client; both the socket and the packet path use the pod's, or the node's for the host.
    pub client: A,
    /// [`crate::ServiceValue::id`].
    pub service_id: u32,
}

/// Value of `AFFINITY4` and `AFFINITY6`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct AffinityValue {
    /// Backend of the client's last connection.
    pub backend_id: u32,
    /// Tick of that connection.
    pub last_used: u32,
    /// Ticks after which the entry no longer counts; copied from the service so that the sweep needs no lookup.
    pub timeout: u32,
}

plain! { AffinityKey<V4> = 8, AffinityKey<V6> = 20, AffinityValue = 12 }
