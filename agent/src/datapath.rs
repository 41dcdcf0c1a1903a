//! The datapath as this node configures it.
//!
//! In: flags. Out: an open datapath; the table that `xebec-agent drops` prints.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xebec_datapath::{Datapath, DatapathConfig};

use crate::cli::{DropsArgs, RunArgs};

/// Opens the datapath: adopts what is pinned, loads what is not.
///
/// # Errors
/// Names what the kernel or the host lacks.
pub fn open(args: &RunArgs) -> Result<Datapath> {
    let cgroup = cgroup2()?.join(args.cgroup_root.trim_start_matches('/'));
    if !cgroup.exists() {
        bail!("--cgroup-root {}: {} does not exist", args.cgroup_root, cgroup.display());
    }
    std::fs::create_dir_all(&args.bpffs).with_context(|| {
        format!("--bpffs {}: mount a bpffs (mount -t bpf bpf /sys/fs/bpf)", args.bpffs.display())
    })?;
    let mut config = DatapathConfig::new(args.bpffs.clone(), cgroup, args.node_ip.clone());
    config.uplink = Some(args.uplink.clone());
    Datapath::open(&config).context("opening the datapath")
}

pub fn print_drops(args: &DropsArgs) -> Result<()> {
    println!("{:<32} {:>16} {:>20}", "REASON", "PACKETS", "BYTES");
    for drop in Datapath::pinned_drops(&args.bpffs).context("reading the drop counters")? {
        println!("{:<32} {:>16} {:>20}", drop.reason, drop.packets, drop.bytes);
    }
    Ok(())
}

/// Where the cgroup2 hierarchy is mounted: alone, or beside v1 hierarchies.
fn cgroup2() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    mounts
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .and_then(|line| line.split(' ').nth(4))
        .map(|at| Path::new(at).to_path_buf())
        .context("no cgroup2 hierarchy is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
}
