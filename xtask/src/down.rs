//! `cargo xtask down`: takes away everything a cluster made outside its folder, and with `--purge` the folder too.
//!
//! In: the cluster's folder, which need not be whole: names derive from its path. Out: no namespace, link, mount,
//! cgroup or process of the cluster. Works after everything was killed, and twice.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cgroup;
use crate::command::output;
use crate::layout::{Cluster, Workspace};
use crate::namespace::{NETNS_DIR, pinned_netns, remove_netns};
use crate::progress::Progress;
use crate::tools::Tools;

/// What `down` was asked for.
pub struct DownOptions {
    pub dir: PathBuf,
    pub purge: bool,
}

/// # Errors
/// When not root, or a process cannot be killed.
pub fn down(options: &DownOptions) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("not root: run `sudo -E cargo xtask down`");
    }
    let mut progress = Progress::new();
    let cluster = Cluster::at(&options.dir)?;
    progress.phase("processes", |_| cgroup::destroy(Path::new(&cluster.name())))?;
    progress.phase("namespaces and links", |_| {
        for name in pinned_netns(&format!("{}-", cluster.name())) {
            remove_netns(&name)?;
        }
        // Goes only when nobody keeps a namespace there.
        fs::remove_dir(NETNS_DIR).ok();
        // Its peer's namespace may take a moment to end.
        let ip = Tools::new(&Workspace::current()?).ip()?;
        output(ip.command().args(["link", "delete", &cluster.host_link()])).ok();
        Ok(())
    })?;
    if cluster.processes().exists() {
        fs::remove_dir_all(cluster.processes())?;
    }
    if options.purge && cluster.dir.exists() {
        progress.phase("folder", |_| {
            fs::remove_dir_all(&cluster.dir).with_context(|| format!("removing {}", cluster.dir.display()))
        })?;
    }
    Ok(())
}
