//! `cargo xtask test`: all set-up, then every check and suite, by least power first.
//!
//! In: the workspace, optionally a filter. Out: the suites' own output on failure, a table of phases, what was skipped
//! and why, and a closing line `N passed, N failed, N skipped`. What it made is removed also after a failure.

mod suites;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::inherit;
use crate::down::{DownOptions, down};
use crate::footprint::Footprint;
use crate::layout::{Cluster, Workspace};
use crate::progress::Progress;
use crate::tools::Tools;
use crate::up::{UpOptions, preflight, up};
use crate::{build, images, interrupt, tidy};

use suites::{Environment, Suite, Tally};

/// What `test` was asked for.
pub struct TestOptions {
    /// Only suites whose name contains this; leaves out fmt, clippy and tidy.
    pub filter: Option<String>,
    /// Also the suites that take long.
    pub soak: bool,
}

/// A suite that does not end within this is killed and counted as failed.
const SUITE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// # Errors
/// When anything failed; the closing line is printed all the same.
pub fn test(options: &TestOptions) -> Result<()> {
    let workspace = Workspace::current()?;
    let cluster_dir = workspace.root.join("target/test-cluster");
    preflight::check(&Cluster::at(&cluster_dir)?)?;
    interrupt::listen()?;
    let tools = Tools::new(&workspace);
    let mut progress = Progress::new();
    progress.phase("API schema", |_| build::api_schema(&workspace, &tools))?;
    progress.phase("eBPF programs", |_| build::ebpf_object(&workspace).map(drop))?;
    progress.phase("images", |note| images::build(&workspace, &tools, note).map(drop))?;
    if options.filter.is_none() {
        lint(&workspace, &tools, &mut progress)?;
    }
    let found = progress.phase("build", |note| suites::build(&workspace, &tools, note))?;
    let wanted = |suite: &&Suite| options.filter.as_ref().is_none_or(|f| suite.name.contains(f.as_str()));
    let (cluster, alone): (Vec<&Suite>, Vec<&Suite>) =
        found.suites.iter().filter(wanted).partition(|s| s.needs_cluster());

    let environment = Environment::prepare(&workspace, &tools, &found.programs, options.soak)?;
    let mut tally = Tally::default();
    for suite in alone {
        interrupt::check()?;
        progress.phase(&suite.name, |note| suite.run(&environment, SUITE_TIMEOUT, note, &mut tally))?;
    }
    if !cluster.is_empty() {
        in_cluster(
            &workspace,
            &cluster_dir,
            &cluster,
            &environment,
            &found.programs,
            &mut progress,
            &mut tally,
        )?;
    }
    progress.summary();
    tally.skipped = environment.skipped()?;
    for why in &tally.skipped {
        println!("{why}");
    }
    println!("\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped.len());
    if tally.failed > 0 {
        bail!("{} tests failed: {}", tally.failed, tally.failures.join(", "));
    }
    Ok(())
}

fn lint(workspace: &Workspace, tools: &Tools, progress: &mut Progress) -> Result<()> {
    progress.phase("fmt", |note| {
        let mut fmt = build::cargo(workspace, tools)?;
        fmt.args(["fmt", "--all", "--check"]);
        note.suspend(|| inherit(&mut fmt)).context("run `cargo fmt --all`")
    })?;
    progress.phase("clippy", |note| {
        let mut clippy = build::cargo(workspace, tools)?;
        clippy.args([
            "clippy",
            "--workspace",
            "--exclude",
            "xebec-ebpf",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]);
        note.suspend(|| inherit(&mut clippy))
    })?;
    progress.phase("tidy", |_| tidy::tidy(workspace))
}

/// Runs the suites that need one against a fresh cluster and compares the host before and after.
fn in_cluster(
    workspace: &Workspace,
    dir: &Path,
    suites: &[&Suite],
    environment: &Environment,
    programs: &Path,
    progress: &mut Progress,
    tally: &mut Tally,
) -> Result<()> {
    let remove = || down(&DownOptions { dir: dir.to_owned(), purge: true });
    // What a killed run left.
    remove()?;
    let own = [workspace.root.as_path()];
    let before = Footprint::read(&own)?;
    let outcome: Result<()> = (|| {
        progress.phase("cluster up", |_| {
            up(&UpOptions {
                dir: dir.to_owned(),
                nodes: 2,
                release: false,
                bare: false,
                built: Some(programs.to_path_buf()),
            })
        })?;
        let environment = environment.with_cluster(&Cluster::at(dir)?);
        for suite in suites {
            interrupt::check()?;
            progress.phase(&suite.name, |note| suite.run(&environment, SUITE_TIMEOUT, note, tally))?;
        }
        Ok(())
    })();
    if outcome.is_err() || tally.failed > 0 {
        keep_logs(dir, &workspace.root.join("target/test-logs"));
    }
    progress.phase("cluster down", |_| remove())?;
    outcome?;
    let left = before.added(&Footprint::read(&own)?);
    if left.is_empty() {
        tally.passed += 1;
    } else {
        tally.fail("down_leaves_nothing", &format!("left on the host:\n  {}", left.join("\n  ")));
    }
    Ok(())
}

/// Copies the cluster's logs to where a person looks after a failure.
fn keep_logs(cluster: &Path, to: &Path) {
    if fs::create_dir_all(to).is_err() {
        return;
    }
    for entry in fs::read_dir(cluster.join("logs")).into_iter().flatten().flatten() {
        // Best effort: the failure itself is reported either way.
        fs::copy(entry.path(), to.join(entry.file_name())).ok();
    }
    eprintln!("the cluster's logs are in {}", to.display());
}
