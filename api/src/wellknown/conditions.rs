//! Condition types by kind, and the three statuses.

/// The condition holds.
pub const TRUE: &str = "True";
/// The condition does not hold.
pub const FALSE: &str = "False";
/// Nobody can tell.
pub const UNKNOWN: &str = "Unknown";

/// Pod: bound to a node.
pub const POD_SCHEDULED: &str = "PodScheduled";
/// Pod: all init containers finished.
pub const POD_INITIALIZED: &str = "Initialized";
/// Pod: all containers ready and all readiness gates open.
pub const POD_READY: &str = "Ready";
/// Pod: all containers ready.
pub const CONTAINERS_READY: &str = "ContainersReady";
/// Pod: sandbox and network are there.
pub const POD_READY_TO_START_CONTAINERS: &str = "PodReadyToStartContainers";
/// Pod: about to be terminated by a disruption.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";
/// Pod: a resize cannot be done now.
pub const POD_RESIZE_PENDING: &str = "PodResizePending";
/// Pod: a resize is under way.
pub const POD_RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";

/// Node: pods can run here.
pub const NODE_READY: &str = "Ready";
/// Node: short of memory.
pub const MEMORY_PRESSURE: &str = "MemoryPressure";
/// Node: short of disk.
pub const DISK_PRESSURE: &str = "DiskPressure";
/// Node: short of process ids.
pub const PID_PRESSURE: &str = "PIDPressure";
/// Node: its network is not set up.
pub const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

/// Deployment: enough replicas are available.
pub const DEPLOYMENT_AVAILABLE: &str = "Available";
/// Deployment: a rollout makes progress.
pub const DEPLOYMENT_PROGRESSING: &str = "Progressing";
/// Deployment, ReplicaSet: replicas could not be made or removed.
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Job: finished with success.
pub const JOB_COMPLETE: &str = "Complete";
/// Job: finished without success.
pub const JOB_FAILED: &str = "Failed";
/// Job: paused.
pub const JOB_SUSPENDED: &str = "Suspended";
/// Job: will be failed once its pods are gone.
pub const JOB_FAILURE_TARGET: &str = "FailureTarget";
/// Job: its success policy is met.
pub const JOB_SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";

/// PodDisruptionBudget: a disruption is allowed.
pub const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// Namespace: its resources could not be listed for deletion.
pub const NAMESPACE_DELETION_DISCOVERY_FAILURE: &str = "NamespaceDeletionDiscoveryFailure";
/// Namespace: its content could not be deleted.
pub const NAMESPACE_DELETION_CONTENT_FAILURE: &str = "NamespaceDeletionContentFailure";
/// Namespace: group versions could not be parsed for deletion.
pub const NAMESPACE_DELETION_GV_PARSING_FAILURE: &str = "NamespaceDeletionGroupVersionParsingFailure";
/// Namespace: content remains.
pub const NAMESPACE_CONTENT_REMAINING: &str = "NamespaceContentRemaining";
/// Namespace: finalizers on its content remain.
pub const NAMESPACE_FINALIZERS_REMAINING: &str = "NamespaceFinalizersRemaining";
