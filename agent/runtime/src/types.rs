//! The seam between `kubelet` and the container runtime: plain types and the trait that a fake implements in tests.
//!
//! In: what to run. Out: what runs. No I/O here.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use crate::error::{PullError, RuntimeError};

/// Which run of which container of which pod. The container id is a hash of it, so that an agent that lost its
/// memory finds what it made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerKey {
    pub pod_uid: String,
    pub container: String,
    /// 0 for the first run, +1 per restart.
    pub attempt: u32,
}

/// containerd's id of a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(pub String);

/// An unpacked image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of the image configuration: `sha256:…` (`status.containerStatuses[].imageID` is made of `repo_digest`).
    pub id: String,
    /// References that name it.
    pub names: Vec<String>,
    /// `repository@sha256:…` of the manifest.
    pub repo_digest: String,
    /// Compressed size in bytes.
    pub size: u64,
    /// User as the image configuration words it: `uid[:gid]` or names.
    pub user: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    pub stop_signal: Option<String>,
}

/// Name and secret for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryAuth {
    pub username: String,
    pub password: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// As written in the manifest: `nginx`, `nginx:1.2`, `repo/x@sha256:…`.
    pub image: String,
    /// Tried in order, then anonymously.
    pub auth: Vec<RegistryAuth>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MountPropagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

/// A bind mount into the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    pub read_only: bool,
    pub propagation: MountPropagation,
}

/// cgroup limits of one container, in the kernel's units.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Resources {
    /// cgroup v1 `cpu.shares` (2..=262144); converted to `cpu.weight` on v2.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU per period.
    pub cpu_quota: Option<i64>,
    /// Microseconds, normally 100 000.
    pub cpu_period: Option<u64>,
    /// Bytes.
    pub memory_limit: Option<i64>,
    pub oom_score_adj: Option<i32>,
    pub pids_limit: Option<i64>,
}

/// Seccomp profile of a container (`securityContext.seccompProfile`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Seccomp {
    /// The runtime's default profile; also what an unset profile gets.
    #[default]
    RuntimeDefault,
    Unconfined,
    /// A profile below the node's folder for them.
    Localhost(PathBuf),
}

/// Security settings after pod and container level were merged by `kubelet`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Security {
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_non_root: bool,
    pub supplemental_groups: Vec<i64>,
    pub privileged: bool,
    pub read_only_root_filesystem: bool,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub seccomp: Seccomp,
    /// `procMount: Unmasked`.
    pub unmasked_proc: bool,
    pub sysctls: BTreeMap<String, String>,
}

/// Namespaces and cgroup a container joins.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PodSandbox {
    /// Pinned files; `None` = the host's namespace.
    pub netns: Option<PathBuf>,
    pub ipcns: Option<PathBuf>,
    pub utsns: Option<PathBuf>,
    /// Where the pod's `/dev/shm` is, shared by its containers: the host's, or one that is mounted when a container needs
    /// it. `None`: the container has one of its own.
    pub shm: Option<PathBuf>,
    pub host_pid: bool,
    /// Join the PID namespace of this container (shareProcessNamespace, ephemeral containers).
    pub pid_of: Option<ContainerId>,
    /// cgroup of the pod relative to the hierarchy roots, for example `/xebec-1/n1/kubepods/burstable/pod<uid>`.
    pub cgroup_parent: String,
}

/// All that is needed to make one container; nothing is looked up later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerConfig {
    pub key: ContainerKey,
    pub pod_namespace: String,
    pub pod_name: String,
    pub sandbox: PodSandbox,
    /// An image that is present.
    pub image: Image,
    /// `command`; empty = the image's entrypoint.
    pub command: Vec<String>,
    /// `args`; empty = the image's cmd, unless `command` is set.
    pub args: Vec<String>,
    /// Empty = the image's.
    pub working_dir: String,
    /// On top of the image's environment, later entries win.
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub resources: Resources,
    pub security: Security,
    pub stdin: bool,
    pub tty: bool,
    /// CRI log file, `…/<container>/<attempt>.log`; its folder exists.
    pub log_path: PathBuf,
    /// Rotate at this many bytes (`containerLogMaxSize`), keeping `log_max_files` files.
    pub log_max_size: u64,
    pub log_max_files: u32,
    /// Extra labels to keep with the container (a hash of its spec, its restart policy, its termination message path).
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    Created,
    Running {
        pid: u32,
        started_at: SystemTime,
    },
    Exited {
        code: i32,
        signal: Option<i32>,
        started_at: Option<SystemTime>,
        finished_at: SystemTime,
        oom_killed: bool,
    },
    /// The container record exists, its task is gone and no exit was recorded (containerd was killed).
    Unknown,
}

/// A container as the runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub id: ContainerId,
    pub key: ContainerKey,
    pub pod_namespace: String,
    pub pod_name: String,
    pub image_id: String,
    pub image_name: String,
    pub created_at: SystemTime,
    pub state: ContainerState,
    pub labels: BTreeMap<String, String>,
}

/// What happened to a container. Events of different containers may come out of order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEvent {
    Started {
        id: ContainerId,
    },
    Exited {
        id: ContainerId,
    },
    OomKilled {
        id: ContainerId,
    },
    /// The stream broke or began: events may be missing, list everything again.
    Gap,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    pub exit_code: i32,
    /// At most 16 KiB of stdout and stderr together, as probes report them.
    pub output: Vec<u8>,
}

/// The runtime as `kubelet` uses it. Every call is idempotent and bounded in time.
pub trait ContainerRuntime: Clone + Send + Sync + 'static {
    /// Name and version for `status.nodeInfo.containerRuntimeVersion`: `containerd://1.6.20`.
    fn version(&self) -> impl Future<Output = Result<String, RuntimeError>> + Send;
    /// A present, unpacked image.
    fn image(&self, reference: &str) -> impl Future<Output = Result<Option<Image>, RuntimeError>> + Send;
    fn images(&self) -> impl Future<Output = Result<Vec<Image>, RuntimeError>> + Send;
    fn pull(&self, request: &PullRequest) -> impl Future<Output = Result<Image, PullError>> + Send;
    fn remove_image(&self, reference: &str) -> impl Future<Output = Result<(), RuntimeError>> + Send;
    /// Makes snapshot, container and task (state `Created`). Finds its own half-made work and completes or redoes it.
    fn create(
        &self,
        config: &ContainerConfig,
    ) -> impl Future<Output = Result<ContainerId, RuntimeError>> + Send;
    fn start(&self, id: &ContainerId) -> impl Future<Output = Result<(), RuntimeError>> + Send;
    /// Sends a signal to the container's first process; no error when it is gone.
    fn signal(&self, id: &ContainerId, signal: i32) -> impl Future<Output = Result<(), RuntimeError>> + Send;
    /// Kills what is left and removes task, container and snapshot; no error when they are gone.
    fn remove(&self, id: &ContainerId) -> impl Future<Output = Result<(), RuntimeError>> + Send;
    fn container(
        &self,
        id: &ContainerId,
    ) -> impl Future<Output = Result<Option<Container>, RuntimeError>> + Send;
    fn containers(&self) -> impl Future<Output = Result<Vec<Container>, RuntimeError>> + Send;
    /// A stream that begins with [`RuntimeEvent::Gap`] and reconnects by itself, saying `Gap` after each break.
    fn events(&self) -> mpsc::Receiver<RuntimeEvent>;
    /// Runs a command to its end in a container.
    fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> impl Future<Output = Result<ExecOutput, RuntimeError>> + Send;
}
