//! `xtask machine NAME`: a bare machine beside a cluster's nodes, for tests of joining: namespaces and containerd, and
//! nothing of Xebec.
//!
//! In: a running cluster's folder, a name that none of its nodes has. Out: the machine; a command run on it; or no trace of
//! it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Session, State, node};
use crate::cgroup;
use crate::layout::{Cluster, Workspace};
use crate::namespace::remove_netns;
use crate::process::{Processes, enter_command};
use crate::tools::Tools;

/// What `machine` was asked for.
pub struct MachineOptions {
    pub dir: PathBuf,
    pub name: String,
    pub remove: bool,
    /// Run on the machine, in place of this process.
    pub command: Vec<OsString>,
}

/// # Errors
/// When there is no such cluster, or the name is a node's of it.
pub fn machine(options: &MachineOptions) -> Result<()> {
    let cluster = Cluster::at(&options.dir)?;
    let state = fs::read(cluster.state_file())
        .with_context(|| format!("{}: there is no cluster", cluster.dir.display()))?;
    let state: State = serde_json::from_slice(&state).context("the cluster's state is damaged")?;
    let index = index(&options.name, state.nodes)?;
    let tools = Tools::new(&Workspace::current()?);
    let processes = Processes::new(cluster.processes(), cluster.logs());
    let session = Session { cluster, state, processes, ip: tools.ip()?, kubectl: tools.kubectl()? };
    if options.remove {
        return remove(&session, &options.name);
    }
    node::ensure_place(&session, &options.name, index)?;
    node::ensure_containerd(&session, &options.name, &tools.containerd()?, &tools.runc()?)?;
    if options.command.is_empty() {
        return Ok(());
    }
    let mut command = enter_command(&node::place(&session, &options.name, "agent")?, None)?;
    Err(command.arg("--").args(&options.command).exec()).context("entering the machine")
}

/// Machines are named as nodes would be that came after the cluster's own: addresses follow from it.
fn index(name: &str, nodes: u8) -> Result<usize> {
    let number: Option<u8> = name.strip_prefix('n').and_then(|number| number.parse().ok());
    match number {
        Some(number) if number > nodes && number <= 64 => Ok(usize::from(number - 1)),
        _ => bail!("{name:?}: a machine beside {nodes} nodes is called n{} or higher", nodes + 1),
    }
}

fn remove(session: &Session, name: &str) -> Result<()> {
    cgroup::destroy(&Path::new(&session.cluster.name()).join(name))?;
    remove_netns(&session.cluster.netns(name))?;
    for entry in fs::read_dir(session.cluster.processes())?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&format!("{name}.")) {
            fs::remove_file(entry.path())?;
        }
    }
    let dir = session.cluster.node_dir(name);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::index;

    #[test]
    fn machines_come_after_the_nodes() {
        assert_eq!(index("n3", 2).unwrap(), 2);
        for taken in ["n2", "n0", "worker", "n65"] {
            assert!(index(taken, 2).is_err(), "{taken}");
        }
    }
}
