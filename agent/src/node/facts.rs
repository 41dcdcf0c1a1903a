//! What the host is and has.
//!
//! In: /proc, /etc/os-release, statvfs. Out: capacity, pressure, names and versions. Read again whenever asked.

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::NodeSystemInfo;
use nix::sys::statvfs::statvfs;

use super::eviction::Thresholds;

/// What pods can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub cpus: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes of the file system that holds pods' folders.
    pub ephemeral_storage: u64,
    pub pods: u32,
}

/// Which resources run short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pids: bool,
}

impl Capacity {
    /// # Errors
    /// When /proc or the state folder cannot be read.
    pub fn read(state_dir: &Path, pods: u32) -> Result<Self> {
        let disk =
            statvfs(state_dir).with_context(|| format!("reading the size of {}", state_dir.display()))?;
        Ok(Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory: meminfo("MemTotal:")?,
            ephemeral_storage: disk.blocks() * disk.fragment_size(),
            pods,
        })
    }
}

impl Pressure {
    /// # Errors
    /// As [`Capacity::read`].
    pub fn read(state_dir: &Path, thresholds: &Thresholds) -> Result<Self> {
        let disk =
            statvfs(state_dir).with_context(|| format!("reading the room in {}", state_dir.display()))?;
        let room = disk.blocks_available() * disk.fragment_size();
        let (pids_left, all_pids) = pids().unwrap_or((u64::MAX, u64::MAX));
        Ok(Self {
            memory: thresholds.memory_available.exceeds(meminfo("MemAvailable:")?, meminfo("MemTotal:")?),
            disk: thresholds.nodefs_available.exceeds(room, disk.blocks() * disk.fragment_size())
                || (disk.files() > 0
                    && thresholds.nodefs_inodes_free.exceeds(disk.files_available(), disk.files())),
            pids: thresholds.pid_available.exceeds(pids_left, all_pids),
        })
    }
}

fn meminfo(key: &str) -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .with_context(|| format!("/proc/meminfo has no {key}"))?;
    Ok(kib * 1024)
}

/// Process ids left, and all.
fn pids() -> Option<(u64, u64)> {
    let max: u64 = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok()?;
    // The fourth field is `running/all` tasks.
    let loadavg = std::fs::read_to_string("/proc/loadavg").ok()?;
    let tasks: u64 = loadavg.split(' ').nth(3)?.split('/').nth(1)?.parse().ok()?;
    Some((max.saturating_sub(tasks), max))
}

/// `status.nodeInfo`.
pub fn system_info(runtime_version: &str) -> NodeSystemInfo {
    let read = |path: &str| std::fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
    let os_release = read("/etc/os-release");
    let pretty = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    let kubelet = format!("v1.37.0+xebec-{}", env!("CARGO_PKG_VERSION"));
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime_version.to_owned(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: kubelet,
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".to_owned(),
        os_image: pretty.trim_matches('"').to_owned(),
        system_uuid: read("/sys/class/dmi/id/product_uuid"),
        ..NodeSystemInfo::default()
    }
}

/// Go's name of this architecture, which labels and image manifests use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
