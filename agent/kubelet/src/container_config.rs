//! Everything the runtime needs to make one container.
//!
//! In: Pod, container, image, environment, mounts, network. Out: [`ContainerConfig`]. Files that the kubelet mounts
//! into every container (`/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`, the termination log) are made here.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use xebec_network::types::PodNetwork;
use xebec_runtime::types::{
    ContainerConfig, ContainerId, ContainerKey, Image, Mount, MountPropagation, PodSandbox, Security,
};

use crate::config::KubeletConfig;
use crate::dns::{self, ResolvConf};
use crate::hosts::{self, HostName};
use crate::pod;
use crate::resources;
use crate::volume::PodDirs;

/// Label with the fingerprint of the spec a container was made from.
pub const LABEL_SPEC_HASH: &str = "xebec.io/spec-hash";

/// Label with `status.containerStatuses[].imageID`: the repository and the digest it was pulled by.
pub const LABEL_IMAGE_ID: &str = "xebec.io/image-id";

pub(crate) const DEFAULT_TERMINATION_LOG: &str = "/dev/termination-log";

/// Parts that were made before.
pub(crate) struct Parts {
    pub(crate) image: Image,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) security: Security,
    pub(crate) network: PodNetwork,
    pub(crate) cgroup_parent: String,
    pub(crate) host_name: HostName,
    pub(crate) pid_of: Option<ContainerId>,
}

/// Folder of a pod's logs.
pub fn log_dir(config: &KubeletConfig, pod: &Pod) -> PathBuf {
    let name = format!("{}_{}_{}", pod::namespace(pod), pod::name(pod), pod::uid(pod));
    config.log_dir.join(name)
}

/// Log file of one run.
pub fn log_path(config: &KubeletConfig, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    log_dir(config, pod).join(container).join(format!("{attempt}.log"))
}

/// Writes the pod's own `/etc` files.
pub(crate) fn write_pod_files(
    config: &KubeletConfig,
    dirs: &PodDirs,
    pod: &Pod,
    network: &PodNetwork,
    name: &HostName,
) -> std::io::Result<()> {
    let dir = dirs.pod(&pod::uid(pod));
    fs::create_dir_all(&dir)?;
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let hosts = if pod::is_host_network(pod) {
        hosts::host_network_hosts_file(pod, &read(Path::new("/etc/hosts")))
    } else {
        hosts::hosts_file(pod, name, &network.addresses)
    };
    let node = ResolvConf::parse(&read(&config.resolv_conf));
    let resolv = dns::resolv_conf(pod, &config.cluster_dns, &node).render();
    write_if_changed(&dir.join("etc-hosts"), &hosts)?;
    write_if_changed(&dir.join("resolv.conf"), &resolv)?;
    write_if_changed(&dir.join("hostname"), &format!("{}\n", name.kernel))
}

/// In place: the file is mounted into containers that run.
fn write_if_changed(path: &Path, text: &str) -> std::io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// An empty file for the container's last words; each run has its own.
fn termination_log(dirs: &PodDirs, pod: &Pod, container: &str, attempt: u32) -> std::io::Result<PathBuf> {
    let dir = dirs.container(&pod::uid(pod), container);
    fs::create_dir_all(&dir)?;
    let path = dir.join(attempt.to_string());
    let options = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o666).open(&path)?;
    options.set_permissions(fs::Permissions::from_mode(0o666))?;
    Ok(path)
}

fn bind(host_path: PathBuf, container_path: &str) -> Mount {
    Mount {
        host_path,
        container_path: PathBuf::from(container_path),
        read_only: false,
        propagation: MountPropagation::Private,
    }
}

/// Puts it all together and makes the folders it names.
pub(crate) fn build(
    config: &KubeletConfig,
    dirs: &PodDirs,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    parts: Parts,
) -> std::io::Result<ContainerConfig> {
    let spec = pod.spec.as_ref();
    let dir = dirs.pod(&pod::uid(pod));
    let mut mounts = parts.mounts;
    let own = [
        (dir.join("etc-hosts"), "/etc/hosts"),
        (dir.join("resolv.conf"), "/etc/resolv.conf"),
        (dir.join("hostname"), "/etc/hostname"),
    ];
    let read_only = parts.security.read_only_root_filesystem;
    for (host_path, container_path) in own {
        if !mounts.iter().any(|m| m.container_path == Path::new(container_path)) {
            mounts.push(Mount { read_only, ..bind(host_path, container_path) });
        }
    }
    let message_path = container.termination_message_path.as_deref().filter(|p| !p.is_empty());
    let message_path = message_path.unwrap_or(DEFAULT_TERMINATION_LOG);
    mounts.push(bind(termination_log(dirs, pod, &container.name, attempt)?, message_path));
    let log_path = log_path(config, pod, &container.name, attempt);
    if let Some(parent) = log_path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut env = Vec::new();
    if !parts.env.iter().any(|(name, _)| name == "HOSTNAME") {
        env.push(("HOSTNAME".to_owned(), parts.host_name.kernel));
    }
    let tty = container.tty.unwrap_or(false);
    if tty && !parts.env.iter().any(|(name, _)| name == "TERM") {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    env.extend(parts.env);
    let lookup = |name: &str| env.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|word| crate::expansion::expand(word, lookup)).collect()
    };
    let labels = BTreeMap::from([
        (LABEL_SPEC_HASH.to_owned(), pod::spec_hash(container)),
        (LABEL_IMAGE_ID.to_owned(), parts.image.repo_digest.clone()),
    ]);
    let host_ipc = spec.and_then(|s| s.host_ipc).unwrap_or(false);
    let config = ContainerConfig {
        key: ContainerKey { pod_uid: pod::uid(pod).0, container: container.name.clone(), attempt },
        pod_namespace: pod::namespace(pod).to_owned(),
        pod_name: pod::name(pod).to_owned(),
        sandbox: PodSandbox {
            netns: parts.network.netns,
            ipcns: parts.network.ipcns,
            utsns: parts.network.utsns,
            shm: Some(if host_ipc { PathBuf::from("/dev/shm") } else { dir.join("shm") }),
            host_pid: spec.and_then(|s| s.host_pid).unwrap_or(false),
            pid_of: parts.pid_of,
            cgroup_parent: parts.cgroup_parent,
        },
        image: parts.image,
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        env,
        mounts,
        resources: resources::of_container(pod, container, config.capacity, config.pids_limit),
        security: parts.security,
        stdin: container.stdin.unwrap_or(false),
        tty,
        log_path,
        log_max_size: config.log_max_size,
        log_max_files: config.log_max_files,
        labels,
    };
    Ok(config)
}
