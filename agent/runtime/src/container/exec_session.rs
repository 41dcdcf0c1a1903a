//! A command in a container with its streams open: `kubectl exec`.
//!
//! In: a command and which streams it has. Out: an [`Exec`] whose streams are FIFOs, or a terminal's two ends. The caller
//! must [`Exec::end`] it.

use std::path::Path;
use std::time::Duration;

use containerd_client::services::v1::{
    CloseIoRequest, DeleteProcessRequest, ExecProcessRequest, ResizePtyRequest, StartRequest,
};
use nix::libc::ENXIO;
use prost_types::Any;
use tokio::net::unix::pipe;
use tonic::Code;

use super::exec::{Folder, next_exec_id};
use super::record::PROCESS_TYPE;
use crate::containerd::Containerd;
use crate::error::RuntimeError;
use crate::rpc::rpc;
use crate::types::ContainerId;

/// How long the shim may take to open its end of a stdin.
const OPENING: Duration = Duration::from_secs(5);
/// How often the end of a command is asked for: once to find that it runs, once more after each failure.
const ENDINGS: usize = 3;
const AGAIN: Duration = Duration::from_millis(1);
/// One wait of many for a command without a limit of its own.
const WAIT: Duration = Duration::from_secs(600);

/// A command and the streams it gets.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// stdout is the terminal's; there is no stderr.
    pub tty: bool,
}

/// A command that runs.
pub struct Exec {
    pub stdin: Option<pipe::Sender>,
    pub stdout: Option<pipe::Receiver>,
    pub stderr: Option<pipe::Receiver>,
    runtime: Containerd,
    id: ContainerId,
    exec_id: String,
    _folder: Folder,
}

// === impl Containerd ===

impl Containerd {
    /// Starts a command in a running container.
    ///
    /// # Errors
    /// When containerd or runc refuse it, for example because there is no such program.
    pub async fn open_exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<Exec, RuntimeError> {
        let process = self.exec_process(id, &request.command, request.tty).await?;
        let exec_id = next_exec_id();
        let folder = self.exec_folder(id, &exec_id)?;
        let fifo = |name: &str, wanted: bool| wanted.then(|| folder.fifo(name)).transpose();
        let stdin = fifo("stdin", request.stdin)?;
        let stdout = fifo("stdout", request.stdout || request.tty)?;
        let stderr = fifo("stderr", request.stderr && !request.tty)?;
        // Opened before the shim opens its end, which waits for a reader.
        let reader = |path: &Option<std::path::PathBuf>| {
            let open = |path: &std::path::PathBuf| {
                pipe::OpenOptions::new().open_receiver(path).map_err(|source| io_error(path, source))
            };
            path.as_ref().map(open).transpose()
        };
        let (out, err) = (reader(&stdout)?, reader(&stderr)?);
        let address = |path: &Option<std::path::PathBuf>| {
            path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
        };
        let create = ExecProcessRequest {
            container_id: id.0.clone(),
            stdin: address(&stdin),
            stdout: address(&stdout),
            stderr: address(&stderr),
            terminal: request.tty,
            spec: Some(Any { type_url: PROCESS_TYPE.into(), value: process }),
            exec_id: exec_id.clone(),
        };
        rpc!(self.client, self.config.timeouts.task, tasks.exec(create)).await?;
        let mut exec = Exec {
            stdin: None,
            stdout: out,
            stderr: err,
            runtime: self.clone(),
            id: id.clone(),
            exec_id,
            _folder: folder,
        };
        let start = StartRequest { container_id: id.0.clone(), exec_id: exec.exec_id.clone() };
        let started = rpc!(self.client, self.config.timeouts.task, tasks.start(start)).await;
        let opened = match (started, &stdin) {
            (Err(failed), _) => Err(failed.error),
            (Ok(_), None) => Ok(None),
            (Ok(_), Some(path)) => open_writer(path).await.map(Some),
        };
        match opened {
            Ok(stdin) => {
                exec.stdin = stdin;
                Ok(exec)
            }
            Err(error) => {
                exec.end().await;
                Err(error)
            }
        }
    }
}

// === impl Exec ===

impl Exec {
    /// Waits for the command's end.
    ///
    /// # Errors
    /// When containerd cannot tell, for example because the container is gone.
    pub async fn wait(&self) -> Result<i32, RuntimeError> {
        loop {
            match self.runtime.wait_process(&self.id, &self.exec_id, WAIT).await {
                Err(failed) if matches!(failed.error, RuntimeError::Timeout { .. }) => {}
                waited => return Ok(waited?),
            }
        }
    }

    /// Ends the command's stdin; the writing end must have been dropped.
    pub async fn close_stdin(&self) {
        let request =
            CloseIoRequest { container_id: self.id.0.clone(), exec_id: self.exec_id.clone(), stdin: true };
        self.runtime.close_io(request).await;
    }

    /// Tells the terminal its size.
    pub async fn resize(&self, width: u16, height: u16) {
        self.runtime.resize_terminal(&self.id, &self.exec_id, width, height).await;
    }

    /// Kills what is left of the command and forgets it.
    pub async fn end(self) {
        let runtime = &self.runtime;
        let delete = || {
            let (container_id, exec_id) = (self.id.0.clone(), self.exec_id.clone());
            let request = DeleteProcessRequest { container_id, exec_id };
            rpc!(runtime.client, runtime.config.timeouts.task, tasks.delete_process(request))
        };
        for _ in 0..ENDINGS {
            match delete().await {
                Ok(_) => return,
                Err(failed) if failed.code == Code::NotFound => return,
                // It still runs.
                Err(failed) if failed.is_refusal() => {}
                // containerd was restarted or is slow: what it was told may be lost.
                Err(failed) => {
                    tracing::debug!(container = self.id.0, error = %failed.error, "a command is ended again");
                    continue;
                }
            }
            if let Err(error) = runtime.kill_process(&self.id, &self.exec_id).await {
                tracing::debug!(container = self.id.0, %error, "a command was not killed");
            }
        }
        tracing::warn!(container = self.id.0, exec = self.exec_id, "a command may be left in a container");
    }
}

impl Containerd {
    pub(super) async fn close_io(&self, request: CloseIoRequest) {
        let limit = self.config.timeouts.metadata;
        // It may have ended on its own.
        if let Err(failed) = rpc!(self.client, limit, tasks.close_io(request)).await {
            tracing::debug!(error = %failed.error, "stdin was not closed");
        }
    }

    pub(super) async fn resize_terminal(&self, id: &ContainerId, exec_id: &str, width: u16, height: u16) {
        let request = ResizePtyRequest {
            container_id: id.0.clone(),
            exec_id: exec_id.to_owned(),
            width: width.into(),
            height: height.into(),
        };
        if let Err(failed) = rpc!(self.client, self.config.timeouts.metadata, tasks.resize_pty(request)).await
        {
            tracing::debug!(error = %failed.error, "a terminal keeps its size");
        }
    }
}

/// Opens a FIFO that the shim reads. Only once it has it open: what is written before is lost when we close first.
pub(super) async fn open_writer(path: &Path) -> Result<pipe::Sender, RuntimeError> {
    let opening = async {
        loop {
            match pipe::OpenOptions::new().open_sender(path) {
                Err(error) if error.raw_os_error() == Some(ENXIO) => tokio::time::sleep(AGAIN).await,
                opened => return opened.map_err(|source| io_error(path, source)),
            }
        }
    };
    tokio::time::timeout(OPENING, opening)
        .await
        .map_err(|_| RuntimeError::Timeout { call: "opening stdin", after: OPENING })?
}

fn io_error(path: &Path, source: std::io::Error) -> RuntimeError {
    RuntimeError::Io { path: path.display().to_string(), source }
}
