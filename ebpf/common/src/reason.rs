//! Why a packet was not delivered, and how often.
#![expect(unsafe_code, reason = "implements Plain through its macro")]

use crate::plain::plain;

/// Value of `COUNTERS`, one per CPU and reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct CounterValue {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

plain! { CounterValue = 16 }

/// Declares the reasons once: number, name for metrics, meaning.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)+) => {
        /// A counted event. The number indexes `COUNTERS`; numbers are never reused.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[$doc])* $variant = $number,)+
        }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant),+];

            /// Label of the reason in metrics and in `xebec-agent drops`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$variant => $name,)+
                }
            }
        }
    };
}

reasons! {
    /// A header is cut short or says something impossible.
    Malformed = 0, "malformed";
    /// A pod sent with a source address that is not its own.
    SpoofedSource = 1, "spoofed_source";
    /// The frontend has no endpoint: answered with RST or ICMP.
    NoEndpoint = 2, "no_endpoint";
    /// The frontend's Local policy leaves no endpoint on this node.
    NoLocalEndpoint = 3, "no_local_endpoint";
    /// The flow table is full: the new flow is refused, old ones live.
    FlowTableFull = 4, "flow_table_full";
    /// No masquerade port is left towards this backend.
    MasqueradePortsExhausted = 5, "masquerade_ports_exhausted";
    /// The node has no address of the family to masquerade with.
    NoMasqueradeAddress = 6, "no_masquerade_address";
    /// A slot led to no live backend although the frontend has some.
    NoLiveBackend = 7, "no_live_backend";
    /// The affinity table is full: the client is balanced without affinity.
    AffinityTableFull = 8, "affinity_table_full";
    /// A TCP segment of a connection the datapath does not know: answered with RST.
    UnknownFlow = 9, "unknown_flow";
    /// The kernel refused to change the packet.
    RewriteFailed = 10, "rewrite_failed";
    /// There is no route to the translated destination.
    NoRoute = 11, "no_route";
    /// The kernel refused to remember the socket's peer; the connection goes on, `getpeername` shows the backend.
    SocketStorageFull = 12, "socket_storage_full";
}

/// Entries of `COUNTERS`: more than there are reasons, so that a new one does not change the map.
pub const COUNTER_ENTRIES: u32 = 64;

const _: () = assert!(Reason::ALL.len() < COUNTER_ENTRIES as usize);
