//! The cgroups of a development cluster: `xebec-<id>/<member>/system/<program>` in every mounted hierarchy.
//!
//! In: a cluster's name and members. Out: folders in cgroup v1 hierarchies and in the cgroup v2 tree. Cgroups the
//! cluster did not make are never touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A mounted cgroup tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount: PathBuf,
    pub unified: bool,
}

/// All cgroup trees of this host.
///
/// # Errors
/// When none is mounted.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let found = parse_hierarchies(&mounts);
    if found.is_empty() {
        bail!("no cgroup file system is mounted: mount cgroup2 at /sys/fs/cgroup");
    }
    Ok(found)
}

fn parse_hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mount = PathBuf::from(left.split(' ').nth(4)?);
            let unified = match right.split(' ').next()? {
                "cgroup" => false,
                "cgroup2" => true,
                _ => return None,
            };
            Some(Hierarchy { mount, unified })
        })
        .collect()
}

/// Makes `path` (relative to the trees' roots) in every hierarchy, ready to take processes.
///
/// # Errors
/// When a folder cannot be made: not root, or the tree is read-only.
pub fn create(path: &Path) -> Result<()> {
    for hierarchy in hierarchies()? {
        let mut at = hierarchy.mount.clone();
        for part in path {
            if hierarchy.unified {
                delegate(&at);
            }
            let parent = at.clone();
            at.push(part);
            if !at.exists() {
                fs::create_dir(&at)
                    .with_context(|| format!("making cgroup {}: are you root?", at.display()))?;
            }
            // cpuset (v1) starts empty and takes no process until it names CPUs and memory nodes.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if !hierarchy.unified && at.join(file).exists() {
                    fs::write(at.join(file), fs::read_to_string(parent.join(file))?)?;
                }
            }
        }
    }
    Ok(())
}

/// Lets children of a v2 cgroup use its controllers; those it lacks are skipped.
fn delegate(at: &Path) {
    for controller in ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"] {
        // A controller may be bound to a v1 hierarchy or absent: the cluster works without.
        fs::write(at.join("cgroup.subtree_control"), format!("+{controller}")).ok();
    }
}

/// Moves the calling process into `path` of every hierarchy.
///
/// # Errors
/// When the cgroup does not exist.
pub fn join(path: &Path) -> Result<()> {
    for hierarchy in hierarchies()? {
        let procs = hierarchy.mount.join(path).join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("joining {}", procs.display()))?;
    }
    Ok(())
}

/// Every process below `path` in any hierarchy.
pub fn processes(path: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for hierarchy in hierarchies()? {
        for cgroup in below(&hierarchy.mount.join(path)) {
            let listed = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            pids.extend(listed.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|pid| *pid > 0));
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Removes the cgroups of test suites that have ended, with all that they left running. Those of live ones stay.
///
/// # Errors
/// As [`destroy`].
pub fn destroy_test_cgroups() -> Result<()> {
    for hierarchy in hierarchies()? {
        for path in below(&hierarchy.mount) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let pid = name.strip_prefix("xebec-test-").map(|rest| rest.split('-').next().unwrap_or_default());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                destroy(path.strip_prefix(&hierarchy.mount)?)?;
            }
        }
    }
    Ok(())
}

/// Kills every process below `path` and removes the cgroups.
///
/// # Errors
/// When a process does not die within 15 s.
pub fn destroy(path: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let pids = processes(path)?;
        for pid in &pids {
            // It may have ended by itself meanwhile.
            kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
        }
        if remove(path) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("processes {pids:?} in cgroup {} do not end", path.display());
        }
        nix::poll::poll(&mut [], 20_u16).ok();
    }
}

/// Removes the cgroups bottom-up; false while any still holds a process.
fn remove(path: &Path) -> bool {
    let Ok(hierarchies) = hierarchies() else { return false };
    let mut gone = true;
    for hierarchy in hierarchies {
        for cgroup in below(&hierarchy.mount.join(path)) {
            fs::remove_dir(&cgroup).ok();
            gone &= !cgroup.exists();
        }
    }
    gone
}

/// `root` and every cgroup under it, deepest first.
fn below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(entries) = fs::read_dir(root) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                found.extend(below(&entry.path()));
            }
        }
        found.push(root.to_path_buf());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_cgroup_versions_are_found_in_mountinfo() {
        let text = "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                    31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    32 25 0:28 / /run rw - tmpfs tmpfs rw\n";
        let found = parse_hierarchies(text);
        assert_eq!(found.iter().map(|h| h.unified).collect::<Vec<_>>(), [false, true]);
        assert_eq!(found[1].mount, Path::new("/sys/fs/cgroup/unified"));
    }
}
