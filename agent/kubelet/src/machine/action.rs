//! What the machine asks the worker to do.
//!
//! Out of the machine only; every action is idempotent. No I/O here.

use std::time::Duration;

use tokio::time::Instant;

/// Why a pod ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TerminationReason {
    /// `metadata.deletionTimestamp` is set.
    Deleted,
    /// The pod is gone from the API: nobody waits for its grace any more.
    Gone,
    /// All containers ended and none is to run again.
    Completed,
    /// `activeDeadlineSeconds` passed.
    DeadlineExceeded,
    /// The node did not admit it: nothing of it was ever made.
    Rejected,
}

/// Why a container is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    PodEnds,
    LivenessFailed,
    StartupFailed,
    SpecChanged,
    PostStartFailed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave the stage `Syncing`.
    Terminate(TerminationReason),
    /// Make the pod's folder, cgroup and volumes.
    MountVolumes,
    /// Give the pod its namespaces and addresses.
    AttachNetwork,
    EnsureImage {
        container: String,
    },
    AbortPull {
        container: String,
    },
    Start {
        container: String,
        attempt: u32,
    },
    /// Begin to stop the current run.
    Stop {
        container: String,
        reason: StopReason,
        grace: Duration,
    },
    /// A stop that is under way gets less time.
    HurryStop {
        container: String,
        deadline: Instant,
    },
    /// Wait until Services no longer send new connections to the pod.
    Drain,
    PreStop {
        container: String,
        attempt: u32,
        deadline: Instant,
    },
    Signal {
        container: String,
        attempt: u32,
        kill: bool,
    },
    /// Forget an old run.
    Remove {
        container: String,
        attempt: u32,
    },
    /// No container runs any more: leave the stage `Terminating`.
    Terminated,
    /// Give back volumes, network and cgroup.
    Release,
    /// Write the last status, then delete the object (grace 0, this uid).
    DeleteFromApi,
    /// Remove containers, folders and logs; the worker ends.
    Forget,
    /// Nothing to do before this time unless something happens.
    WakeAt(Instant),
}
