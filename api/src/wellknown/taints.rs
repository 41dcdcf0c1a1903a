//! Taint keys and effects.

/// The node is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The node's agent has not been heard of.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The node is cordoned.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The node is short of memory.
pub const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
/// The node is short of disk.
pub const DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";
/// The node is short of process ids.
pub const PID_PRESSURE: &str = "node.kubernetes.io/pid-pressure";
/// The node's network is not set up.
pub const NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";
/// The node is shut down for good.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// A cloud provider has yet to initialize the node.
pub const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// Pods that do not tolerate the taint are not scheduled here.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// Pods that do not tolerate the taint are rather scheduled elsewhere.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// Pods that do not tolerate the taint are evicted.
pub const NO_EXECUTE: &str = "NoExecute";
