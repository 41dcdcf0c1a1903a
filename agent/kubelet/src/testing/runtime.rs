//! A runtime whose containers are rows in a table. Tests say when they exit and what their commands answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use xebec_runtime::error::{PullError, RuntimeError};
use xebec_runtime::types::{
    Container, ContainerConfig, ContainerId, ContainerRuntime, ContainerState, ExecOutput, Image,
    PullRequest, RuntimeEvent,
};

#[derive(Clone, Default)]
pub(crate) struct FakeRuntime {
    world: Arc<Mutex<World>>,
}

#[derive(Default)]
struct World {
    containers: BTreeMap<ContainerId, Container>,
    configs: BTreeMap<ContainerId, ContainerConfig>,
    calls: Vec<String>,
    missing_images: BTreeSet<String>,
    ignores_term: BTreeSet<String>,
    start_errors: BTreeMap<String, String>,
    exec_codes: BTreeMap<String, i32>,
    listeners: Vec<mpsc::Sender<RuntimeEvent>>,
    is_down: bool,
}

impl FakeRuntime {
    fn with<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        f(&mut self.world.lock().unwrap())
    }

    /// Calls since the last time, without reads: `create c/0`, `start c/0`, `signal c/0 15`, `remove c/0`.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        self.with(|w| std::mem::take(&mut w.calls))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.with(|w| w.containers.is_empty())
    }

    pub(crate) fn config(&self, container: &str, attempt: u32) -> ContainerConfig {
        self.with(|w| {
            let found = w.configs.values().find(|c| c.key.container == container && c.key.attempt == attempt);
            found.unwrap().clone()
        })
    }

    pub(crate) fn miss_image(&self, image: &str, missing: bool) {
        self.with(|w| {
            if missing { w.missing_images.insert(image.into()) } else { w.missing_images.remove(image) }
        });
    }

    /// Lists no containers any more, until told otherwise.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.with(|w| w.is_down = is_down);
    }

    pub(crate) fn ignore_term(&self, container: &str) {
        self.with(|w| w.ignores_term.insert(container.into()));
    }

    pub(crate) fn fail_start(&self, container: &str, error: Option<&str>) {
        self.with(|w| match error {
            Some(error) => w.start_errors.insert(container.into(), error.into()),
            None => w.start_errors.remove(container),
        });
    }

    /// What `exec` of a command that begins with this word returns; 0 unless told.
    pub(crate) fn exec_code(&self, word: &str, code: i32) {
        self.with(|w| w.exec_codes.insert(word.into(), code));
    }

    /// The running container of that name ends.
    pub(crate) fn exit(&self, container: &str, code: i32) {
        let ended = self.with(|w| {
            let running = w
                .containers
                .values_mut()
                .find(|c| c.key.container == container && matches!(c.state, ContainerState::Running { .. }));
            let running = running.unwrap();
            end(running, code);
            running.id.clone()
        });
        self.tell(RuntimeEvent::Exited { id: ended });
    }

    fn tell(&self, event: RuntimeEvent) {
        self.with(|w| w.listeners.retain(|l| l.try_send(event.clone()).is_ok()));
    }
}

fn end(container: &mut Container, code: i32) {
    let started_at = match container.state {
        ContainerState::Running { started_at, .. } => Some(started_at),
        _ => None,
    };
    container.state = ContainerState::Exited {
        code,
        signal: None,
        started_at,
        finished_at: SystemTime::now(),
        oom_killed: false,
    };
}

fn image(reference: &str) -> Image {
    Image {
        id: "sha256:config".into(),
        names: vec![reference.to_owned()],
        repo_digest: format!("{reference}@sha256:manifest"),
        size: 1000,
        user: String::new(),
        entrypoint: vec![],
        cmd: vec![],
        env: vec![],
        working_dir: String::new(),
        stop_signal: None,
    }
}

fn label(config: &ContainerConfig) -> String {
    format!("{}/{}", config.key.container, config.key.attempt)
}

impl ContainerRuntime for FakeRuntime {
    async fn version(&self) -> Result<String, RuntimeError> {
        Ok("fake://1".into())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        Ok(self.with(|w| !w.missing_images.contains(reference)).then(|| image(reference)))
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(vec![])
    }

    async fn pull(&self, request: &PullRequest) -> Result<Image, PullError> {
        if self.with(|w| w.missing_images.contains(&request.image)) {
            return Err(PullError::NotFound { image: request.image.clone() });
        }
        Ok(image(&request.image))
    }

    async fn remove_image(&self, _reference: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn create(&self, config: &ContainerConfig) -> Result<ContainerId, RuntimeError> {
        let id = ContainerId(format!("{}-{}", config.key.pod_uid, label(config)));
        std::fs::write(&config.log_path, "").unwrap();
        self.with(|w| {
            w.calls.push(format!("create {}", label(config)));
            w.configs.insert(id.clone(), config.clone());
            w.containers.entry(id.clone()).or_insert_with(|| Container {
                id: id.clone(),
                key: config.key.clone(),
                pod_namespace: config.pod_namespace.clone(),
                pod_name: config.pod_name.clone(),
                image_id: config.image.id.clone(),
                image_name: config.image.names.first().cloned().unwrap_or_default(),
                created_at: SystemTime::now(),
                state: ContainerState::Created,
                labels: config.labels.clone(),
            });
        });
        Ok(id)
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.with(|w| {
            let container = w.containers.get_mut(id).unwrap();
            w.calls.push(format!("start {}/{}", container.key.container, container.key.attempt));
            if let Some(error) = w.start_errors.get(&container.key.container) {
                return Err(RuntimeError::Call { call: "start", message: error.clone() });
            }
            container.state = ContainerState::Running { pid: 1, started_at: SystemTime::now() };
            Ok(())
        })
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        let ended = self.with(|w| {
            let Some(container) = w.containers.get_mut(id) else { return false };
            w.calls.push(format!("signal {}/{} {signal}", container.key.container, container.key.attempt));
            let dies = signal == 9 || !w.ignores_term.contains(&container.key.container);
            let runs = matches!(container.state, ContainerState::Running { .. });
            if dies && runs {
                end(container, 128 + signal);
            }
            dies && runs
        });
        if ended {
            self.tell(RuntimeEvent::Exited { id: id.clone() });
        }
        Ok(())
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.with(|w| {
            if let Some(container) = w.containers.remove(id) {
                w.calls.push(format!("remove {}/{}", container.key.container, container.key.attempt));
            }
        });
        Ok(())
    }

    async fn container(&self, id: &ContainerId) -> Result<Option<Container>, RuntimeError> {
        Ok(self.with(|w| w.containers.get(id).cloned()))
    }

    async fn containers(&self) -> Result<Vec<Container>, RuntimeError> {
        let down = || RuntimeError::Timeout { call: "containers.list", after: Duration::from_secs(10) };
        self.with(|w| if w.is_down { Err(down()) } else { Ok(w.containers.values().cloned().collect()) })
    }

    fn events(&self) -> mpsc::Receiver<RuntimeEvent> {
        let (sender, receiver) = mpsc::channel(1000);
        sender.try_send(RuntimeEvent::Gap).unwrap();
        self.with(|w| w.listeners.push(sender));
        receiver
    }

    async fn exec(
        &self,
        _id: &ContainerId,
        command: &[String],
        _timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let word = command.first().cloned().unwrap_or_default();
        let exit_code = self.with(|w| w.exec_codes.get(&word).copied().unwrap_or(0));
        Ok(ExecOutput { exit_code, output: b"said".to_vec() })
    }
}
