//! Whether the kernel killed for memory in a container's cgroup.
//!
//! In: the cgroup's files, which stay until the task is deleted. Out: one answer, the same before and after a restart.

use std::path::Path;

/// True when the cgroup's limit killed a process in it.
pub(crate) fn oom_killed(root: &Path, cgroup: &str) -> bool {
    let cgroup = cgroup.trim_start_matches('/');
    [root.join("memory").join(cgroup).join("memory.oom_control"), root.join(cgroup).join("memory.events")]
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .any(|text| kills(&text) > 0)
}

/// Both versions word it alike: a line `oom_kill <count>`.
fn kills(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_on_both_versions() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(kills("low 0\nhigh 0\nmax 31\noom 1\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(kills("oom_kill 0\n"), 0);
        assert_eq!(kills(""), 0);
    }
}
