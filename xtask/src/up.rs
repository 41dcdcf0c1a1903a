//! `cargo xtask up`: a development cluster from nothing, or whatever of it is missing.
//!
//! In: the cluster's folder, the number of nodes. Out: running nodes, a kubeconfig, a served request. Every step looks
//! before it acts, so that `up` can be repeated, resumed after an error, and is a no-op on a running cluster.

mod control;
mod hello;
mod network;
mod node;
pub mod preflight;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::layout::{Cluster, Subnet, Workspace};
use crate::process::Processes;
use crate::progress::Progress;
use crate::tools::{Tool, Tools};
use crate::{build, images};

/// What `up` was asked for.
pub struct UpOptions {
    pub dir: PathBuf,
    pub nodes: u8,
    /// Optimised binaries instead of the quick build.
    pub release: bool,
    /// Programs built before: nothing is built, and they are taken from here.
    pub built: Option<PathBuf>,
    /// Do not deploy the demonstration and request it.
    pub bare: bool,
}

/// Choices made once and kept in the cluster's folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub subnet: Subnet,
    pub nodes: u8,
}

/// Everything the steps below share.
pub struct Session {
    pub cluster: Cluster,
    pub state: State,
    pub processes: Processes,
    pub ip: Tool,
    pub kubectl: Tool,
}

/// Brings the cluster up.
///
/// # Errors
/// Names the step that failed and how to mend it.
pub fn up(options: &UpOptions) -> Result<()> {
    let mut progress = Progress::new();
    let workspace = Workspace::current()?;
    let cluster = Cluster::at(&options.dir)?;
    let tools = Tools::new(&workspace);
    progress.phase("check the host", |_| preflight::check(&cluster))?;
    fs::create_dir_all(&cluster.dir).with_context(|| format!("making {}", cluster.dir.display()))?;
    let (ip, kubectl, containerd, runc) = progress.phase("tools", |note| {
        note.say("protoc");
        tools.protoc()?;
        note.say("containerd, runc");
        let (containerd, runc) = (tools.containerd()?, tools.runc()?);
        note.say("kubectl");
        Ok((tools.ip()?, tools.kubectl()?, containerd, runc))
    })?;
    let built = match &options.built {
        Some(built) => built.clone(),
        None => build_all(&workspace, &tools, options.release, &mut progress)?,
    };
    progress.phase("images", |note| images::build(&workspace, &tools, note).map(drop))?;

    let state = load_state(&cluster, options.nodes, &ip)?;
    let processes = Processes::new(cluster.processes(), cluster.logs());
    let session = Session { cluster, state, processes, ip, kubectl };
    progress.phase("network", |_| network::ensure(&session))?;
    progress.phase("nodes", |note| node::ensure_places(&session, note))?;
    progress.phase("control plane", |note| control::ensure(&session, &built, note))?;
    progress.phase("agents", |note| node::ensure_agents(&session, &built, &containerd, &runc, note))?;
    progress.phase("nodes ready", |note| node::wait_ready(&session, note))?;
    if !options.bare {
        progress.phase("served request", |note| hello::serve(&session, note))?;
    }
    progress.summary();
    session.print_exports();
    Ok(())
}

fn build_all(
    workspace: &Workspace,
    tools: &Tools,
    release: bool,
    progress: &mut Progress,
) -> Result<PathBuf> {
    progress.phase("API schema", |_| build::api_schema(workspace, tools))?;
    progress.phase("eBPF programs", |_| build::ebpf_object(workspace).map(drop))?;
    progress.phase("build", |note| build::programs(workspace, tools, release, note))
}

/// Names of the cluster's nodes: `n1`, `n2`, …
pub fn node_name(index: u8) -> String {
    format!("n{}", index + 1)
}

/// A command that becomes a program inside a running node: what follows `--` is run.
///
/// # Errors
/// When the cluster has no such node.
pub fn enter_node(cluster: &Cluster, node: &str) -> Result<std::process::Command> {
    let processes = Processes::new(cluster.processes(), cluster.logs());
    // Beside what keeps the node's namespaces, and as idle.
    let place = node::place_of(cluster, &processes, node, "holder")?;
    crate::process::enter_command(&place, None)
}

fn load_state(cluster: &Cluster, nodes: u8, ip: &Tool) -> Result<State> {
    if let Ok(kept) = fs::read(cluster.state_file()) {
        let mut state: State = serde_json::from_slice(&kept).with_context(|| {
            format!("{} is damaged: run `cargo xtask down --purge`", cluster.state_file().display())
        })?;
        if nodes < state.nodes {
            eprintln!(
                "this cluster has {} nodes and keeps them; `cargo xtask down --purge` first for fewer",
                state.nodes
            );
        }
        if nodes > state.nodes {
            state.nodes = nodes;
            save_state(cluster, &state)?;
        }
        return Ok(state);
    }
    let state = State { subnet: network::free_subnet(cluster, ip)?, nodes };
    save_state(cluster, &state)?;
    Ok(state)
}

fn save_state(cluster: &Cluster, state: &State) -> Result<()> {
    fs::write(cluster.state_file(), serde_json::to_vec_pretty(state)?)?;
    Ok(())
}

/// Copies a program into the cluster's folder when it changed. True: processes of the old one must be restarted.
fn install(from: &Path, to: &Path) -> Result<bool> {
    let new = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    fs::create_dir_all(to.parent().context("a file has a folder")?)?;
    // The running program's file cannot be written; a new file can take its name.
    let part = to.with_extension("new");
    fs::write(&part, new)?;
    fs::set_permissions(&part, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    fs::rename(part, to)?;
    Ok(true)
}

impl Session {
    /// kubectl with the cluster's admin kubeconfig.
    pub fn kubectl<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> std::process::Command {
        let mut command = self.kubectl.command();
        command.arg("--kubeconfig").arg(self.cluster.kubeconfig()).args(args);
        command
    }

    pub fn node_names(&self) -> Vec<String> {
        (0..self.state.nodes).map(node_name).collect()
    }

    /// Polls until `ready` says yes; polling is right here: the other side is a program that is only starting.
    pub fn wait_for(&self, what: &str, seconds: u64, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
        loop {
            if ready()? {
                return Ok(());
            }
            if std::time::Instant::now() > deadline {
                bail!("{what}: not within {seconds} s");
            }
            nix::poll::poll(&mut [], 50_u16)?;
        }
    }

    fn print_exports(&self) {
        println!("\nThe cluster is up. To use it:\n");
        println!("export KUBECONFIG={}", self.cluster.kubeconfig().display());
        if self.kubectl.fetched {
            println!("export PATH={}:$PATH", self.cluster.bin().display());
        }
        println!("kubectl get pods --all-namespaces -o wide");
    }
}
