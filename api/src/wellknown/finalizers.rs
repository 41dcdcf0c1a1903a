//! Finalizers the system itself sets or honours.

/// Dependents keep running and lose their owner.
pub const ORPHAN: &str = "orphan";
/// Dependents that block their owner go first.
pub const FOREGROUND_DELETION: &str = "foregroundDeletion";
/// The content of a namespace goes first; lives in `spec.finalizers`.
pub const NAMESPACE: &str = "kubernetes";
/// A Job has yet to count this pod.
pub const JOB_TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// A claim is in use by a pod.
pub const PVC_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// A volume is in use by a claim.
pub const PV_PROTECTION: &str = "kubernetes.io/pv-protection";
/// A load balancer has yet to be torn down.
pub const LOAD_BALANCER_CLEANUP: &str = "service.kubernetes.io/load-balancer-cleanup";
