//! Pods of this node.
#![expect(unsafe_code, reason = "implements Plain through its macro")]

use crate::addr::{V4, V6};
use crate::plain::plain;

/// Index in `POD_FLOWS` that stands for the node itself.
pub const HOST_INDEX: u32 = 0;

/// Value of `PODS4` and `PODS6`; the key is the pod's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct PodValue {
    /// Host end of the pod's veth.
    pub ifindex: u32,
    /// Index into `POD_FLOWS`, shared by the addresses of one pod; never [`HOST_INDEX`].
    pub index: u32,
    /// MAC address inside the pod.
    pub mac: [u8; 6],
    /// MAC address of the host end.
    pub host_mac: [u8; 6],
}

/// Value of `NETNS`; the key is the cookie of the pod's network namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct NetnsValue {
    /// The pod's IPv4 address, or zero.
    pub v4: V4,
    /// The pod's IPv6 address, or zero.
    pub v6: V6,
}

plain! { PodValue = 20, NetnsValue = 20 }
