//! Test binaries: built once by one cargo call, then run one by one and counted.
//!
//! In: the workspace. Out: [`Suite`]s; running one streams its output to a log and adds to a [`Tally`].

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::build::cargo;
use crate::cgroup;
use crate::command::own_program;
use crate::interrupt::{self, is_interrupted};
use crate::layout::{Cluster, Workspace};
use crate::progress::Note;
use crate::tools::Tools;

/// One test binary.
#[derive(Clone, Debug)]
pub struct Suite {
    /// `<package> <target>`.
    pub name: String,
    target: String,
    executable: PathBuf,
    folder: PathBuf,
}

/// What one build made.
pub struct Built {
    pub suites: Vec<Suite>,
    /// Folder of the programs.
    pub programs: PathBuf,
}

/// Counts over all suites.
#[derive(Debug, Default)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub failures: Vec<String>,
    pub skipped: Vec<String>,
}

/// Variables that suites read.
#[derive(Clone)]
pub struct Environment {
    variables: Vec<(String, PathBuf)>,
    skips: PathBuf,
    logs: PathBuf,
}

/// Builds programs and tests in one go: two selections would be two builds.
pub fn build(workspace: &Workspace, tools: &Tools, note: &Note) -> Result<Built> {
    let mut build = cargo(workspace, tools)?;
    build.args(["build", "--workspace", "--exclude", "xebec-ebpf", "--all-targets"]);
    build.args(["--message-format", "json-render-diagnostics"]);
    let mut suites = run_build(&mut build, note)?;
    // The eBPF logic also runs on the host; its program does not.
    let mut logic = cargo(workspace, tools)?;
    logic.args([
        "test",
        "--package",
        "xebec-ebpf",
        "--lib",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
    suites.extend(run_build(&mut logic, note)?);
    suites.sort_by_key(|s| (s.is_integration(), s.name.clone()));
    Ok(Built { suites, programs: workspace.target().join("debug") })
}

fn run_build(build: &mut Command, note: &Note) -> Result<Vec<Suite>> {
    let mut child = build.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("running cargo")?;
    let mut messages = String::new();
    note.suspend(|| {
        child
            .stdout
            .take()
            .context("piped")?
            .read_to_string(&mut messages)
            .context("reading cargo's messages")
    })?;
    if !child.wait()?.success() {
        bail!("the build failed");
    }
    Ok(messages.lines().filter_map(|line| suite_of(&serde_json::from_str(line).ok()?)).collect())
}

fn suite_of(message: &Value) -> Option<Suite> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let target = message["target"]["name"].as_str()?.to_owned();
    let package = fs::read_to_string(folder.join("Cargo.toml")).ok()?;
    let package = package.split("name = \"").nth(1)?.split('"').next()?.to_owned();
    Some(Suite {
        name: format!("{package} {target}"),
        target,
        executable: message["executable"].as_str()?.into(),
        folder,
    })
}

// === impl Suite ===

impl Suite {
    /// Suites called `cluster_*` talk to a running cluster.
    pub fn needs_cluster(&self) -> bool {
        self.target.starts_with("cluster")
    }

    fn is_integration(&self) -> bool {
        self.name.starts_with("xebec-tests")
    }

    /// Runs the binary and counts its tests. Failures print the whole log.
    ///
    /// # Errors
    /// When it cannot be started; failing tests are counted, not returned.
    pub fn run(
        &self,
        environment: &Environment,
        limit: Duration,
        note: &Note,
        tally: &mut Tally,
    ) -> Result<()> {
        let log = environment.logs.join(format!("{}.log", self.name.replace(' ', "-")));
        let out = fs::File::create(&log)?;
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.folder).envs(environment.variables.iter().map(|(k, v)| (k, v)));
        command.arg("--show-output").stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        // A group of its own: what a hanging suite started dies with it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().with_context(|| format!("starting {}", self.executable.display()))?;
        let deadline = Instant::now() + limit;
        let ended = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if Instant::now() > deadline || is_interrupted() {
                killpg(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL).ok();
                child.wait()?;
                // It had no time to remove what it made.
                cgroup::destroy_test_cgroups()?;
                interrupt::check()?;
                break None;
            }
            nix::poll::poll(&mut [], 20_u16)?;
        };
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let (passed, failed) = counts(&text);
        tally.passed += passed;
        note.say(&format!("{passed} passed"));
        let ok = ended.is_some_and(|status| status.success());
        if !ok {
            let why = if ended.is_none() {
                format!("{}: did not end within {limit:?}", self.name)
            } else {
                String::new()
            };
            println!("{text}");
            tally.failed += failed.max(1);
            tally.failures.push(self.name.clone());
            if !why.is_empty() {
                println!("{why}");
            }
        }
        Ok(())
    }
}

/// Sums of libtest's `test result:` lines.
fn counts(text: &str) -> (u64, u64) {
    let of = |line: &str, word: &str| -> u64 {
        line.split([';', '.'])
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
            .unwrap_or(0)
    };
    text.lines()
        .filter(|line| line.starts_with("test result:"))
        .fold((0, 0), |(passed, failed), line| (passed + of(line, " passed"), failed + of(line, " failed")))
}

// === impl Tally ===

impl Tally {
    pub fn fail(&mut self, name: &str, why: &str) {
        println!("test {name} failed: {why}");
        self.failed += 1;
        self.failures.push(name.to_owned());
    }
}

// === impl Environment ===

impl Environment {
    pub fn prepare(workspace: &Workspace, tools: &Tools, programs: &Path, soak: bool) -> Result<Self> {
        let logs = workspace.root.join("target/test-logs");
        fs::create_dir_all(&logs)?;
        let skips = logs.join("skipped");
        fs::write(&skips, "")?;
        let containerd = tools.containerd()?;
        let runc = tools.runc()?;
        let kubectl = tools.kubectl()?;
        let nft = tools.nft()?;
        let ip = tools.ip()?;
        let mut variables = vec![
            ("XEBEC_BIN_DIR".to_owned(), programs.to_path_buf()),
            ("XEBEC_KUBECTL".to_owned(), kubectl.path),
            ("XEBEC_CONTAINERD".to_owned(), containerd.path.clone()),
            ("XEBEC_RUNC".to_owned(), runc.path.clone()),
            ("XEBEC_NFT".to_owned(), nft.path),
            ("XEBEC_IMAGES".to_owned(), workspace.images()),
            ("XEBEC_SKIPS".to_owned(), skips.clone()),
            ("XEBEC_XTASK".to_owned(), own_program()?),
        ];
        // Root of an unpacked tool: `<root>/usr/bin/containerd`.
        let root = containerd.path.ancestors().nth(3).map(Path::to_path_buf);
        variables.extend(root.filter(|_| containerd.fetched).map(|root| ("XEBEC_TOOLS".to_owned(), root)));
        let libraries: Vec<PathBuf> = [containerd.libraries, runc.libraries, nft.libraries, ip.libraries]
            .into_iter()
            .flatten()
            .collect();
        if !libraries.is_empty() {
            variables.push(("LD_LIBRARY_PATH".to_owned(), std::env::join_paths(libraries)?.into()));
        }
        if ip.fetched {
            // Suites call it by its name, as a person would.
            let folder = ip.path.parent().map(Path::to_path_buf);
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::env::split_paths(&path).chain(folder);
            variables.push(("PATH".to_owned(), std::env::join_paths(folders)?.into()));
        }
        match tools.python_client() {
            Ok(folder) => variables.push(("XEBEC_PYTHON_CLIENT".to_owned(), folder)),
            // Its suite says that it was skipped.
            Err(error) => eprintln!("no Python client: {error:#}"),
        }
        if soak {
            variables.push(("XEBEC_SOAK".to_owned(), "1".into()));
        }
        Ok(Self { variables, skips, logs })
    }

    pub fn with_cluster(&self, cluster: &Cluster) -> Self {
        let mut with = self.clone();
        with.variables.push(("XEBEC_CLUSTER_DIR".to_owned(), cluster.dir.clone()));
        with.variables.push(("KUBECONFIG".to_owned(), cluster.kubeconfig()));
        // Its tests share the nodes; some kill programs that others need.
        with.variables.push(("RUST_TEST_THREADS".to_owned(), "1".into()));
        with
    }

    /// The `skipped: why` lines that suites wrote.
    pub fn skipped(&self) -> Result<Vec<String>> {
        Ok(fs::read_to_string(&self.skips)?.lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn counts_are_read_from_libtests_closing_lines() {
        let text = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
                    test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";
        assert_eq!(counts(text), (5, 1));
    }
}
