//! One mounted cgroup hierarchy, v1 or v2, and its knobs.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{CgroupError, write};
use crate::resources::CgroupLimits;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    mount: PathBuf,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    V1 {
        controllers: BTreeSet<String>,
    },
    /// Beside v1 hierarchies it may have no controller at all.
    V2,
}

/// Hierarchies in `/proc/self/mountinfo`; each once, at its first mount point.
pub(super) fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let (Some(fs_type), _, Some(options)) = (right.next(), right.next(), right.next()) else { continue };
        let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
        let kind = match fs_type {
            "cgroup" => {
                let all = options.split(',').filter(|o| !["rw", "ro", "xattr", "clone_children"].contains(o));
                Kind::V1 { controllers: all.map(str::to_owned).collect() }
            }
            "cgroup2" => Kind::V2,
            _ => continue,
        };
        if !found.iter().any(|h| h.kind == kind) {
            found.push(Hierarchy { mount, kind });
        }
    }
    found
}

impl Hierarchy {
    #[cfg(test)]
    pub(super) fn fake(mount: &Path) -> Self {
        Self { mount: mount.to_owned(), kind: Kind::V2 }
    }

    /// The kubelet sets something here. The others are filled by the runtime and only cleaned here.
    pub(super) fn is_used(&self) -> bool {
        self.has("cpu") || self.has("memory") || self.has("pids") || self.kind == Kind::V2
    }

    pub(super) fn has(&self, controller: &str) -> bool {
        match &self.kind {
            Kind::V1 { controllers } => controllers.contains(controller),
            Kind::V2 => false,
        }
    }

    /// cgroup v2, beside v1 or alone.
    pub(super) fn is_unified(&self) -> bool {
        self.kind == Kind::V2
    }

    pub(super) fn dir(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Makes `path` and, on v2, hands the controllers down to it from `root`.
    pub(super) fn make(&self, root: &str, path: &str) -> Result<(), CgroupError> {
        let dir = self.dir(path);
        if !dir.is_dir() {
            fs::create_dir_all(&dir).map_err(CgroupError::at(&dir))?;
        }
        if self.kind != Kind::V2 {
            return Ok(());
        }
        let mut at = self.dir(root);
        delegate(&at)?;
        let below = path.strip_prefix(root).unwrap_or(path);
        for part in below.split('/').filter(|p| !p.is_empty()) {
            at.push(part);
            delegate(&at)?;
        }
        Ok(())
    }

    pub(super) fn limit(&self, path: &str, limits: &CgroupLimits) -> Result<(), CgroupError> {
        let dir = self.dir(path);
        let set = |file: &str, value: Option<String>| match value {
            Some(value) if dir.join(file).exists() => write(&dir.join(file), &value),
            _ => Ok(()),
        };
        match &self.kind {
            Kind::V2 => {
                set("cpu.weight", limits.cpu_shares.map(|s| weight(s).to_string()))?;
                set("cpu.max", limits.cpu_quota.map(|q| format!("{q} 100000")))?;
                set("memory.max", limits.memory.map(|m| m.to_string()))?;
                set("pids.max", limits.pids.map(|p| p.to_string()))
            }
            Kind::V1 { .. } => {
                if self.has("cpu") {
                    set("cpu.shares", limits.cpu_shares.map(|s| s.to_string()))?;
                    set("cpu.cfs_quota_us", limits.cpu_quota.map(|q| q.to_string()))?;
                }
                if self.has("memory") {
                    set("memory.limit_in_bytes", limits.memory.map(|m| m.to_string()))?;
                }
                if self.has("pids") {
                    set("pids.max", limits.pids.map(|p| p.to_string()))?;
                }
                Ok(())
            }
        }
    }

    /// Removes `path` with what the runtime left below it.
    pub(super) fn remove(&self, path: &str) -> Result<(), CgroupError> {
        remove_dir(&self.dir(path))
    }
}

/// Lets the children of `dir` have the controllers it has itself.
fn delegate(dir: &Path) -> Result<(), CgroupError> {
    let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
    let has: BTreeSet<String> =
        read("cgroup.subtree_control").split_whitespace().map(str::to_owned).collect();
    let missing: Vec<String> = read("cgroup.controllers")
        .split_whitespace()
        .filter(|c| ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"].contains(c) && !has.contains(*c))
        .map(|c| format!("+{c}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    write(&dir.join("cgroup.subtree_control"), &missing.join(" "))
}

fn remove_dir(dir: &Path) -> Result<(), CgroupError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(CgroupError::at(dir)(error)),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_dir(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(CgroupError::at(dir)(error)),
        _ => Ok(()),
    }
}

/// `cpu.weight` of cgroup v1 shares, as the runtime converts them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_pure_hosts_are_told_apart() {
        let hybrid = "\
30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
34 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
35 30 0:30 / /elsewhere/memory rw - cgroup cgroup rw,memory\n\
36 30 0:31 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n";
        let found = parse(hybrid);
        assert_eq!(found.len(), 4);
        assert!(found.iter().any(|h| h.has("cpu")));
        assert_eq!(found.iter().filter(|h| h.is_used()).count(), 3);
        let memory = found.iter().find(|h| h.has("memory")).unwrap();
        assert_eq!(memory.dir("/a/b"), PathBuf::from("/sys/fs/cgroup/memory/a/b"));
        let pure = parse("31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(pure[0].kind, Kind::V2);
    }

    #[test]
    fn weights_span_the_range_of_shares() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }

    #[test]
    fn limits_are_written_and_folders_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let h = Hierarchy { mount: tmp.path().to_owned(), kind: Kind::V2 };
        h.make("/root", "/root/kubepods/podx").unwrap();
        let dir = tmp.path().join("root/kubepods/podx");
        fs::write(dir.join("cpu.weight"), "").unwrap();
        let limits = CgroupLimits { cpu_shares: Some(1024), memory: Some(5), ..CgroupLimits::default() };
        h.limit("/root/kubepods/podx", &limits).unwrap();
        assert_eq!(fs::read_to_string(dir.join("cpu.weight")).unwrap(), "39");
        assert!(!dir.join("memory.max").exists(), "a knob the kernel does not offer is left out");
        fs::remove_file(dir.join("cpu.weight")).unwrap();
        h.remove("/root/kubepods/podx").unwrap();
        h.remove("/root/kubepods/podx").unwrap();
        assert!(!dir.exists());
    }
}
