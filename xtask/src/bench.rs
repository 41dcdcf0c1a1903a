//! `cargo xtask bench`: builds what measures, runs it, passes its verdict on.
//!
//! In: which bench. Out: a table of ratios on stdout, JSON on demand. The measuring programs are binaries of `tests/`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build;
use crate::command::inherit;
use crate::layout::Workspace;
use crate::progress::Progress;
use crate::tools::Tools;

/// The benches.
#[derive(clap::Subcommand)]
pub enum Bench {
    /// Services beside a pod's own address and beside veths without any program.
    Dataplane {
        /// Fewer and shorter rounds.
        #[arg(long)]
        quick: bool,
        /// Where to write the rows too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

/// # Errors
/// When a goal is missed, or something cannot be measured.
pub fn bench(what: &Bench) -> Result<()> {
    let workspace = Workspace::current()?;
    let tools = Tools::new(&workspace);
    let mut progress = Progress::new();
    progress.phase("API schema", |_| build::api_schema(&workspace, &tools))?;
    progress.phase("eBPF programs", |_| build::ebpf_object(&workspace).map(drop))?;
    let iperf3 = progress.phase("iperf3", |_| tools.iperf3())?;
    progress.phase("build", |note| {
        // The same selection as other commands: another one would be another build.
        let mut cargo = build::cargo(&workspace, &tools)?;
        cargo.args(["build", "--workspace", "--exclude", "xebec-ebpf", "--bins"]);
        note.suspend(|| inherit(&mut cargo))
    })?;
    let Bench::Dataplane { quick, json } = what;
    let mut run = Command::new(workspace.target().join("debug/bench-dataplane"));
    run.env("XEBEC_IPERF3", &iperf3.path);
    if let Some(libraries) = &iperf3.libraries {
        run.env("LD_LIBRARY_PATH", libraries);
    }
    run.args(quick.then_some("--quick"));
    if let Some(json) = json {
        run.arg("--json").arg(json);
    }
    inherit(&mut run).context("a goal was missed or undecided, or measuring failed: see above")
}
