//! Running a command in a container: probes and lifecycle hooks.
//!
//! In: a command and a time limit. Out: its exit code and the beginning of its output. The output comes through a FIFO
//! that is read to its end, so that a talkative command is never blocked; what is beyond the limit is thrown away.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use containerd_client::services::v1::{
    DeleteProcessRequest, ExecProcessRequest, KillRequest, StartRequest, WaitRequest,
};
use nix::libc::SIGKILL;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use oci_spec::runtime::{Process, Spec};
use prost_types::Any;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::{Instant, timeout, timeout_at};

use super::record::PROCESS_TYPE;
use crate::containerd::Containerd;
use crate::error::RuntimeError;
use crate::rpc::{CallError, Optional, rpc};
use crate::types::{ContainerId, ExecOutput};

const CALL: &str = "exec";
/// As upstream's prober keeps it.
const MAX_OUTPUT: usize = 16 << 10;
/// How long output may come after the command ended: a child of it may hold the stream for ever.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// Distinguishes the runs of one agent.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// Distinguishes the agents: a shim remembers commands whose agent was killed, and an agent may always be process 1.
static AGENT: LazyLock<u64> = LazyLock::new(crate::container::events::rand_token);

/// The folder of one run; it goes with the run, however that ends.
pub(super) struct Folder(PathBuf);

impl Containerd {
    pub(crate) async fn run_command(
        &self,
        id: &ContainerId,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let deadline = Instant::now() + limit;
        let process = self.exec_process(id, command, false).await?;
        let exec_id = next_exec_id();
        let folder = self.exec_folder(id, &exec_id)?;
        let fifo = folder.fifo("output")?;
        let io = |source| RuntimeError::Io { path: fifo.display().to_string(), source };
        // Opened before the shim opens its end, which waits for a reader.
        let reader = pipe::OpenOptions::new().open_receiver(&fifo).map_err(io)?;
        let output = fifo.display().to_string();
        let request = ExecProcessRequest {
            container_id: id.0.clone(),
            stdout: output.clone(),
            stderr: output,
            terminal: false,
            spec: Some(Any { type_url: PROCESS_TYPE.into(), value: process }),
            exec_id: exec_id.clone(),
            ..Default::default()
        };
        rpc!(self.client, self.config.timeouts.task, tasks.exec(request)).await?;
        let ran = self.run_process(id, &exec_id, reader, deadline, limit).await;
        let request = DeleteProcessRequest { container_id: id.0.clone(), exec_id };
        let deleted = rpc!(self.client, self.config.timeouts.task, tasks.delete_process(request)).await;
        let output = ran?;
        deleted.optional()?;
        Ok(output)
    }

    pub(super) fn exec_folder(&self, id: &ContainerId, exec_id: &str) -> Result<Folder, RuntimeError> {
        Folder::new(self.config.run_dir.join("exec").join(format!("{}-{exec_id}", id.0)))
    }

    /// The container's own process with another command: same user, same limits.
    pub(super) async fn exec_process(
        &self,
        id: &ContainerId,
        command: &[String],
        tty: bool,
    ) -> Result<Vec<u8>, RuntimeError> {
        let missing =
            |what: &str| RuntimeError::Call { call: CALL, message: format!("container {}: {what}", id.0) };
        let Some((record, _)) = self.client.record(&id.0).await? else { return Err(missing("not found")) };
        let spec: Spec = serde_json::from_slice(&record.spec.unwrap_or_default().value)
            .map_err(|_| missing("its specification cannot be read"))?;
        let mut process: Process = spec.process().clone().ok_or_else(|| missing("it has no process"))?;
        process.set_args(Some(command.to_vec()));
        process.set_terminal(Some(tty));
        if tty {
            let mut env = process.env().clone().unwrap_or_default();
            if !env.iter().any(|entry| entry.starts_with("TERM=")) {
                env.push("TERM=xterm".to_owned());
            }
            process.set_env(Some(env));
        }
        serde_json::to_vec(&process).map_err(|e| missing(&e.to_string()))
    }

    async fn run_process(
        &self,
        id: &ContainerId,
        exec_id: &str,
        reader: pipe::Receiver,
        deadline: Instant,
        limit: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let timed_out = || RuntimeError::Timeout { call: CALL, after: limit };
        let request = StartRequest { container_id: id.0.clone(), exec_id: exec_id.to_owned() };
        let start = rpc!(self.client, self.config.timeouts.task, tasks.start(request));
        match timeout_at(deadline, start).await {
            Ok(started) => drop(started?),
            Err(_) => return self.kill_process(id, exec_id).await.and(Err(timed_out())),
        }
        let waiting = self.wait_process(id, exec_id, deadline.saturating_duration_since(Instant::now()));
        let (exit, output) = read_until_exit(waiting, reader).await;
        match exit {
            Ok(exit_code) => Ok(ExecOutput { exit_code, output }),
            Err(failed) if matches!(failed.error, RuntimeError::Timeout { .. }) => {
                self.kill_process(id, exec_id).await.and(Err(timed_out()))
            }
            Err(failed) => Err(failed.error),
        }
    }

    pub(super) async fn wait_process(
        &self,
        id: &ContainerId,
        exec_id: &str,
        limit: Duration,
    ) -> Result<i32, CallError> {
        let request = WaitRequest { container_id: id.0.clone(), exec_id: exec_id.to_owned() };
        let answer = rpc!(self.client, limit, tasks.wait(request)).await?;
        Ok(i32::try_from(answer.exit_status).unwrap_or(i32::MAX))
    }

    pub(super) async fn kill_process(&self, id: &ContainerId, exec_id: &str) -> Result<(), RuntimeError> {
        let request = KillRequest {
            container_id: id.0.clone(),
            exec_id: exec_id.to_owned(),
            signal: SIGKILL.unsigned_abs(),
            all: false,
        };
        rpc!(self.client, self.config.timeouts.metadata, tasks.kill(request)).await.optional()?;
        let waited = self.wait_process(id, exec_id, self.config.timeouts.metadata).await;
        waited.optional().map(|_| ())
    }
}

/// A name no other command has, of this agent or of an earlier one.
pub(super) fn next_exec_id() -> String {
    format!("exec-{:x}-{}", *AGENT, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Reads while the command runs, and what is left when it has ended.
async fn read_until_exit(
    waiting: impl Future<Output = Result<i32, CallError>>,
    mut reader: pipe::Receiver,
) -> (Result<i32, CallError>, Vec<u8>) {
    let mut kept = Vec::new();
    tokio::pin!(waiting);
    let exit = tokio::select! {
        exit = &mut waiting => exit,
        () = read_to_end(&mut reader, &mut kept) => waiting.await,
    };
    if exit.is_ok() {
        let _ = timeout(LAST_OUTPUT, read_to_end(&mut reader, &mut kept)).await;
    }
    (exit, kept)
}

/// Reads to the end; keeps the beginning.
async fn read_to_end(reader: &mut pipe::Receiver, kept: &mut Vec<u8>) {
    let mut chunk = vec![0; 8 << 10];
    while let Ok(read @ 1..) = reader.read(&mut chunk).await {
        let room = MAX_OUTPUT - kept.len();
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
}

// === impl Folder ===

impl Folder {
    fn new(path: PathBuf) -> Result<Self, RuntimeError> {
        std::fs::create_dir_all(&path)
            .map_err(|source| RuntimeError::Io { path: path.display().to_string(), source })?;
        Ok(Self(path))
    }

    pub(super) fn fifo(&self, name: &str) -> Result<PathBuf, RuntimeError> {
        let path = self.0.join(name);
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| RuntimeError::Io { path: path.display().to_string(), source: errno.into() })?;
        Ok(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(self.path()) {
            tracing::debug!(path = %self.path().display(), %error, "a folder of an ended command stays");
        }
    }
}
