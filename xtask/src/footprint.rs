//! What a cluster could leave behind on the host: read before and after, and compared.
//!
//! In: the host. Out: names of namespaces, links, mounts, cgroups, processes and files, and the difference of two readings.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cgroup;

/// Folders of the system in which nothing of ours may stay.
const WATCHED: &[&str] = &["/run", "/var/lib", "/var/log", "/etc", "/sys/fs/bpf", "/opt", "/usr/local/bin"];
const DEPTH: usize = 3;

/// One reading. Every entry says what kind of thing it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Footprint(BTreeSet<String>);

impl Footprint {
    /// Reads the host, leaving out what lies below `own` (the folders the project may write to).
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn read(own: &[&Path]) -> Result<Self> {
        let mut found = BTreeSet::new();
        for link in fs::read_dir("/sys/class/net")?.flatten() {
            found.insert(format!("link {}", link.file_name().to_string_lossy()));
        }
        for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
            found.insert(format!("mount {}", line.split(' ').nth(4).unwrap_or_default()));
        }
        for hierarchy in cgroup::hierarchies()? {
            collect("cgroup", &hierarchy.mount, 2, own, &mut found);
        }
        for root in WATCHED {
            collect("file", Path::new(root), DEPTH, own, &mut found);
        }
        for entry in fs::read_dir("/tmp")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains("xebec") || name.contains("containerd") {
                found.insert(format!("file /tmp/{name}"));
            }
        }
        for entry in fs::read_dir("/proc")?.flatten() {
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            // `pid (name) state …`; the name may hold anything.
            let Some((name, rest)) = stat.split_once('(').and_then(|(_, stat)| stat.rsplit_once(") ")) else {
                continue;
            };
            // What has ended and only waits for its parent (this process, after `up`) to ask how.
            let ended = rest.starts_with('Z');
            if !ended && ["xebec", "containerd", "runc", "xtask"].iter().any(|ours| name.starts_with(ours)) {
                found.insert(format!("process {name}"));
            }
        }
        Ok(Self(found))
    }

    /// What is in `after` and was not in `self`.
    pub fn added(&self, after: &Self) -> Vec<String> {
        after.0.difference(&self.0).cloned().collect()
    }
}

fn collect(kind: &str, dir: &Path, depth: usize, own: &[&Path], found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path: PathBuf = entry.path();
        if own.iter().any(|own| path.starts_with(own)) {
            continue;
        }
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        if kind == "file" || is_dir {
            found.insert(format!("{kind} {}", path.display()));
        }
        if is_dir && depth > 1 {
            collect(kind, &path, depth - 1, own, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_counts() {
        let reading = |names: &[&str]| Footprint(names.iter().map(|n| (*n).to_owned()).collect());
        let before = reading(&["link lo", "link eth0"]);
        assert_eq!(before.added(&reading(&["link lo", "link xb-1"])), ["link xb-1"]);
    }
}
