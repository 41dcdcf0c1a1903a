//! A bare machine beside a development cluster: what a user has who wants it to become a node.
//!
//! In: a running cluster, `xtask machine`. Out: programs that run on the machine as its user would start them; no trace of it
//! at the end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::Cluster;

/// The machine; taken away when dropped.
pub struct Machine {
    dir: PathBuf,
    pub name: String,
    settings: Vec<(String, String)>,
    running: Vec<Running>,
}

struct Running {
    program: String,
    child: Child,
}

// === impl Machine ===

impl Machine {
    /// A machine whose only peculiarity is that it shares kernel and disk with others: variables say so.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn beside(cluster: &Cluster, name: &str) -> Self {
        let dir = cluster.dir.clone();
        let agent = cluster.pid("n1.agent");
        let cgroups =
            std::fs::read_to_string(format!("/proc/{agent}/cgroup")).expect("a process has cgroups");
        let cgroup = cgroups.lines().find_map(|line| {
            let (_, path) = line.rsplit_once(":/")?;
            path.strip_suffix("/n1/system/agent")
        });
        let hub = cluster.nodes[0].1[0].to_string();
        let (network, _) = hub.rsplit_once('.').expect("an IPv4 address");
        let settings = [
            ("XEBEC_STATE_DIR", dir.join("nodes").join(name).join("state").display().to_string()),
            ("XEBEC_CGROUP_ROOT", format!("/{}/{name}", cgroup.expect("nodes have a cgroup"))),
            ("XEBEC_REGISTRY_MIRROR", format!("docker.io=http://{network}.1:5000")),
            ("XEBEC_CLUSTER_DNS", "10.96.0.10,fd00:10:96::a".to_owned()),
            ("XEBEC_EVICTION_HARD", "nodefs.available<512Mi,nodefs.inodesFree<1%".to_owned()),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).into();
        let machine = Self { dir, name: name.to_owned(), settings, running: Vec::new() };
        machine.succeeds(&machine.xtask(&["--remove"]).output().expect("xtask runs"));
        machine.succeeds(&machine.xtask(&[]).output().expect("xtask runs"));
        machine
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("nodes").join(&self.name).join("state")
    }

    pub fn log(&self, program: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{}.{program}.log", self.name))
    }

    /// Starts a shell line on the machine; it goes on in the background.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&mut self, program: &str, line: &str) {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("PATH={}:{path}", self.dir.join("bin").display());
        let mut command = self.xtask(&["--", "env", &path]);
        command.args(self.settings.iter().map(|(name, value)| format!("{name}={value}")));
        command.args(["sh", "-c", &format!("exec {line}")]);
        let log = File::options().create(true).append(true).open(self.log(program)).expect("a log file");
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        self.running
            .push(Running { program: program.to_owned(), child: command.spawn().expect("xtask runs") });
    }

    /// Process id of a started program.
    ///
    /// # Panics
    /// When it was not started, or has ended.
    pub fn pid(&mut self, program: &str) -> u32 {
        let log = std::fs::read_to_string(self.log(program)).unwrap_or_default();
        let running =
            self.running.iter_mut().find(|running| running.program == program).expect("it was started");
        if let Some(status) = running.child.try_wait().expect("a child") {
            panic!("{program} on {} ended with {status}:\n{log}", self.name);
        }
        running.child.id()
    }

    /// Asks what was started to end, and waits for it.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn stop(&mut self) {
        for running in &self.running {
            let pid = Pid::from_raw(i32::try_from(running.child.id()).expect("a pid"));
            // It may have ended by itself.
            kill(pid, Signal::SIGTERM).ok();
        }
        for mut running in self.running.drain(..) {
            running.child.wait().expect("a child");
        }
    }

    fn xtask(&self, args: &[&str]) -> Command {
        let xtask = std::env::var_os("XEBEC_XTASK").expect("XEBEC_XTASK names xtask");
        let mut command = Command::new(xtask);
        command.args(["machine", &self.name, "--dir"]).arg(&self.dir).args(args).stdin(Stdio::null());
        command
    }

    fn succeeds(&self, out: &Output) {
        assert!(out.status.success(), "machine {}: {}", self.name, String::from_utf8_lossy(&out.stderr));
    }

    /// Takes it away.
    ///
    /// # Panics
    /// When something of it stays.
    pub fn remove(mut self) {
        self.stop();
        self.succeeds(&self.xtask(&["--remove"]).output().expect("xtask runs"));
        assert!(!Path::new(&self.state_dir()).exists());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for running in &mut self.running {
            // It may have ended.
            running.child.kill().ok();
            running.child.wait().ok();
        }
        // Removing it twice does no harm; a failing test keeps it for its logs, and the cluster's end takes it away.
        if !std::thread::panicking() {
            self.xtask(&["--remove"]).output().ok();
        }
    }
}
