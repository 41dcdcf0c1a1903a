//! Reasons of events, conditions and container states, as dashboards and `kubectl describe` know them.

/// Event types.
pub mod event_type {
    /// Something expected happened.
    pub const NORMAL: &str = "Normal";
    /// Something to look at happened.
    pub const WARNING: &str = "Warning";
}

/// Events about pods: scheduler, kubelet.
pub mod pod {
    /// The scheduler bound the pod.
    pub const SCHEDULED: &str = "Scheduled";
    /// No node fits; also the PodScheduled condition's reason is [`UNSCHEDULABLE`].
    pub const FAILED_SCHEDULING: &str = "FailedScheduling";
    /// Reason of the PodScheduled condition when no node fits.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// Reason of the PodScheduled condition while a scheduling gate is closed.
    pub const SCHEDULING_GATED: &str = "SchedulingGated";
    /// The pod gave way to one of higher priority.
    pub const PREEMPTED: &str = "Preempted";
    /// An image is being pulled.
    pub const PULLING: &str = "Pulling";
    /// An image was pulled or is there.
    pub const PULLED: &str = "Pulled";
    /// An image could not be pulled, a container not be started.
    pub const FAILED: &str = "Failed";
    /// A container waits before the next try.
    pub const BACK_OFF: &str = "BackOff";
    /// A container was created.
    pub const CREATED: &str = "Created";
    /// A container was started.
    pub const STARTED: &str = "Started";
    /// A container is being stopped.
    pub const KILLING: &str = "Killing";
    /// A probe failed.
    pub const UNHEALTHY: &str = "Unhealthy";
    /// A volume could not be mounted.
    pub const FAILED_MOUNT: &str = "FailedMount";
    /// The sandbox could not be made.
    pub const FAILED_CREATE_SANDBOX: &str = "FailedCreatePodSandBox";
    /// The sandbox is gone and is made anew.
    pub const SANDBOX_CHANGED: &str = "SandboxChanged";
    /// The pod could not be stopped.
    pub const FAILED_KILL: &str = "FailedKillPod";
    /// The postStart hook failed.
    pub const FAILED_POST_START: &str = "FailedPostStartHook";
    /// The preStop hook failed.
    pub const FAILED_PRE_STOP: &str = "FailedPreStopHook";
    /// The node took the pod back.
    pub const EVICTED: &str = "Evicted";
    /// Reason of Ready and ContainersReady when a container is not ready.
    pub const CONTAINERS_NOT_READY: &str = "ContainersNotReady";
    /// Reason of Initialized when an init container has not finished.
    pub const CONTAINERS_NOT_INITIALIZED: &str = "ContainersNotInitialized";
    /// Reason of Ready and Initialized when all containers finished.
    pub const POD_COMPLETED: &str = "PodCompleted";
    /// Reason of Ready when a readiness gate is closed.
    pub const READINESS_GATES_NOT_READY: &str = "ReadinessGatesNotReady";
}

/// Reasons of a container's waiting and terminated states.
pub mod container {
    /// Waiting: being made.
    pub const CREATING: &str = "ContainerCreating";
    /// Waiting: init containers come first.
    pub const POD_INITIALIZING: &str = "PodInitializing";
    /// Waiting: it crashed and waits before the next start.
    pub const CRASH_LOOP_BACK_OFF: &str = "CrashLoopBackOff";
    /// Waiting: its image could not be pulled.
    pub const ERR_IMAGE_PULL: &str = "ErrImagePull";
    /// Waiting: the next pull waits.
    pub const IMAGE_PULL_BACK_OFF: &str = "ImagePullBackOff";
    /// Waiting: the image is absent and may not be pulled.
    pub const ERR_IMAGE_NEVER_PULL: &str = "ErrImageNeverPull";
    /// Waiting: the image reference cannot be read.
    pub const INVALID_IMAGE_NAME: &str = "InvalidImageName";
    /// Waiting: a ConfigMap, Secret or field it needs is missing.
    pub const CREATE_CONFIG_ERROR: &str = "CreateContainerConfigError";
    /// Waiting: the runtime refused to make it.
    pub const CREATE_ERROR: &str = "CreateContainerError";
    /// Waiting or terminated: the runtime could not start it.
    pub const RUN_ERROR: &str = "RunContainerError";
    /// Terminated: the runtime could not start it.
    pub const START_ERROR: &str = "StartError";
    /// Terminated with exit code 0.
    pub const COMPLETED: &str = "Completed";
    /// Terminated with another exit code.
    pub const ERROR: &str = "Error";
    /// Terminated by the kernel for lack of memory.
    pub const OOM_KILLED: &str = "OOMKilled";
    /// Terminated: nobody knows how it ended.
    pub const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";
}

/// Events and conditions about nodes.
pub mod node {
    /// The node controller saw a new node.
    pub const REGISTERED: &str = "RegisteredNode";
    /// The agent started.
    pub const STARTING: &str = "Starting";
    /// The node became ready.
    pub const NODE_READY: &str = "NodeReady";
    /// The node became not ready.
    pub const NODE_NOT_READY: &str = "NodeNotReady";
    /// Reason of the Ready condition when true.
    pub const KUBELET_READY: &str = "KubeletReady";
    /// Reason of the Ready condition when false.
    pub const KUBELET_NOT_READY: &str = "KubeletNotReady";
    /// Reason of all conditions once the agent is not heard of.
    pub const STATUS_UNKNOWN: &str = "NodeStatusUnknown";
    /// Reason of MemoryPressure when false.
    pub const SUFFICIENT_MEMORY: &str = "KubeletHasSufficientMemory";
    /// Reason of MemoryPressure when true.
    pub const INSUFFICIENT_MEMORY: &str = "KubeletHasInsufficientMemory";
    /// Reason of DiskPressure when false.
    pub const NO_DISK_PRESSURE: &str = "KubeletHasNoDiskPressure";
    /// Reason of DiskPressure when true.
    pub const DISK_PRESSURE: &str = "KubeletHasDiskPressure";
    /// Reason of PIDPressure when false.
    pub const SUFFICIENT_PID: &str = "KubeletHasSufficientPID";
    /// Reason of PIDPressure when true.
    pub const INSUFFICIENT_PID: &str = "KubeletHasInsufficientPID";
    /// The node was cordoned.
    pub const NOT_SCHEDULABLE: &str = "NodeNotSchedulable";
    /// The node was uncordoned.
    pub const SCHEDULABLE: &str = "NodeSchedulable";
}

/// Events and conditions about workloads.
pub mod workload {
    /// A Deployment changed the size of a ReplicaSet.
    pub const SCALING_REPLICA_SET: &str = "ScalingReplicaSet";
    /// A pod was created.
    pub const SUCCESSFUL_CREATE: &str = "SuccessfulCreate";
    /// A pod could not be created.
    pub const FAILED_CREATE: &str = "FailedCreate";
    /// A pod was deleted.
    pub const SUCCESSFUL_DELETE: &str = "SuccessfulDelete";
    /// A pod could not be deleted.
    pub const FAILED_DELETE: &str = "FailedDelete";
    /// Deployment Progressing: a new ReplicaSet was made.
    pub const NEW_REPLICA_SET: &str = "NewReplicaSetCreated";
    /// Deployment Progressing: the new ReplicaSet was there already.
    pub const FOUND_NEW_REPLICA_SET: &str = "FoundNewReplicaSet";
    /// Deployment Progressing: pods were updated.
    pub const REPLICA_SET_UPDATED: &str = "ReplicaSetUpdated";
    /// Deployment Progressing: the rollout is complete.
    pub const NEW_REPLICA_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
    /// Deployment Progressing: no progress within the deadline.
    pub const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
    /// Deployment Progressing: paused.
    pub const DEPLOYMENT_PAUSED: &str = "DeploymentPaused";
    /// Deployment Progressing: resumed.
    pub const DEPLOYMENT_RESUMED: &str = "DeploymentResumed";
    /// Deployment Available when true.
    pub const MINIMUM_REPLICAS_AVAILABLE: &str = "MinimumReplicasAvailable";
    /// Deployment Available when false.
    pub const MINIMUM_REPLICAS_UNAVAILABLE: &str = "MinimumReplicasUnavailable";
}
