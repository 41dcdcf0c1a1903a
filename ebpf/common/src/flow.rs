//! State of a translated flow.
//!
//! A flow has two entries under the tuples as they appear on the wire: one for packets of the client, one for packets of
//! the backend. Each holds the whole translation, so either can rebuild the other. An IPv4 flow:
//!
//! ```text
//! client ──(client:cport → vip:vport)──▶ node ──(snat:sport → backend:bport)──▶ backend        entry FORWARD
//! client ◀─(vip:vport → client:cport)─── node ◀─(backend:bport → snat:sport)─── backend        entry REPLY
//! ```
//! `snat` equals the client where the source is kept.
#![expect(unsafe_code, reason = "implements Plain through its macro")]

use crate::addr::{Addr, Be16, V4, V6};
use crate::plain::plain;

/// Which of the two entries this is: [`FlowValue::direction`].
pub mod direction {
    /// Packets from the client.
    pub const FORWARD: u8 = 0;
    /// Packets from the backend.
    pub const REPLY: u8 = 1;
}

/// Bits of [`FlowValue::state`].
pub mod flow_state {
    /// A packet of the backend was seen.
    pub const REPLIED: u8 = 1 << 0;
    /// The client sent FIN.
    pub const CLIENT_FIN: u8 = 1 << 1;
    /// The backend sent FIN.
    pub const BACKEND_FIN: u8 = 1 << 2;
    /// Either side sent RST.
    pub const RESET: u8 = 1 << 3;
}

/// The datapath's clock: monotonic nanoseconds shifted, so that 32 bits last 18 years.
pub mod ticks {
    /// Right shift from nanoseconds to ticks of 134 ms.
    pub const SHIFT: u32 = 27;
    /// Age at which a packet writes the time of its flow again.
    pub const REFRESH: u32 = 32;

    /// Ticks in a number of seconds, rounded down.
    pub const fn from_secs(secs: u64) -> u32 {
        ((secs * 1_000_000_000) >> SHIFT) as u32
    }
}

/// Key of `FLOWS4` and `FLOWS6`: a tuple as it lies in a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(C)]
pub struct FlowKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// Protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// Value of `FLOWS4` and `FLOWS6`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct FlowValue<A> {
    /// Who opened the flow.
    pub client: A,
    /// What it dialled.
    pub vip: A,
    /// Where it goes.
    pub backend: A,
    /// Source the backend sees.
    pub snat: A,
    /// Port of the client.
    pub client_port: Be16,
    /// Port it dialled.
    pub vip_port: Be16,
    /// Port of the backend.
    pub backend_port: Be16,
    /// Source port the backend sees.
    pub snat_port: Be16,
    /// Interface the client's packets arrive at; replies leave by it.
    pub ifindex: u32,
    /// Tick of the last packet, give or take [`ticks::REFRESH`].
    pub last_seen: u32,
    /// Index into the backend array; the entry there decides whether the flow may go on.
    pub backend_id: u32,
    /// Service the flow was made for.
    pub service_id: u32,
    /// Protocol number.
    pub proto: u8,
    /// One of [`direction`].
    pub direction: u8,
    /// Bits of [`flow_state`].
    pub state: u8,
    /// Zero.
    pub pad: u8,
}

impl<A: Addr> FlowValue<A> {
    /// Key of the entry for packets of the client.
    #[inline(always)]
    pub fn forward_key(&self) -> FlowKey<A> {
        FlowKey {
            src: self.client,
            dst: self.vip,
            sport: self.client_port,
            dport: self.vip_port,
            proto: self.proto,
            pad: [0; 3],
        }
    }

    /// Key of the entry for packets of the backend.
    #[inline(always)]
    pub fn reply_key(&self) -> FlowKey<A> {
        FlowKey {
            src: self.backend,
            dst: self.snat,
            sport: self.backend_port,
            dport: self.snat_port,
            proto: self.proto,
            pad: [0; 3],
        }
    }
}

plain! {
    FlowKey<V4> = 16,
    FlowKey<V6> = 40,
    FlowValue<V4> = 44,
    FlowValue<V6> = 92,
}

const _: () = {
    assert!(core::mem::offset_of!(FlowKey<V4>, proto) == 12);
    assert!(core::mem::offset_of!(FlowValue<V4>, last_seen) == 28);
    assert!(core::mem::offset_of!(FlowValue<V6>, last_seen) == 76);
    assert!(core::mem::offset_of!(FlowValue<V4>, state) == 42);
    assert!(core::mem::offset_of!(FlowValue<V6>, state) == 90);
};
