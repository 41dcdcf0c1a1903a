//! Settings of the runtime.
//!
//! In: the agent's configuration. Out: plain values with defaults that fit a stock containerd.

use std::path::PathBuf;
use std::time::Duration;

/// Where containerd is and how to use it.
#[derive(Clone, Debug)]
pub struct ContainerdConfig {
    pub socket: PathBuf,
    /// containerd namespace that holds everything of ours.
    pub namespace: String,
    pub snapshotter: String,
    /// Program with the `log-sink` subcommand (see [`crate::log_sink`]): the agent's own binary.
    pub log_sink: PathBuf,
    /// runc's state folder. A tmpfs; one per containerd.
    pub runc_root: PathBuf,
    /// runc to use; `None` = the one in containerd's PATH.
    pub runc_binary: Option<PathBuf>,
    /// Folder for FIFOs and other things that live as long as a boot.
    pub run_dir: PathBuf,
    /// A folder on the disk that holds the images: one that is larger than what is free there is not pulled.
    pub image_dir: Option<PathBuf>,
    /// Seccomp profiles that pods may name (`localhostProfile`).
    pub seccomp_dir: PathBuf,
    /// Where the cgroup hierarchies are mounted.
    pub cgroup_root: PathBuf,
    /// Mirrors; a registry without an entry is asked directly.
    pub registries: Vec<RegistryHost>,
    pub timeouts: Timeouts,
}

/// How to reach one registry: the essence of containerd's `hosts.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryHost {
    /// Registry as image references name it (`docker.io`), or `_default` for all without an entry of their own.
    pub registry: String,
    /// Tried in order before the registry itself: `http://10.0.0.1:5000`, `https://mirror.example`. Credentials are
    /// never sent to a mirror.
    pub mirrors: Vec<String>,
    /// Ask nobody but the mirrors.
    pub mirrors_only: bool,
}

/// Bounds of every wait.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// A call that only reads or writes containerd's metadata.
    pub metadata: Duration,
    /// A call that runs runc or waits for a process that was killed.
    pub task: Duration,
    /// Unpacking one layer.
    pub unpack: Duration,
    /// How long calls are repeated while containerd cannot be reached.
    pub unreachable: Duration,
    /// Connecting to a registry.
    pub registry_connect: Duration,
    /// A registry that sends nothing for so long has failed.
    pub registry_progress: Duration,
}

impl Default for ContainerdConfig {
    fn default() -> Self {
        Self {
            socket: "/run/containerd/containerd.sock".into(),
            namespace: "k8s.io".into(),
            snapshotter: "overlayfs".into(),
            log_sink: "/usr/bin/xebec-agent".into(),
            runc_root: "/run/xebec/runc".into(),
            runc_binary: None,
            run_dir: "/run/xebec/runtime".into(),
            image_dir: None,
            seccomp_dir: "/var/lib/xebec/seccomp".into(),
            cgroup_root: "/sys/fs/cgroup".into(),
            registries: Vec::new(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            metadata: Duration::from_secs(10),
            task: Duration::from_secs(120),
            unpack: Duration::from_secs(600),
            unreachable: Duration::from_secs(10),
            registry_connect: Duration::from_secs(10),
            registry_progress: Duration::from_secs(60),
        }
    }
}
