//! [`ContainerRuntime`] on containerd.
//!
//! In: the trait's calls. Out: their parts in [`crate::image`] and [`crate::container`], put together.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use containerd_client::services::v1::Container as Record;
use containerd_client::types::v1::Process;
use tokio::sync::{Mutex, mpsc};

use crate::config::ContainerdConfig;
use crate::container::marks::{MarkBook, Marks};
use crate::container::record::Identity;
use crate::container::{cgroup, events, state};
use crate::error::{PullError, RuntimeError};
use crate::image::pull::Puller;
use crate::image::store::{ImageCache, add_name, describe, record_name};
use crate::registry::Registry;
use crate::rpc::{Client, rpc};
use crate::spec::host::HostFacts;
use crate::types::{
    Container, ContainerConfig, ContainerId, ContainerRuntime, ExecOutput, Image, PullRequest, RuntimeEvent,
};

/// A handle on a node's containerd. Clones share everything.
#[derive(Clone)]
pub struct Containerd(Arc<Inner>);

/// A record, who it is, and its marks at the time it was read.
type Marked = (Record, Identity, Marks);

pub struct Inner {
    pub(crate) client: Client,
    pub(crate) config: ContainerdConfig,
    pub(crate) host: HostFacts,
    pub(crate) images: Arc<ImageCache>,
    pub(crate) puller: Puller,
    pub(crate) marks: MarkBook,
    pub(crate) etc_turn: Mutex<()>,
}

impl std::ops::Deref for Containerd {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

// === impl Containerd ===

impl Containerd {
    /// Prepares a connection and checks that containerd answers.
    ///
    /// # Errors
    /// When it does not within `timeouts.unreachable`, or the configuration cannot be used.
    pub async fn connect(config: ContainerdConfig) -> Result<Self, RuntimeError> {
        let runtime = Self::new(config)?;
        runtime.version().await?;
        // Before any container is made: whose sink is about to begin must not get a second one.
        if let Err(error) = runtime.adopt_sinks().await {
            tracing::warn!(%error, "containers with stdin may be without their log sink");
        }
        let sweeper = runtime.clone();
        tokio::spawn(async move {
            if let Err(error) = sweeper.sweep().await {
                tracing::warn!(%error, "creations that were cut off were not removed");
            }
        });
        Ok(runtime)
    }

    fn new(config: ContainerdConfig) -> Result<Self, RuntimeError> {
        let io = |path: &Path, source| RuntimeError::Io { path: path.display().to_string(), source };
        // The folder holds FIFOs that carry containers' data.
        create_private(&config.run_dir).map_err(|source| io(&config.run_dir, source))?;
        let stale = config.run_dir.join("exec");
        match std::fs::remove_dir_all(&stale) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(&stale, error)),
            _ => {}
        }
        let client = Client::new(&config.socket, &config.namespace, config.timeouts)?;
        let registry =
            Registry::new(config.registries.clone(), &config.timeouts).map_err(RuntimeError::Config)?;
        let images = Arc::new(ImageCache::default());
        let puller = Puller::new(client.clone(), registry, &config, Arc::clone(&images));
        Ok(Self(Arc::new(Inner {
            client,
            host: HostFacts::read(&config.cgroup_root),
            images,
            puller,
            marks: MarkBook::default(),
            etc_turn: Mutex::new(()),
            config,
        })))
    }

    /// A record, its marks and its task as one container. The marks must be older than the task: a container that was
    /// started in between would look like one whose task is lost. An exit that is seen here first is kept on the record.
    fn container_of(&self, (record, identity, marks): Marked, task: Option<&Process>) -> Container {
        let oom = || cgroup::oom_killed(&self.config.cgroup_root, &identity.cgroup);
        let (state, exit) = state::of(&marks, state::time(record.created_at), task, oom);
        if let Some(exit) = exit
            && self.marks.note_exit(&record, &exit)
        {
            let (runtime, id) = (self.clone(), record.id.clone());
            tokio::spawn(async move {
                if let Err(error) = runtime.client.mark_exit(&id, &exit).await {
                    tracing::warn!(container = id, %error, "an exit could not be kept");
                }
            });
        }
        state::container(record, identity, state)
    }

    fn marked(&self, (record, identity): (Record, Identity)) -> Marked {
        let marks = self.marks.of(&record);
        (record, identity, marks)
    }
}

fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

impl ContainerRuntime for Containerd {
    async fn version(&self) -> Result<String, RuntimeError> {
        let answer = rpc!(self.client, self.config.timeouts.metadata, version.version(())).await?;
        // Debian's has a suffix after "~" or "+": what upstream shows is the plain number.
        let version = answer.version.trim_start_matches('v');
        let plain = version.split(['~', '+']).next().unwrap_or(version);
        Ok(format!("containerd://{plain}"))
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        let Some(name) = record_name(reference) else { return Ok(None) };
        let Some(record) = self.client.image_record(&name).await? else { return Ok(None) };
        let target = record.target.unwrap_or_default().digest;
        let Some(documents) = self.client.documents(&self.images, &target).await? else { return Ok(None) };
        let chain_id = documents.config.chain_id();
        if !chain_id.is_empty() && !self.client.has_snapshot(&self.config.snapshotter, &chain_id).await? {
            return Ok(None);
        }
        let mut image = describe(&documents, &target);
        add_name(&mut image, &name, &target);
        if !image.repo_digest.contains('@') {
            // Found by its id: its names are on other records.
            let mut all = self.client.present_images(&self.images, &self.config.snapshotter).await?;
            return Ok(all.remove(&image.id));
        }
        Ok(Some(image))
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        let images = self.client.present_images(&self.images, &self.config.snapshotter).await?;
        Ok(images.into_values().collect())
    }

    async fn pull(&self, request: &PullRequest) -> Result<Image, PullError> {
        self.puller.pull(request).await
    }

    async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError> {
        let Some(name) = record_name(reference) else { return Ok(()) };
        let Some(record) = self.client.image_record(&name).await? else { return Ok(()) };
        let id = match self.client.documents(&self.images, &record.target.unwrap_or_default().digest).await? {
            Some(documents) => documents.manifest.config.digest.clone(),
            None => return self.client.unname_image(&name).await,
        };
        // All names of the image, as CRI does: the kubelet means the image, not one of its names.
        for record in self.client.image_records().await? {
            let target = record.target.unwrap_or_default().digest;
            let documents = self.client.documents(&self.images, &target).await?;
            if documents.is_some_and(|documents| documents.manifest.config.digest == id) {
                self.client.unname_image(&record.name).await?;
            }
        }
        Ok(())
    }

    async fn create(&self, config: &ContainerConfig) -> Result<ContainerId, RuntimeError> {
        self.make(config).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.start_container(id).await
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        self.client.kill_task(&id.0, signal, false).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.erase(id).await
    }

    async fn container(&self, id: &ContainerId) -> Result<Option<Container>, RuntimeError> {
        let Some(found) = self.client.record(&id.0).await? else { return Ok(None) };
        let marked = self.marked(found);
        let task = self.client.task(&id.0).await?;
        Ok(Some(self.container_of(marked, task.as_ref())))
    }

    async fn containers(&self) -> Result<Vec<Container>, RuntimeError> {
        let records = self.client.records().await?;
        let marked: Vec<Marked> = records.into_iter().map(|found| self.marked(found)).collect();
        let tasks = self.client.all_tasks().await?;
        let tasks: HashMap<String, Process> = tasks.into_iter().map(|task| (task.id.clone(), task)).collect();
        let containers = marked.into_iter().map(|found| {
            let task = tasks.get(&found.0.id);
            self.container_of(found, task)
        });
        Ok(containers.collect())
    }

    fn events(&self) -> mpsc::Receiver<RuntimeEvent> {
        events::listen(self.clone())
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        self.run_command(id, command, timeout).await
    }
}
