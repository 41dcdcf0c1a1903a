//! Where a container's streams go: the log sink, and FIFOs for what a sink started by containerd's shim cannot carry.
//!
//! In: whether a container has stdin and a terminal. Out: the addresses that its task is made with, the files behind
//! them in a folder of its own, and a running sink where the shim starts none.
//!
//! ```text
//!                      stdin   stdout, stderr
//! plain                none    binary://sink, started by the shim
//! terminal             none    binary://sink, one stream
//! stdin, terminal      FIFO    binary://sink, one stream
//! stdin                FIFO    FIFOs, read by a sink that is started here: the shim gives no stdin beside a binary
//! ```
//!
//! The shim keeps a write end of each stdin and a read end of each output: neither the end of a sink nor that of the
//! agent is seen by the container, and a sink that is started later goes on where the last one ended.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use containerd_client::types::v1::Status;
use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::containerd::Containerd;
use crate::error::RuntimeError;
use crate::log_sink::{self, SUBCOMMAND};
use crate::types::ContainerId;

const STDIN: &str = "stdin";
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";

/// What a container has beside its outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs {
    pub(crate) stdin: bool,
    pub(crate) tty: bool,
}

/// Addresses of a task's streams, as containerd takes them.
#[derive(Clone, Debug)]
pub(crate) struct TaskIo {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// Folder of one container's FIFOs and its attach socket.
#[derive(Clone, Debug)]
pub(crate) struct IoFolder(PathBuf);

// === impl Inputs ===

impl Inputs {
    /// The sink is started here.
    pub(super) fn has_own_sink(self) -> bool {
        self.stdin && !self.tty
    }
}

// === impl IoFolder ===

impl IoFolder {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn stdin(&self) -> PathBuf {
        self.0.join(STDIN)
    }

    fn fifo(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        match mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) | Err(Errno::EEXIST) => Ok(path),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The end that a sink reads, open before the task opens the other, which waits for it.
    fn reader(&self, name: &str) -> io::Result<fs::File> {
        fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(self.0.join(name))
    }

    /// Removes the folder; a sink that waits for a task which was never made ends.
    pub(crate) fn remove(&self) {
        for name in [STDOUT, STDERR] {
            // Without a reader there is nobody to wake.
            drop(fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(self.0.join(name)));
        }
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "a container's streams stay behind");
            }
            _ => {}
        }
    }
}

// === impl Containerd ===

impl Containerd {
    pub(crate) fn io_folder(&self, id: &str) -> IoFolder {
        IoFolder(self.config.run_dir.join("io").join(id))
    }

    /// Makes what the addresses name. Safe to repeat.
    pub(crate) async fn prepare_io(
        &self,
        id: &ContainerId,
        log: &str,
        inputs: Inputs,
    ) -> Result<TaskIo, RuntimeError> {
        let folder = self.io_folder(&id.0);
        let failed = |source| RuntimeError::Io { path: folder.path().display().to_string(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.path()).map_err(failed)?;
        let address = |name: &str| folder.fifo(name).map(|path| path.display().to_string()).map_err(failed);
        let stdin = if inputs.stdin { address(STDIN)? } else { String::new() };
        let (stdout, stderr) = if inputs.has_own_sink() {
            let addresses = (address(STDOUT)?, address(STDERR)?);
            // A try of before may have started it.
            if super::attach::connect(&folder).await.is_err() {
                self.start_sink(&folder, log, false).map_err(failed)?;
            }
            addresses
        } else {
            // A terminal has one stream; containerd refuses a second sink.
            (log.to_owned(), if inputs.tty { String::new() } else { log.to_owned() })
        };
        Ok(TaskIo { stdin, stdout, stderr, terminal: inputs.tty })
    }

    /// A sink of ours that outlives us: nothing waits for it, it ends with its streams.
    fn start_sink(&self, folder: &IoFolder, log: &str, adopt: bool) -> io::Result<()> {
        let settings = log_sink::own_settings(log, adopt)
            .ok_or_else(|| io::Error::other(format!("{log:?} is not the address of a log sink")))?;
        let mut command = tokio::process::Command::new(&self.config.log_sink);
        command.arg(SUBCOMMAND).arg(settings);
        command.stdin(Stdio::from(folder.reader(STDOUT)?)).stdout(Stdio::from(folder.reader(STDERR)?));
        command.stderr(Stdio::null()).kill_on_drop(false).spawn().map(drop)
    }

    /// Starts sinks for running containers that have lost theirs, as when everything in the agent's cgroup was killed.
    pub(crate) async fn adopt_sinks(&self) -> Result<(), RuntimeError> {
        for (record, identity) in self.client.records().await? {
            let inputs = Inputs { stdin: identity.stdin, tty: identity.tty };
            let folder = self.io_folder(&record.id);
            if !inputs.has_own_sink() || super::attach::connect(&folder).await.is_ok() {
                continue;
            }
            let task = self.client.task(&record.id).await?;
            if task.is_none_or(|task| task.status() == Status::Stopped) {
                continue;
            }
            if let Err(error) = self.start_sink(&folder, &identity.log, true) {
                tracing::warn!(container = record.id, %error, "a container's output is not logged");
            }
        }
        Ok(())
    }
}
