//! `cargo xtask bench`: builds what measures and what is measured, runs it, passes its verdict on.
//!
//! In: which bench. Out: a table of ratios on stdout, JSON on demand. The measuring program is the binary `bench` of
//! `tests/`. What is started for it is taken away again, also after a failure.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::inherit;
use crate::down::{DownOptions, down};
use crate::layout::{Cluster, Workspace};
use crate::progress::Progress;
use crate::tools::{Tool, Tools};
use crate::up::{UpOptions, enter_node, up};
use crate::{build, interrupt};

const PROGRAM: &str = "bench";
const NODE: &str = "n1";

/// The benches.
#[derive(clap::Subcommand)]
pub enum Bench {
    /// Services beside a pod's own address and beside veths without any program.
    Dataplane(Arguments),
    /// Starting pods beside containerd's own client and runc; the agent's memory.
    Pods(Arguments),
    /// Writes beside the disk's own price, their rate; the control plane's memory.
    Control(Arguments),
}

#[derive(clap::Args)]
pub struct Arguments {
    /// Fewer and shorter rounds.
    #[arg(long)]
    quick: bool,
    /// Where to write the rows too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// # Errors
/// When a goal is missed, or something cannot be measured.
pub fn bench(what: &Bench) -> Result<()> {
    let workspace = Workspace::current()?;
    interrupt::listen()?;
    let tools = Tools::new(&workspace);
    let mut progress = Progress::new();
    progress.phase("API schema", |_| build::api_schema(&workspace, &tools))?;
    progress.phase("eBPF programs", |_| build::ebpf_object(&workspace).map(drop))?;
    let programs = progress.phase("release build", |note| {
        build::release(&workspace, &tools, &["xebec-agent", "xebec-control", PROGRAM], note)
    })?;
    match what {
        Bench::Dataplane(arguments) => {
            let iperf3 = progress.phase("iperf3", |_| tools.iperf3())?;
            let mut run = Command::new(programs.join(PROGRAM));
            run.env("XEBEC_IPERF3", &iperf3.path);
            with_libraries(&mut run, &[&iperf3])?;
            measure(run, "dataplane", arguments)
        }
        Bench::Pods(arguments) => pods(&workspace, &tools, &programs, arguments),
        Bench::Control(arguments) => {
            let mut run = Command::new(programs.join(PROGRAM));
            run.env("XEBEC_BIN_DIR", &programs);
            // /tmp may be in memory, where a durable write costs nothing; this folder is not.
            if std::env::var_os("TMPDIR").is_none() && Path::new("/var/tmp").is_dir() {
                run.env("TMPDIR", "/var/tmp");
            }
            measure(run, "control", arguments)
        }
    }
}

fn measure(mut run: Command, what: &str, arguments: &Arguments) -> Result<()> {
    run.arg(what).args(arguments.quick.then_some("--quick"));
    if let Some(json) = &arguments.json {
        // The program may run in a folder of its own.
        run.arg("--json").arg(std::path::absolute(json)?);
    }
    inherit(&mut run).context("a goal was missed or undecided, or measuring failed: see above")
}

/// In a node of a cluster made for the purpose.
fn pods(workspace: &Workspace, tools: &Tools, programs: &Path, arguments: &Arguments) -> Result<()> {
    let dir = workspace.root.join("target/bench-cluster");
    let remove = || down(&DownOptions { dir: dir.clone(), purge: true });
    // What a killed run left.
    remove()?;
    let outcome = (|| {
        up(&UpOptions {
            dir: dir.clone(),
            nodes: 1,
            release: true,
            bare: true,
            built: Some(programs.to_path_buf()),
        })?;
        interrupt::check()?;
        let (containerd, runc, kubectl) = (tools.containerd()?, tools.runc()?, tools.kubectl()?);
        let mut run = enter_node(&Cluster::at(&dir)?, NODE)?;
        run.arg("--").arg(programs.join(PROGRAM));
        run.env("XEBEC_CLUSTER_DIR", &dir).env("XEBEC_KUBECTL", &kubectl.path);
        run.env("PATH", with_folders(&[&containerd, &runc])?);
        with_libraries(&mut run, &[&containerd, &runc])?;
        measure(run, "pods", arguments)
    })();
    remove()?;
    outcome
}

/// PATH with the folders of these tools first: containerd's client lies beside containerd.
fn with_folders(tools: &[&Tool]) -> Result<OsString> {
    let folders = tools.iter().filter_map(|tool| tool.path.parent()).map(Path::to_path_buf);
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(folders.chain(std::env::split_paths(&path)))?)
}

fn with_libraries(run: &mut Command, tools: &[&Tool]) -> Result<()> {
    let libraries: Vec<&PathBuf> = tools.iter().filter_map(|tool| tool.libraries.as_ref()).collect();
    if !libraries.is_empty() {
        run.env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?);
    }
    Ok(())
}
