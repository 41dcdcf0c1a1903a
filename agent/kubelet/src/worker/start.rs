//! Starting one run of a container: environment, mounts, create, start, postStart hook.
//!
//! In: Pod, container, image. Out: the run, or which step failed. Tells Created, Started, Failed.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use xebec_network::types::PodNetwork;
use xebec_runtime::error::RuntimeError;
use xebec_runtime::types::{ContainerConfig, ContainerId, ContainerRuntime, Image};

use super::{Worker, adopt, hooks};
use crate::container_config::{self, Parts};
use crate::downward::DownwardContext;
use crate::env::{self, EnvContext};
use crate::hosts;
use crate::log_links;
use crate::machine::observed::{Run, RunState};
use crate::machine::outcome::{Outcome, StartFailure, Trouble, start_error};
use crate::node::Node;
use crate::objects::PodObjects;
use crate::pod;
use crate::pod_network::PodNetworking;
use crate::recorder::EventType;
use crate::security;
use crate::status::Now;
use crate::unsupported;

/// One start of one container.
struct Start<R: ContainerRuntime, N: PodNetworking> {
    node: Arc<Node<R, N>>,
    pod: Arc<Pod>,
    objects: PodObjects,
    container: Container,
    attempt: u32,
    image: Image,
    network: PodNetwork,
    /// Whose processes an ephemeral container is to see; `Some(None)`: that one does not run.
    target: Option<Option<ContainerId>>,
}

impl<R: ContainerRuntime, N: PodNetworking> Worker<R, N> {
    pub(super) fn start(&mut self, container: String, attempt: u32) {
        let spec = pod::find(&self.pod, &container);
        let image = self.observed.container(&container).and_then(|c| c.image.done().cloned());
        let network = self.observed.network.done().cloned();
        let (Some(spec), Some(image), Some(network)) = (spec, image, network) else { return };
        let target = pod::target_of(&self.pod, &container)
            .map(|target| self.observed.container(target).and_then(|c| Some(c.running()?.id.clone())));
        let start = Start {
            node: Arc::clone(&self.node),
            pod: Arc::clone(&self.pod),
            objects: self.objects.clone(),
            container: spec,
            attempt,
            image,
            network,
            target,
        };
        self.tasks.spawn(async move {
            let result = start.run().await;
            Outcome::Started { container, attempt, result }
        });
    }
}

fn config_error(message: impl Into<String>) -> StartFailure {
    StartFailure::NotMade(Trouble::new("CreateContainerConfigError", message))
}

/// What the OCI runtime said, without which call it said it to.
fn bare(error: &RuntimeError) -> String {
    match error {
        RuntimeError::Call { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

impl<R: ContainerRuntime, N: PodNetworking> Start<R, N> {
    fn tell(&self, type_: EventType, reason: &str, message: impl Into<String>) {
        self.node.recorder.pod(&self.pod, Some(&self.container.name), type_, reason, message);
    }

    async fn run(&self) -> Result<Run, StartFailure> {
        let config = match self.config().await {
            Ok(config) => config,
            Err(failure) => {
                if let StartFailure::NotMade(trouble) = &failure {
                    self.tell(EventType::Warning, "Failed", format!("Error: {}", trouble.message));
                }
                return Err(failure);
            }
        };
        let id = match self.node.runtime.create(&config).await {
            Ok(id) => id,
            Err(error) => return Err(self.create_failed(&error)),
        };
        self.tell(EventType::Normal, "Created", format!("Created container: {}", self.container.name));
        if let Err(error) = self.node.runtime.start(&id).await {
            let failure = self.start_failed(id.clone(), &bare(&error));
            if let Err(error) = self.node.runtime.remove(&id).await {
                tracing::warn!(id = id.0, %error, "container that did not start not removed");
            }
            return Err(failure);
        }
        self.tell(EventType::Normal, "Started", format!("Started container {}", self.container.name));
        let links = self.node.config.log_links_dir.as_deref();
        if let Err(error) = log_links::link(links, &self.pod, &self.container.name, &id, &config.log_path) {
            tracing::warn!(id = id.0, %error, "log not linked");
        }
        let run = self.seen(&id).await;
        match self.post_start(&run).await {
            Ok(()) => Ok(run),
            Err(message) => {
                self.tell(
                    EventType::Warning,
                    "FailedPostStartHook",
                    format!("PostStartHook failed: {message}"),
                );
                Err(StartFailure::PostStart {
                    run,
                    trouble: Trouble::new("PostStartHookError", message),
                    grace: pod::container_grace_period(&self.pod, None),
                })
            }
        }
    }

    async fn config(&self) -> Result<ContainerConfig, StartFailure> {
        let host_has_selinux = Path::new("/sys/fs/selinux/enforce").exists();
        if let Some(why) = unsupported::of_container(&self.pod, &self.container, host_has_selinux) {
            return Err(config_error(why));
        }
        if self.target == Some(None) {
            let name = pod::target_of(&self.pod, &self.container.name).unwrap_or_default();
            return Err(config_error(format!("unable to find target container {name}")));
        }
        if !self.node.services.ready_within_limit().await {
            return Err(config_error(
                "services have not yet been read at least once, cannot construct envvars",
            ));
        }
        let snapshot = self.objects.snapshot().await;
        let volumes = self.node.volumes.dirs().volumes(&pod::uid(&self.pod));
        let context = EnvContext {
            pod: &self.pod,
            downward: DownwardContext {
                host_ips: &self.node.config.node_addresses,
                pod_ips: &self.network.addresses,
            },
            objects: &snapshot,
            services: self.node.services.variables(&self.pod),
            node: self.node.config.capacity,
            volume: &|name| volumes.join(name),
        };
        let env = env::build(&self.container, &context).map_err(|e| {
            StartFailure::NotMade(Trouble {
                reason: "CreateContainerConfigError",
                message: e.message,
                heals_by_change: e.heals_by_change,
            })
        })?;
        let security = security::of_container(&self.pod, &self.container).map_err(config_error)?;
        let pod_name = format!("{}_{}", pod::name(&self.pod), pod::namespace(&self.pod));
        security::verify_non_root(&pod_name, &self.container.name, &security, &self.image)
            .map_err(config_error)?;
        let mounts = self
            .node
            .volumes
            .container_mounts(&self.pod, &self.container, &env)
            .map_err(|e| config_error(e.to_string()))?;
        let host_name =
            hosts::host_name(&self.pod, &self.node.config.cluster_dns.domain).map_err(config_error)?;
        let parts = Parts {
            image: self.image.clone(),
            env,
            mounts,
            security,
            network: self.network.clone(),
            cgroup_parent: self.node.cgroups.pod_path(&self.pod),
            host_name,
            pid_of: self.target.clone().flatten(),
        };
        let dirs = self.node.volumes.dirs();
        container_config::build(&self.node.config, dirs, &self.pod, &self.container, self.attempt, parts)
            .map_err(|e| config_error(e.to_string()))
    }

    /// A configuration that cannot work is `CreateContainerError`; what the OCI runtime refuses counts as a run.
    fn create_failed(&self, error: &RuntimeError) -> StartFailure {
        if matches!(
            error,
            RuntimeError::Config(_) | RuntimeError::Unreachable { .. } | RuntimeError::Timeout { .. }
        ) {
            self.tell(EventType::Warning, "Failed", format!("Error: {error}"));
            return StartFailure::NotMade(Trouble::new("CreateContainerError", error.to_string()));
        }
        self.start_failed(ContainerId(String::new()), &bare(error))
    }

    fn start_failed(&self, id: ContainerId, message: &str) -> StartFailure {
        self.tell(EventType::Warning, "Failed", format!("Error: {message}"));
        let now = Now::read();
        let run = self.run_with(id, start_error(message, now.wall, now.mono));
        StartFailure::NotStarted { run, trouble: Trouble::new("RunContainerError", message) }
    }

    /// The run as the runtime tells it; as started just now when it cannot be asked.
    async fn seen(&self, id: &ContainerId) -> Run {
        let now = Now::read();
        let told = self.node.runtime.container(id).await.ok().flatten();
        told.and_then(|container| adopt::run_of(&self.node, &self.pod, &container, now))
            .unwrap_or_else(|| self.run_with(id.clone(), RunState::Running { started_at: now.wall }))
    }

    fn run_with(&self, id: ContainerId, state: RunState) -> Run {
        Run {
            id,
            attempt: self.attempt,
            image_id: self.image.repo_digest.clone(),
            image_name: self.container.image.clone().unwrap_or_default(),
            spec_hash: pod::spec_hash(&self.container),
            state,
        }
    }

    async fn post_start(&self, run: &Run) -> Result<(), String> {
        let hook = self.container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
        let Some(hook) = hook else { return Ok(()) };
        let pod_ip = self.network.addresses.first().copied();
        hooks::run(&self.node.runtime, &self.container, &run.id, hook, pod_ip, hooks::POST_START_LIMIT).await
    }
}
