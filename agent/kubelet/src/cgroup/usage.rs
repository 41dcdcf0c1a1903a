//! What a cgroup's processes have used, as its hierarchy counts it.
//!
//! In: a hierarchy and a path. Out: CPU time, memory, processes; `None` where it is not counted there.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::hierarchy::Hierarchy;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since the cgroup was made.
    pub cpu: Option<Duration>,
    pub memory: Option<MemoryUsage>,
    pub processes: Option<u64>,
}

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUsage {
    pub usage: u64,
    /// Without cached files that were not used lately: what cannot be had back without harm.
    pub working_set: u64,
    pub rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
}

pub(super) fn cpu(hierarchy: &Hierarchy, path: &str) -> Option<Duration> {
    let dir = hierarchy.dir(path);
    if hierarchy.is_unified() {
        return field(&dir.join("cpu.stat"), "usage_usec").map(Duration::from_micros);
    }
    number(&dir.join("cpuacct.usage")).map(Duration::from_nanos)
}

pub(super) fn memory(hierarchy: &Hierarchy, path: &str) -> Option<MemoryUsage> {
    let dir = hierarchy.dir(path);
    let (current, inactive, anonymous, total) = if hierarchy.is_unified() {
        ("memory.current", "inactive_file", "anon", "")
    } else if hierarchy.has("memory") {
        ("memory.usage_in_bytes", "total_inactive_file", "total_rss", "total_")
    } else {
        return None;
    };
    let usage = number(&dir.join(current))?;
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let field = |name: &str| of(&stat, name).unwrap_or_default();
    Some(MemoryUsage {
        usage,
        working_set: usage.saturating_sub(field(inactive)),
        rss: field(anonymous),
        page_faults: field(&format!("{total}pgfault")),
        major_page_faults: field(&format!("{total}pgmajfault")),
    })
}

pub(super) fn processes(hierarchy: &Hierarchy, path: &str) -> Option<u64> {
    if !hierarchy.is_unified() && !hierarchy.has("pids") {
        return None;
    }
    number(&hierarchy.dir(path).join("pids.current"))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn field(file: &Path, name: &str) -> Option<u64> {
    of(&fs::read_to_string(file).ok()?, name)
}

fn of(table: &str, name: &str) -> Option<u64> {
    let lines = table.lines().filter_map(|line| line.split_once(' '));
    lines.into_iter().find(|(known, _)| *known == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_a_unified_tree() {
        let tmp = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy::fake(tmp.path());
        let dir = tmp.path().join("pod");
        fs::create_dir(&dir).unwrap();
        assert_eq!((cpu(&hierarchy, "/pod"), memory(&hierarchy, "/pod")), (None, None));
        for (file, text) in [
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("memory.current", "1000\n"),
            ("memory.stat", "anon 400\nfile 600\ninactive_file 250\npgfault 7\npgmajfault 1\n"),
            ("pids.current", "3\n"),
        ] {
            fs::write(dir.join(file), text).unwrap();
        }
        assert_eq!(cpu(&hierarchy, "/pod"), Some(Duration::from_micros(1500)));
        let memory = memory(&hierarchy, "/pod").unwrap();
        assert_eq!((memory.usage, memory.working_set, memory.rss, memory.page_faults), (1000, 750, 400, 7));
        assert_eq!(processes(&hierarchy, "/pod"), Some(3));
    }
}
