//! Tasks: the running side of containers.
//!
//! In: container ids. Out: processes made, started, signalled, waited for, deleted. A task that has stopped is kept until
//! its container is removed, because it knows how it ended and its cgroup knows why.

use std::time::Duration;

use containerd_client::services::v1::{
    CreateTaskRequest, DeleteTaskRequest, GetRequest, KillRequest, ListTasksRequest, StartRequest,
    WaitRequest,
};
use containerd_client::types::Mount;
use containerd_client::types::v1::{Process, Status};
use nix::libc::SIGKILL;
use tonic::Code;

use super::io::TaskIo;
use crate::error::RuntimeError;
use crate::rpc::{CallError, Client, Optional, rpc, rpc_once};

/// How long a killed process may take to die before the removal fails (it is tried again by the caller).
const DEATH: Duration = Duration::from_secs(10);

/// The call was cut off, or one before it was and containerd still clears away what that had begun: by the container's
/// id, so the folder of the earlier attempt is there, or the new one was removed under the shim that was to start in it.
pub(crate) fn is_cut_off(failed: &CallError) -> bool {
    if matches!(failed.error, RuntimeError::Unreachable { .. }) {
        return true;
    }
    let message = failed.error.to_string();
    let folder_gone =
        message.contains("failed to start shim") && message.contains("no such file or directory");
    failed.is_refusal() && (message.contains("file exists") || folder_gone)
}

// === impl Client ===

impl Client {
    pub(crate) async fn task(&self, id: &str) -> Result<Option<Process>, RuntimeError> {
        let request = GetRequest { container_id: id.to_owned(), ..Default::default() };
        let found = rpc!(self, self.timeouts.metadata, tasks.get(request)).await.optional()?;
        Ok(found.and_then(|found| found.process))
    }

    pub(crate) async fn all_tasks(&self) -> Result<Vec<Process>, RuntimeError> {
        let found = rpc!(self, self.timeouts.metadata, tasks.list(ListTasksRequest::default())).await?;
        Ok(found.tasks)
    }

    /// Makes a task, or finds the one that an earlier attempt made. Not repeated when containerd goes away meanwhile: what
    /// it had begun is in the way of a second task of the same name ([`is_cut_off`]).
    pub(crate) async fn create_task(
        &self,
        id: &str,
        rootfs: Vec<Mount>,
        io: TaskIo,
    ) -> Result<(), CallError> {
        let TaskIo { stdin, stdout, stderr, terminal } = io;
        let request = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            stdin,
            stdout,
            stderr,
            terminal,
            ..Default::default()
        };
        match rpc_once!(self, self.timeouts.task, tasks.create(request)) {
            Err(failed) if failed.code == Code::AlreadyExists => {
                let found = self.task(id).await?;
                if found.is_some_and(|task| task.status() != Status::Unknown) {
                    return Ok(());
                }
                // A shim whose runc was cut off half-way: it knows the name but has no process.
                self.delete_task(id).await?;
                Err(failed)
            }
            answered => answered.map(|_| ()),
        }
    }

    pub(crate) async fn start_task(&self, id: &str) -> Result<(), CallError> {
        let request = StartRequest { container_id: id.to_owned(), ..Default::default() };
        rpc!(self, self.timeouts.task, tasks.start(request)).await.map(|_| ())
    }

    /// No error when there is nothing left to signal.
    pub(crate) async fn kill_task(&self, id: &str, signal: i32, all: bool) -> Result<(), RuntimeError> {
        let signal =
            u32::try_from(signal).map_err(|_| RuntimeError::Config(format!("{signal} is not a signal")))?;
        let request = KillRequest { container_id: id.to_owned(), signal, all, ..Default::default() };
        match rpc!(self, self.timeouts.metadata, tasks.kill(request)).await.optional() {
            Err(RuntimeError::Call { message, .. }) if message.contains("process already finished") => Ok(()),
            answered => answered.map(|_| ()),
        }
    }

    /// Kills what is left of a task and deletes it; false when there was none.
    pub(crate) async fn delete_task(&self, id: &str) -> Result<bool, RuntimeError> {
        let request = DeleteTaskRequest { container_id: id.to_owned() };
        let delete = || rpc!(self, self.timeouts.task, tasks.delete(request.clone()));
        match delete().await {
            // "Cannot delete a running process", for which the versions of containerd have different codes.
            Err(failed) if failed.is_refusal() && failed.code != Code::NotFound => {}
            answered => return answered.optional().map(|found| found.is_some()),
        }
        self.kill_task(id, SIGKILL, true).await?;
        let request = WaitRequest { container_id: id.to_owned(), ..Default::default() };
        rpc!(self, DEATH, tasks.wait(request)).await.optional()?;
        delete().await.optional()?;
        Ok(true)
    }
}
