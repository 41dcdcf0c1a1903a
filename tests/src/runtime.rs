//! The runtime on a containerd and a registry of its own.
//!
//! In: the tools. Out: a [`Fixture`] with an image that can be pulled, and shorthands for what every suite does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use xebec_runtime::types::{
    ContainerConfig, ContainerId, ContainerKey, ContainerRuntime, ContainerState, Image, PodSandbox,
    PullRequest, Resources, RuntimeEvent, Security,
};
use xebec_runtime::{Containerd, ContainerdConfig, RegistryHost, Timeouts};

use crate::containerd::{TestContainerd, Tools};
use crate::image::{Recipe, TestImage};
use crate::registry::Registry;

/// Longest wait for an event.
const PATIENCE: Duration = Duration::from_secs(20);

/// One node's worth of runtime.
pub struct Fixture {
    pub runtime: Containerd,
    pub registry: Registry,
    pub image: TestImage,
    /// Last, so that it is torn down when nobody talks to it any more.
    pub containerd: TestContainerd,
    log_sink: PathBuf,
}

impl Fixture {
    /// Starts everything; `Ok(None)` when the test was skipped. `log_sink` is the suite's `CARGO_BIN_EXE_log-sink`.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(test: &str, log_sink: &str) -> Result<Option<Self>> {
        Self::with_image(test, log_sink, &Recipe::default()).await
    }

    /// As [`Self::start`], with an image of another recipe.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn with_image(test: &str, log_sink: &str, recipe: &Recipe) -> Result<Option<Self>> {
        let Some(tools) = Tools::find(test) else { return Ok(None) };
        let image = TestImage::build(&tools.busybox, recipe)?;
        let registry = Registry::start().await?;
        registry.put("library/busybox", "latest", &image);
        let containerd = TestContainerd::start(&tools)?;
        let log_sink = PathBuf::from(log_sink);
        let config = config(&containerd, &registry, &log_sink);
        let runtime = Containerd::connect(config).await?;
        Ok(Some(Self { runtime, registry, image, containerd, log_sink }))
    }

    /// The runtime of an agent that was restarted: it knows nothing but what containerd knows.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn restarted(&self) -> Result<Containerd> {
        Ok(Containerd::connect(config(&self.containerd, &self.registry, &self.log_sink)).await?)
    }

    /// # Errors
    /// When the image cannot be pulled.
    pub async fn pull(&self) -> Result<Image> {
        Ok(self.runtime.pull(&request("busybox")).await?)
    }

    /// A container that runs a shell script.
    ///
    /// # Errors
    /// When its log folder cannot be made.
    pub fn config(&self, name: &str, image: &Image, script: &str) -> Result<ContainerConfig> {
        let log_path = self.log_path(name);
        fs::create_dir_all(log_path.parent().context("a log has a folder")?)?;
        Ok(ContainerConfig {
            key: ContainerKey { pod_uid: "uid-1".into(), container: name.into(), attempt: 0 },
            pod_namespace: "default".into(),
            pod_name: "pod".into(),
            sandbox: PodSandbox {
                cgroup_parent: format!("{}/pod1", self.containerd.cgroup),
                ..PodSandbox::default()
            },
            image: image.clone(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            args: Vec::new(),
            working_dir: String::new(),
            env: Vec::new(),
            mounts: Vec::new(),
            resources: Resources::default(),
            security: Security::default(),
            stdin: false,
            tty: false,
            log_path,
            log_max_size: 10 << 20,
            log_max_files: 3,
            labels: [("hash".to_owned(), "abc".to_owned())].into(),
        })
    }

    #[must_use]
    pub fn log_path(&self, name: &str) -> PathBuf {
        self.containerd.path("logs").join(name).join("0.log")
    }

    /// Runs a container to its end and answers its state.
    ///
    /// # Errors
    /// When a call fails or it does not end.
    pub async fn run(&self, config: &ContainerConfig) -> Result<(ContainerId, ContainerState)> {
        let id = self.runtime.create(config).await?;
        self.runtime.start(&id).await?;
        Ok((id.clone(), self.exited(&id).await?))
    }

    /// Waits for a container's end.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn exited(&self, id: &ContainerId) -> Result<ContainerState> {
        self.settled(id, |state| matches!(state, ContainerState::Exited { .. })).await
    }

    /// Waits until a container's state is as wished; looks again at every event.
    ///
    /// # Errors
    /// When it does not become so.
    pub async fn settled(
        &self,
        id: &ContainerId,
        wished: impl Fn(&ContainerState) -> bool,
    ) -> Result<ContainerState> {
        let mut events = self.runtime.events();
        let mut last = None;
        let waiting = async {
            while events.recv().await.is_some() {
                last = self.runtime.container(id).await?.map(|container| container.state);
                if let Some(state) = last.as_ref().filter(|state| wished(state)) {
                    return Ok(state.clone());
                }
            }
            bail!("the events ended")
        };
        match timeout(PATIENCE, waiting).await {
            Ok(state) => state,
            Err(_) => bail!("after {PATIENCE:?} the container is {last:?}"),
        }
    }

    /// Texts of the entries of a container's log, of one stream or (with `""`) of both.
    ///
    /// # Errors
    /// When an entry is not in CRI format.
    pub fn log(&self, name: &str, stream: &str) -> Result<Vec<String>> {
        entries(&self.log_path(name), stream)
    }

    /// Waits until a container's log has an entry that ends with a text. The sink writes on its own time.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn logged(&self, name: &str, text: &str) -> Result<Vec<String>> {
        let looking = async {
            loop {
                let log = self.log(name, "").unwrap_or_default();
                if log.iter().any(|entry| entry.ends_with(text)) {
                    return log;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match timeout(PATIENCE, looking).await {
            Ok(log) => Ok(log),
            Err(_) => bail!("{text:?} is not in the log: {:?}", self.log(name, "")),
        }
    }

    /// Removes all containers and checks that nothing of them is left.
    ///
    /// # Errors
    /// When something is.
    pub async fn leaves_nothing(&self) -> Result<()> {
        for container in self.runtime.containers().await? {
            self.runtime.remove(&container.id).await?;
        }
        ensure!(self.runtime.containers().await?.is_empty(), "containers stay");
        let gone = || {
            let shims: Vec<_> = self
                .containerd
                .processes()
                .into_iter()
                .filter(|(_, line)| !line.contains("config.toml"))
                .collect();
            (shims, self.containerd.mounts(), self.containerd.cgroups())
        };
        // Shims and sinks end on their own after the task is deleted.
        let ended = async {
            while !gone().0.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(PATIENCE, ended).await;
        let (shims, mounts, cgroups) = gone();
        ensure!(shims.is_empty(), "processes stay: {shims:?}");
        ensure!(mounts.is_empty(), "mounts stay: {mounts:?}");
        let containers: Vec<_> = cgroups.iter().filter(|cgroup| !cgroup.ends_with("pod1")).collect();
        ensure!(containers.is_empty(), "cgroups stay: {containers:?}");
        let snapshots = self.ctr(&["snapshots", "ls"])?;
        let active: Vec<_> = snapshots.lines().filter(|line| line.contains("Active")).collect();
        ensure!(active.is_empty(), "snapshots stay: {active:?}");
        Ok(())
    }

    /// containerd's own client, as a second opinion.
    ///
    /// # Errors
    /// When it fails.
    pub fn ctr(&self, args: &[&str]) -> Result<String> {
        let mut ctr = self.containerd.enter(&self.containerd.tools.ctr);
        ctr.arg("--address").arg(self.containerd.socket()).args(["--namespace", "k8s.io"]).args(args);
        let output = ctr.output().context("ctr")?;
        ensure!(output.status.success(), "ctr {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// # Panics
/// Never: the value is plain.
#[must_use]
pub fn request(image: &str) -> PullRequest {
    PullRequest { image: image.to_owned(), auth: Vec::new() }
}

/// Waits for the next event of a kind.
///
/// # Errors
/// When it does not come.
pub async fn next_event(
    events: &mut Receiver<RuntimeEvent>,
    wished: impl Fn(&RuntimeEvent) -> bool,
) -> Result<RuntimeEvent> {
    let waiting = async {
        loop {
            match events.recv().await {
                Some(event) if wished(&event) => return Ok(event),
                Some(_) => {}
                None => bail!("the events ended"),
            }
        }
    };
    timeout(PATIENCE, waiting).await.context("the event did not come")?
}

/// Texts of the entries of a log file.
///
/// # Errors
/// When an entry is not in CRI format.
pub fn entries(path: &Path, stream: &str) -> Result<Vec<String>> {
    let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
    let mut texts = Vec::new();
    for line in text.split_terminator('\n') {
        let mut fields = line.splitn(4, ' ');
        let (stamp, from, tag) = (fields.next(), fields.next(), fields.next());
        let stamped = stamp.is_some_and(|stamp| stamp.len() == 30 && stamp.ends_with('Z'));
        let from = from.filter(|from| matches!(*from, "stdout" | "stderr"));
        ensure!(stamped && from.is_some() && matches!(tag, Some("F" | "P")), "not an entry: {line:?}");
        if stream.is_empty() || from == Some(stream) {
            texts.push(fields.next().unwrap_or_default().to_owned());
        }
    }
    Ok(texts)
}

fn config(containerd: &TestContainerd, registry: &Registry, log_sink: &Path) -> ContainerdConfig {
    ContainerdConfig {
        socket: containerd.socket(),
        log_sink: log_sink.to_owned(),
        runc_root: containerd.path("runc"),
        run_dir: containerd.path("run"),
        registries: vec![RegistryHost {
            registry: "docker.io".into(),
            mirrors: vec![format!("http://{}", registry.address)],
            mirrors_only: true,
        }],
        timeouts: Timeouts {
            unreachable: Duration::from_secs(5),
            registry_progress: Duration::from_secs(1),
            ..Timeouts::default()
        },
        ..ContainerdConfig::default()
    }
}
