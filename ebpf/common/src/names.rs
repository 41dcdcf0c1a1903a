//! Names of maps and programs as they stand in the object, and under which they are pinned.
//!
//! In: nothing. Out: constants. The statics in the object bear the same names; a test of the loader compares.

/// Maps that are pinned, in no order.
pub const MAPS: &[&str] = &[
    SERVICES4,
    SERVICES6,
    SLOTS,
    BACKENDS4,
    BACKENDS6,
    PODS4,
    PODS6,
    NETNS,
    POD_FLOWS,
    FLOWS4,
    FLOWS6,
    AFFINITY4,
    AFFINITY6,
    SOCK_PEER,
    SOCK_DATAGRAM,
    CONFIG,
    COUNTERS,
];

/// IPv4 frontends.
pub const SERVICES4: &str = "SERVICES4";
/// IPv6 frontends.
pub const SERVICES6: &str = "SERVICES6";
/// Backend ids, addressed by a service's base and count.
pub const SLOTS: &str = "SLOTS";
/// IPv4 backends by id.
pub const BACKENDS4: &str = "BACKENDS4";
/// IPv6 backends by id.
pub const BACKENDS6: &str = "BACKENDS6";
/// Local pods by IPv4 address.
pub const PODS4: &str = "PODS4";
/// Local pods by IPv6 address.
pub const PODS6: &str = "PODS6";
/// Pod addresses by network namespace.
pub const NETNS: &str = "NETNS";
/// Which pods have translated flows.
pub const POD_FLOWS: &str = "POD_FLOWS";
/// Translated IPv4 flows.
pub const FLOWS4: &str = "FLOWS4";
/// Translated IPv6 flows.
pub const FLOWS6: &str = "FLOWS6";
/// IPv4 session affinity.
pub const AFFINITY4: &str = "AFFINITY4";
/// IPv6 session affinity.
pub const AFFINITY6: &str = "AFFINITY6";
/// Services of connected sockets.
pub const SOCK_PEER: &str = "SOCK_PEER";
/// Services of unconnected datagram sockets.
pub const SOCK_DATAGRAM: &str = "SOCK_DATAGRAM";
/// Settings of the node.
pub const CONFIG: &str = "CONFIG";
/// Counters by reason.
pub const COUNTERS: &str = "COUNTERS";

/// Programs on the node's cgroup.
pub const CGROUP_PROGRAMS: &[&str] =
    &["connect4", "connect6", "sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6", "getpeername4", "getpeername6"];
/// Program on packets that leave a pod.
pub const POD_INGRESS: &str = "pod_ingress";
/// Program on packets that the node's stack sends to a pod.
pub const POD_EGRESS: &str = "pod_egress";
/// Program on packets that arrive from other machines.
pub const UPLINK_INGRESS: &str = "uplink_ingress";
/// Program on packets that leave for other machines.
pub const UPLINK_EGRESS: &str = "uplink_egress";
