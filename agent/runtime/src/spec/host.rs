//! What this host can do for containers.
//!
//! In: procfs and the cgroup hierarchies, read once. Out: [`HostFacts`].

use std::path::Path;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// Bit of CAP_SYS_RESOURCE.
const SYS_RESOURCE: u32 = 24;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostFacts {
    /// Only cgroup v2.
    pub(crate) unified_cgroups: bool,
    /// Swap can be limited.
    pub(crate) swap_accounting: bool,
    /// Our own capabilities, as a kernel bit mask: a container cannot get others.
    pub(crate) capabilities: u64,
    /// The lowest oom_score_adj that can be given; `None` = any.
    pub(crate) lowest_oom_score_adj: Option<i32>,
}

// === impl HostFacts ===

impl HostFacts {
    pub(crate) fn read(cgroup_root: &Path) -> Self {
        let unified = statfs(cgroup_root).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let capabilities = effective_capabilities(&read("/proc/self/status"));
        let own_adj = read("/proc/self/oom_score_adj").trim().parse().unwrap_or(0);
        let may_lower = capabilities & (1 << SYS_RESOURCE) != 0;
        Self {
            unified_cgroups: unified,
            swap_accounting: swap_accounting(cgroup_root, unified),
            capabilities,
            lowest_oom_score_adj: (!may_lower).then_some(own_adj),
        }
    }
}

fn effective_capabilities(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// On v2 the root group has no limits, so one of its children is asked.
fn swap_accounting(cgroup_root: &Path, unified: bool) -> bool {
    if !unified {
        return cgroup_root.join("memory/memory.memsw.limit_in_bytes").exists();
    }
    let Ok(children) = std::fs::read_dir(cgroup_root) else { return false };
    children.flatten().any(|child| child.path().join("memory.swap.max").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_status_file() {
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t000001fffeffffff\n"), 0x1_ff_fe_ff_ff_ff);
        assert_eq!(effective_capabilities(""), 0);
    }
}
