//! What must be true of the host before anything is made.
//!
//! In: the host. Out: nothing, or one sentence per lack that says how to mend it.

use std::path::Path;

use anyhow::{Result, bail};
use nix::sys::statvfs::statvfs;

use crate::build;
use crate::layout::Cluster;

/// socket LB's `getpeername` hooks and bpf_redirect_peer came with 5.8 and 5.10.
const MIN_KERNEL: (u32, u32) = (5, 10);
const MIN_FREE_BYTES: u64 = 3 << 30;

pub fn check(cluster: &Cluster) -> Result<()> {
    let mut lacks = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        lacks.push("not root: namespaces, mounts and eBPF need it; run with `sudo -E`".to_owned());
    }
    let kernel = build::kernel()?;
    if kernel < MIN_KERNEL {
        lacks.push(format!("kernel {}.{} is too old: 5.10 or newer is needed", kernel.0, kernel.1));
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        lacks.push(
            "the kernel has no BTF (/sys/kernel/btf/vmlinux): boot one with CONFIG_DEBUG_INFO_BTF=y"
                .to_owned(),
        );
    }
    if !Path::new("/sys/fs/bpf").exists() {
        lacks.push("/sys/fs/bpf is missing: boot a kernel with CONFIG_BPF_SYSCALL=y".to_owned());
    }
    for hidden in ["/run", "/var/log"] {
        if cluster.dir.starts_with(hidden) {
            lacks.push(format!("--dir may not be below {hidden}: nodes have a private one"));
        }
    }
    let existing = cluster.dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let disk = statvfs(existing)?;
    let free = disk.blocks_available() * disk.fragment_size();
    if free < MIN_FREE_BYTES {
        lacks.push(format!(
            "{} has {} MiB free: 3 GiB are needed; make room or choose another --dir",
            existing.display(),
            free >> 20
        ));
    }
    if lacks.is_empty() {
        return Ok(());
    }
    bail!("this host cannot run a cluster:\n  - {}", lacks.join("\n  - "))
}
