//! A containerd of a test's own: private folders, a private `/run`, a cgroup that nobody else uses.
//!
//! In: the tools of `XEBEC_TOOLS` (a folder with `usr/bin`), `XEBEC_CONTAINERD`, `XEBEC_RUNC` or PATH. Out: a socket that answers. Everything is gone when
//! the harness is dropped, also after a failed test: the processes are those in its cgroup and its mount namespace.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::busybox;
use crate::skip::skipped;

const CGROUPS: &str = "/sys/fs/cgroup";
/// Longest wait for something that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
const TURN: Duration = Duration::from_millis(5);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Paths of the programs that are run.
#[derive(Clone, Debug)]
pub struct Tools {
    pub containerd: PathBuf,
    pub runc: PathBuf,
    pub ctr: PathBuf,
    /// Static, to be put in images.
    pub busybox: Bytes,
}

/// A running containerd.
pub struct TestContainerd {
    pub dir: tempfile::TempDir,
    pub tools: Tools,
    /// cgroup for the test's containers, below each hierarchy's root.
    pub cgroup: String,
    /// Holds the mount namespace.
    holder: Child,
    daemon: Option<Child>,
}

impl Tools {
    /// Finds the tools; a test that lacks one is skipped.
    #[must_use]
    pub fn find(test: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skipped(test, "needs root to run containers");
            return None;
        }
        let find = |name: &str| {
            let found = find(name);
            if found.is_none() {
                skipped(test, &format!("needs {name}, in PATH or below XEBEC_TOOLS"));
            }
            found
        };
        let (containerd, runc, ctr) = (find("containerd")?, find("runc")?, find("ctr")?);
        let busybox = busybox::bytes();
        if busybox.is_none() {
            skipped(test, "needs busybox, in PATH, below XEBEC_TOOLS or in the images of XEBEC_IMAGES");
        }
        Some(Self { containerd, runc, ctr, busybox: busybox? })
    }
}

/// A program of [`search_path`].
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn search_path() -> Vec<PathBuf> {
    let tools = std::env::var_os("XEBEC_TOOLS").map(PathBuf::from);
    let below = ["usr/bin", "usr/sbin", "bin"];
    let mut folders: Vec<PathBuf> =
        tools.iter().flat_map(|tools| below.map(|folder| tools.join(folder))).collect();
    // What `cargo xtask test` chose; a package's other programs are beside it.
    for variable in ["XEBEC_CONTAINERD", "XEBEC_RUNC"] {
        let program = std::env::var_os(variable).map(PathBuf::from);
        folders.extend(program.as_deref().and_then(Path::parent).map(Path::to_path_buf));
    }
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders
}

impl TestContainerd {
    /// Starts a containerd.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(tools: &Tools) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("xebec-rt-").tempdir()?;
        let holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount -t tmpfs tmpfs /run && touch \"$0\" && exec sleep 3600")
            .arg(dir.path().join("mounted"))
            .stdin(Stdio::null())
            .spawn()
            .context("unshare")?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("/xebec-test-{}-{number}", std::process::id());
        let mut containerd = Self { dir, tools: tools.clone(), cgroup, holder, daemon: None };
        wait_for("the mount namespace", || containerd.dir.path().join("mounted").exists())?;
        containerd.write_config()?;
        containerd.run()?;
        Ok(containerd)
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("c.sock")
    }

    /// A path in the harness's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the daemon after [`Self::kill`].
    ///
    /// # Errors
    /// When it does not come up.
    pub fn run(&mut self) -> Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log"))?;
        let daemon = self
            .enter(&self.tools.containerd)
            .arg("--config")
            .arg(self.path("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("containerd")?;
        self.daemon = Some(daemon);
        let socket = self.socket();
        wait_for("containerd's socket", || UnixStream::connect(&socket).is_ok())
    }

    /// kill -9 of the daemon; its shims and containers stay.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("containerd does not run")?;
        daemon.kill()?;
        daemon.wait()?;
        Ok(())
    }

    /// Stops the daemon as a hung one, or lets it go on.
    ///
    /// # Errors
    /// When there is none.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let daemon = self.daemon.as_ref().context("containerd does not run")?;
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        Ok(kill(pid(daemon), signal)?)
    }

    /// A command inside the mount namespace, with the tools in its PATH.
    #[must_use]
    pub fn enter(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        let path = std::env::join_paths(search_path()).unwrap_or_default();
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("--").arg(program);
        command.env("PATH", path);
        command
    }

    /// Processes of the mount namespace but for the holder: containerd, its shims, its sinks.
    #[must_use]
    pub fn processes(&self) -> Vec<(i32, String)> {
        let namespace = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().map(|ns| ns.ino());
        let own = namespace(&self.holder.id().to_string());
        let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
        all.flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
            .filter(|pid| *pid != self.holder.id().to_string() && own.is_some() && namespace(pid) == own)
            .filter_map(|pid| {
                let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?.replace('\0', " ");
                Some((pid.parse().ok()?, command))
            })
            .collect()
    }

    /// Mount points of the namespace that hold container filesystems.
    #[must_use]
    pub fn mounts(&self) -> Vec<String> {
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", self.holder.id())).unwrap_or_default();
        let own = self.dir.path().display().to_string();
        mounts.lines().filter(|line| line.contains(&own)).map(str::to_owned).collect()
    }

    /// cgroups left below the test's own.
    #[must_use]
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let children = |folder: &PathBuf| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
        };
        cgroup_folders(&self.cgroup).iter().flat_map(children).collect()
    }

    fn write_config(&self) -> Result<()> {
        let dir = self.dir.path().display();
        let disabled = [
            "io.containerd.grpc.v1.cri",
            "io.containerd.snapshotter.v1.aufs",
            "io.containerd.snapshotter.v1.btrfs",
            "io.containerd.snapshotter.v1.devmapper",
            "io.containerd.snapshotter.v1.zfs",
        ];
        // The collector runs after every change: what is not kept by a reference or a lease is lost at once.
        let config = format!(
            "version = 2\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"\ndisabled_plugins = {disabled:?}\n\
             [grpc]\naddress = \"{dir}/c.sock\"\n\
             [plugins.\"io.containerd.gc.v1.scheduler\"]\nmutation_threshold = 1\nstartup_delay = \"0ms\"\n"
        );
        Ok(fs::write(self.path("config.toml"), config)?)
    }

    fn tear_down(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        if self.daemon.is_some() {
            self.freeze(false)?;
            self.kill()?;
        }
        for folder in cgroup_folders(&self.cgroup) {
            clear_cgroup(&folder, deadline)?;
        }
        while let Some((process, _)) = self.processes().first() {
            kill(Pid::from_raw(*process), Signal::SIGKILL).ok();
            turn();
            ensure!(Instant::now() < deadline, "processes stay: {:?}", self.processes());
        }
        self.holder.kill()?;
        self.holder.wait()?;
        Ok(())
    }
}

impl Drop for TestContainerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!("containerd's last lines, newest first:\n{}", tail.join("\n"));
        }
        if let Err(error) = self.tear_down() {
            eprintln!("the test's containerd was not cleaned up: {error:#}");
        }
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// The test's cgroup in every hierarchy.
fn cgroup_folders(cgroup: &str) -> Vec<PathBuf> {
    let name = cgroup.trim_start_matches('/');
    let hierarchies =
        fs::read_dir(CGROUPS).into_iter().flatten().flatten().map(|entry| entry.path().join(name));
    hierarchies.chain([Path::new(CGROUPS).join(name)]).filter(|folder| folder.is_dir()).collect()
}

/// Kills what is in a cgroup and removes it, children first.
fn clear_cgroup(folder: &Path, deadline: Instant) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten().filter(|entry| entry.path().is_dir()) {
        clear_cgroup(&entry.path(), deadline)?;
    }
    loop {
        let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        for process in processes.lines().filter_map(|line| line.parse().ok()) {
            kill(Pid::from_raw(process), Signal::SIGKILL).ok();
        }
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => bail!("{}: {error}", folder.display()),
            Err(_) => turn(),
        }
    }
}

fn wait_for(what: &str, done: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        ensure!(Instant::now() < deadline, "{what} did not appear within {PATIENCE:?}");
        turn();
    }
    Ok(())
}

/// Between two looks at something that gives no notice.
fn turn() {
    std::thread::park_timeout(TURN);
}
