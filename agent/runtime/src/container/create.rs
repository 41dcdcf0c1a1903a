//! Making and starting containers, each step safe to repeat.
//!
//! In: a configuration. Out: record → snapshot → task, in this order: the record comes first because it keeps the snapshot
//! from the garbage collector. A creation that was cut off anywhere is found by its key: one with a task is adopted,
//! anything less is left to its removal and made again, from the configuration at hand and under another id.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use containerd_client::services::v1::snapshots::PrepareSnapshotRequest;
use containerd_client::services::v1::{
    Container as Record, CreateContainerRequest, GetContainerRequest, ListContainersRequest,
};
use containerd_client::types::Mount;
use containerd_client::types::v1::Status;
use tonic::Code;

use super::io::Inputs;
use super::marks::{Exit, Marks};
use super::record::{self, Identity, Template};
use super::shm;
use super::task::is_cut_off;
use crate::containerd::Containerd;
use crate::error::RuntimeError;
use crate::image::etc::EtcFiles;
use crate::image::manifest::ImageConfig;
use crate::log_sink;
use crate::rpc::{CallError, Client, Optional, rpc};
use crate::spec::seccomp::local_profile;
use crate::spec::{self, Facts, devices, user};
use crate::types::{ContainerConfig, ContainerId, Seccomp};

/// How often one call begins a creation that is cut off.
const CREATIONS: u32 = 4;
/// Nobody's to mount.
const HOST_SHM: &str = "/dev/shm";

/// Why a container could not be made.
enum MakeError {
    /// Nothing is wrong with the container: what was begun is to be left alone and made again.
    CutOff(RuntimeError),
    Failed(RuntimeError),
}

impl From<RuntimeError> for MakeError {
    fn from(error: RuntimeError) -> Self {
        Self::Failed(error)
    }
}

// === impl Containerd ===

impl Containerd {
    pub(crate) async fn make(&self, config: &ContainerConfig) -> Result<ContainerId, RuntimeError> {
        let image = self.config_of_image(&config.image.id).await?;
        let mut tries = 0;
        loop {
            tries += 1;
            let found = self.client.generations(&config.key).await?;
            if let Some(whole) = self.adopt(&found).await? {
                return Ok(whole);
            }
            let generation = found.iter().map(|(_, known)| known.generation + 1).max().unwrap_or(0);
            self.supersede(found).await?;
            match self.make_generation(config, &image, generation).await {
                Err(MakeError::CutOff(error)) if tries < CREATIONS => {
                    tracing::info!(container = ?config.key, generation, %error, "a creation was cut off");
                }
                Err(MakeError::CutOff(error) | MakeError::Failed(error)) => return Err(error),
                Ok(id) => return Ok(id),
            }
        }
    }

    async fn make_generation(
        &self,
        config: &ContainerConfig,
        image: &ImageConfig,
        generation: u32,
    ) -> Result<ContainerId, MakeError> {
        let id = record::id_of(&config.key, generation);
        let facts = self.facts(config, &id, image).await?;
        if let Some(path) = config.sandbox.shm.as_deref().filter(|path| *path != Path::new(HOST_SHM)) {
            shm::ensure(path)?;
        }
        let spec = spec::build(config, &facts)?;
        let folder = self.io_folder(&id.0);
        let log = log_sink::uri(&self.config.log_sink, &log_sink::Settings::of(config, folder.path()));
        let template = Template {
            snapshotter: &self.config.snapshotter,
            runc_root: &self.config.runc_root,
            runc_binary: self.config.runc_binary.as_deref(),
            generation,
        };
        let record = record::build(config, &id, &spec, &log, &template)?;
        // When it exists, then by a try of this call whose answer was lost.
        self.client.create_record(&record).await?;
        self.marks.forget(&id.0);
        let rootfs = self.prepare_rootfs(&id, &image.chain_id(), &config.image.id).await?;
        self.make_task(&id, rootfs, &log, Inputs { stdin: config.stdin, tty: config.tty }).await?;
        Ok(id)
    }

    pub(crate) async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let Some((record, identity)) = self.client.record(&id.0).await? else {
            return Err(RuntimeError::Call {
                call: "start",
                message: format!("container {}: not found", id.0),
            });
        };
        let marks = self.marks.of(&record);
        if let Some(exit) = marks.exit {
            return refused(&exit);
        }
        match self.client.task(&id.0).await?.map(|task| task.status()) {
            Some(Status::Created) => {}
            None if marks.started.is_none() => {
                self.make_task_again(id, &identity).await?;
                if let Some(exit) = self.marks.of(&record).exit {
                    return refused(&exit);
                }
            }
            // It was started before.
            _ => return Ok(()),
        }
        let now = SystemTime::now();
        self.marks.note_start(&id.0, now);
        let (started, marked) =
            tokio::join!(self.client.start_task(&id.0), self.client.mark_started(&id.0, now));
        match started {
            Ok(()) => marked,
            Err(failed) => self.judge_failed_start(id, failed).await,
        }
    }

    /// The one among a container's generations that is whole: it has a task, or it ran.
    async fn adopt(&self, found: &[(Record, Identity)]) -> Result<Option<ContainerId>, RuntimeError> {
        for (record, _) in found.iter().filter(|(_, known)| !known.superseded) {
            let whole = self.marks.of(record) != Marks::default()
                || self.client.task(&record.id).await?.is_some_and(|task| task.status() != Status::Unknown);
            if whole {
                return Ok(Some(ContainerId(record.id.clone())));
            }
        }
        Ok(None)
    }

    /// The task. A refusal by runc (no such program, a bad mount) is the container's own end, as it is under CRI, where
    /// the task is made at start: it is kept on the record and told by `start`.
    async fn make_task(
        &self,
        id: &ContainerId,
        rootfs: Vec<Mount>,
        log: &str,
        inputs: Inputs,
    ) -> Result<(), MakeError> {
        let io = self.prepare_io(id, log, inputs).await?;
        match self.client.create_task(&id.0, rootfs, io).await {
            Ok(()) => Ok(()),
            Err(failed) if is_cut_off(&failed) => Err(MakeError::CutOff(failed.error)),
            Err(failed) if failed.is_refusal() => {
                let reason = format!("failed to create containerd task: {}", message(&failed.error));
                Ok(self.keep_exit(id, &Exit::refused(&reason)).await?)
            }
            Err(failed) => Err(MakeError::Failed(failed.error)),
        }
    }

    /// A record without a task that never ran: creation was cut off.
    async fn make_task_again(&self, id: &ContainerId, identity: &Identity) -> Result<(), RuntimeError> {
        let image = self.config_of_image(&identity.image_id).await?;
        let rootfs = self.prepare_rootfs(id, &image.chain_id(), &identity.image_id).await?;
        let inputs = Inputs { stdin: identity.stdin, tty: identity.tty };
        match self.make_task(id, rootfs, &identity.log, inputs).await {
            Err(MakeError::CutOff(error) | MakeError::Failed(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    /// A start that was answered with an error may still have succeeded, now or before.
    async fn judge_failed_start(&self, id: &ContainerId, failed: CallError) -> Result<(), RuntimeError> {
        let task = self.client.task(&id.0).await?;
        match task.map(|task| task.status()) {
            Some(Status::Running | Status::Paused | Status::Pausing | Status::Stopped)
                if failed.code == Code::FailedPrecondition || !failed.is_refusal() =>
            {
                Ok(())
            }
            _ if failed.is_refusal() => {
                let exit =
                    Exit::refused(&format!("failed to start containerd task: {}", message(&failed.error)));
                self.keep_exit(id, &exit).await?;
                refused(&exit)
            }
            _ => Err(failed.error),
        }
    }

    pub(crate) async fn keep_exit(&self, id: &ContainerId, exit: &Exit) -> Result<(), RuntimeError> {
        self.marks.note_refusal(&id.0, exit);
        self.client.mark_exit(&id.0, exit).await
    }

    /// The container's own writable layer; an image whose snapshots were lost is unpacked again.
    async fn prepare_rootfs(
        &self,
        id: &ContainerId,
        chain_id: &str,
        image_id: &str,
    ) -> Result<Vec<Mount>, RuntimeError> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.config.snapshotter.clone(),
            key: id.0.clone(),
            parent: chain_id.to_owned(),
            ..Default::default()
        };
        let prepared = match self.client.prepare_snapshot(request.clone()).await {
            Err(failed) if failed.code == Code::NotFound => {
                self.unpack_again(image_id).await?;
                self.client.prepare_snapshot(request).await
            }
            prepared => prepared,
        };
        match prepared {
            Ok(mounts) => Ok(mounts),
            Err(failed) if failed.code == Code::AlreadyExists => {
                let found = self.client.snapshot_mounts(&self.config.snapshotter, &id.0).await?;
                Ok(found.unwrap_or_default())
            }
            Err(failed) => Err(failed.error),
        }
    }

    pub(crate) async fn config_of_image(&self, image_id: &str) -> Result<Arc<ImageConfig>, RuntimeError> {
        let config = self.client.image_config(&self.images, image_id).await?;
        config.ok_or_else(|| RuntimeError::Config(format!("image {image_id} is not present")))
    }

    async fn facts(
        &self,
        config: &ContainerConfig,
        id: &ContainerId,
        image: &ImageConfig,
    ) -> Result<Facts, RuntimeError> {
        let etc = self.etc_of_image(&image.chain_id(), &config.image.id).await?;
        let user = user::resolve(config, &etc).map_err(RuntimeError::Config)?;
        let pid_namespace = match &config.sandbox.pid_of {
            Some(other) => Some(self.pid_namespace(other).await?),
            None => None,
        };
        let seccomp_profile = match &config.security.seccomp {
            Seccomp::Localhost(path) if !config.security.privileged => {
                let folder = &self.config.seccomp_dir;
                Some(local_profile::read(folder, path).map_err(RuntimeError::Config)?)
            }
            _ => None,
        };
        let devices = if config.security.privileged { devices::of_host()? } else { Vec::new() };
        let cgroup = record::cgroup_of(config, id);
        Ok(Facts { host: self.host.clone(), user, pid_namespace, seccomp_profile, devices, cgroup })
    }

    /// The image's passwd and group; read once per image.
    async fn etc_of_image(&self, chain_id: &str, image_id: &str) -> Result<Arc<EtcFiles>, RuntimeError> {
        if let Some(known) = self.images.etc(chain_id) {
            return Ok(known);
        }
        if !chain_id.is_empty() && !self.client.has_snapshot(&self.config.snapshotter, chain_id).await? {
            self.unpack_again(image_id).await?;
        }
        // One reader at a time: the view has one name per image.
        let _turn = self.etc_turn.lock().await;
        if let Some(known) = self.images.etc(chain_id) {
            return Ok(known);
        }
        let mount_point = self.config.run_dir.join("image");
        let files = self.client.read_etc(&self.config.snapshotter, chain_id, &mount_point).await?;
        Ok(self.images.keep_etc(chain_id, files))
    }

    async fn pid_namespace(&self, other: &ContainerId) -> Result<PathBuf, RuntimeError> {
        match self.client.task(&other.0).await? {
            Some(task) if task.pid > 0 && task.status() != Status::Stopped => {
                Ok(format!("/proc/{}/ns/pid", task.pid).into())
            }
            _ => Err(RuntimeError::Call {
                call: "create",
                message: format!(
                    "container {}, whose PID namespace is to be joined, is not running",
                    other.0
                ),
            }),
        }
    }

    async fn unpack_again(&self, image_id: &str) -> Result<(), RuntimeError> {
        for record in self.client.image_records().await? {
            let target = record.target.unwrap_or_default().digest;
            let Some(documents) = self.client.documents(&self.images, &target).await? else { continue };
            if documents.manifest.config.digest == image_id {
                return self.puller.unpack_present(&record.name, &documents).await;
            }
        }
        Err(RuntimeError::Config(format!("image {image_id} is not present")))
    }
}

fn refused(exit: &Exit) -> Result<(), RuntimeError> {
    match &exit.refusal {
        Some(reason) => Err(RuntimeError::Call { call: "start", message: reason.clone() }),
        None => Ok(()),
    }
}

/// What containerd said, without our own prefix.
fn message(error: &RuntimeError) -> String {
    match error {
        RuntimeError::Call { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

// === impl Client ===

impl Client {
    /// False when the record exists.
    async fn create_record(&self, record: &Record) -> Result<bool, RuntimeError> {
        let request = CreateContainerRequest { container: Some(record.clone()) };
        match rpc!(self, self.timeouts.metadata, containers.create(request)).await {
            Ok(_) => Ok(true),
            Err(failed) if failed.code == Code::AlreadyExists => Ok(false),
            Err(failed) => Err(failed.error),
        }
    }

    pub(crate) async fn record(&self, id: &str) -> Result<Option<(Record, Identity)>, RuntimeError> {
        let request = GetContainerRequest { id: id.to_owned() };
        let found = rpc!(self, self.timeouts.metadata, containers.get(request)).await.optional()?;
        let record = found.and_then(|found| found.container);
        let known = record.and_then(|record| record::identity(&record).map(|identity| (record, identity)));
        Ok(known.filter(|(_, identity)| !identity.superseded))
    }

    /// All our records but superseded ones.
    pub(crate) async fn records(&self) -> Result<Vec<(Record, Identity)>, RuntimeError> {
        let mut records = self.list_records(record::filter()).await?;
        records.retain(|(_, identity)| !identity.superseded);
        Ok(records)
    }

    /// Streamed: together they can be larger than a message.
    pub(super) async fn list_records(&self, filter: String) -> Result<Vec<(Record, Identity)>, RuntimeError> {
        const CALL: &str = "containers.list_stream";
        let request = ListContainersRequest { filters: vec![filter] };
        let mut stream = rpc!(self, self.timeouts.metadata, containers.list_stream(request)).await?;
        let mut records = Vec::new();
        loop {
            let next = tokio::time::timeout(self.timeouts.metadata, stream.message()).await;
            match next.map_err(|_| CallError::timeout(CALL, self.timeouts.metadata))? {
                Ok(Some(message)) => {
                    let record = message.container.unwrap_or_default();
                    records.extend(record::identity(&record).map(|identity| (record, identity)));
                }
                Ok(None) => return Ok(records),
                Err(status) => return Err(self.failed(CALL, &status).into()),
            }
        }
    }
}
