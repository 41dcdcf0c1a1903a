//! What exists of a pod when its worker begins, and news from the runtime afterwards.
//!
//! In: checkpoint, API status, containers of the runtime. Out: [`Observed`].

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::time::Instant;
use xebec_runtime::types::{Container, ContainerRuntime, ContainerState};

use super::Worker;
use crate::checkpoint::Checkpoint;
use crate::container_config::{LABEL_IMAGE_ID, LABEL_SPEC_HASH, log_path};
use crate::machine::TerminationReason;
use crate::machine::observed::{Exit, OOM_KILLED, Observed, Run, RunState, Stage};
use crate::node::Node;
use crate::pod;
use crate::pod_network::PodNetworking;
use crate::status::Now;
use crate::termination_message;

/// The state to begin with.
pub(super) async fn observe<R: ContainerRuntime, N: PodNetworking>(node: &Node<R, N>, pod: &Pod) -> Observed {
    let now = Now::read();
    let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(now.wall, |t| t.0);
    let age = std::time::Duration::try_from(now.wall.duration_since(started)).unwrap_or_default();
    let mut observed = Observed::new(started, now.mono.checked_sub(age).unwrap_or(now.mono));
    if pod::is_terminal(pod) {
        observed.stage = Stage::Terminating(TerminationReason::Completed);
    }
    let dir = node.volumes.dirs().pod(&pod::uid(pod));
    let restored = Checkpoint::load(&dir).map(|c| c.restore(&node.boot_id, now)).unwrap_or_default();
    let rebooted = restored.rebooted;
    observed.containers = restored.containers;
    for status in statuses(pod) {
        let seen = observed.container_mut(&status.name);
        if seen.runs.is_empty() && seen.known_restarts == 0 {
            seen.known_restarts = restarts_to_continue(status);
        }
    }
    // A pod that nothing was made for has no container. To look all the same would cost each new pod as much as the node
    // has old ones, because containerd asks the shim of each.
    let begun = pod::has_begun(pod) || dir.is_dir();
    let found = if begun { node.containers_of(&pod::uid(pod)).await } else { Vec::new() };
    for container in found {
        if rebooted {
            // Its process went with the last boot.
            if let Err(error) = node.runtime.remove(&container.id).await {
                tracing::warn!(id = container.id.0, %error, "container of the last boot not removed");
            }
            continue;
        }
        absorb(node, pod, &mut observed, &container);
    }
    drop_missing(node, pod, &mut observed).await;
    observed
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|s| s.init_container_statuses.as_deref()).unwrap_or_default();
    let main = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let ephemeral = status.and_then(|s| s.ephemeral_container_statuses.as_deref()).unwrap_or_default();
    init.iter().chain(main).chain(ephemeral)
}

/// The count to go on with when nothing but the API remembers a container.
fn restarts_to_continue(status: &ContainerStatus) -> u32 {
    let count = u32::try_from(status.restart_count).unwrap_or(0);
    let ran = status.container_id.as_ref().is_some_and(|id| !id.is_empty());
    if ran { count + 1 } else { count }
}

/// Takes in what the runtime says of one container.
pub(super) fn absorb<R: ContainerRuntime, N: PodNetworking>(
    node: &Node<R, N>,
    pod: &Pod,
    observed: &mut Observed,
    container: &Container,
) {
    let Some(run) = run_of(node, pod, container, Now::read()) else { return };
    let seen = observed.container_mut(&container.key.container);
    if seen.absorb(run) {
        seen.settle_exit();
    }
}

/// `None`: made and not started.
pub(super) fn run_of<R: ContainerRuntime, N: PodNetworking>(
    node: &Node<R, N>,
    pod: &Pod,
    container: &Container,
    now: Now,
) -> Option<Run> {
    let key = &container.key;
    let wall = |time: std::time::SystemTime| jiff::Timestamp::try_from(time).unwrap_or(now.wall);
    let state = match &container.state {
        ContainerState::Created => return None,
        ContainerState::Running { started_at, .. } => RunState::Running { started_at: wall(*started_at) },
        ContainerState::Exited { code, signal, started_at, finished_at, oom_killed } => {
            let finished_at = wall(*finished_at);
            let age = std::time::Duration::try_from(now.wall.duration_since(finished_at)).unwrap_or_default();
            RunState::Exited(Exit {
                code: *code,
                signal: *signal,
                started_at: started_at.map(wall),
                finished_at: Some(finished_at),
                at: now.mono.checked_sub(age).unwrap_or(now.mono),
                reason: reason(*code, *oom_killed).to_owned(),
                message: message(node, pod, &key.container, key.attempt, *code),
            })
        }
        ContainerState::Unknown => RunState::Exited(unknown_exit(now)),
    };
    Some(Run {
        id: container.id.clone(),
        attempt: key.attempt,
        image_id: container.labels.get(LABEL_IMAGE_ID).unwrap_or(&container.image_id).clone(),
        image_name: container.image_name.clone(),
        spec_hash: container.labels.get(LABEL_SPEC_HASH).cloned().unwrap_or_default(),
        state,
    })
}

fn reason(code: i32, oom_killed: bool) -> &'static str {
    match (oom_killed, code) {
        (true, _) => OOM_KILLED,
        (false, 0) => "Completed",
        (false, _) => "Error",
    }
}

fn unknown_exit(now: Now) -> Exit {
    Exit {
        code: 255,
        signal: None,
        started_at: None,
        finished_at: Some(now.wall),
        at: now.mono,
        reason: "Unknown".to_owned(),
        message: String::new(),
    }
}

fn message<R: ContainerRuntime, N: PodNetworking>(
    node: &Node<R, N>,
    pod: &Pod,
    container: &str,
    attempt: u32,
    code: i32,
) -> String {
    let Some(spec) = pod::find(pod, container) else { return String::new() };
    let file = node.volumes.dirs().container(&pod::uid(pod), container).join(attempt.to_string());
    let log = log_path(&node.config, pod, container, attempt);
    termination_message::read(&spec, code, &file, &log)
}

/// Runs that are thought to live and that the runtime does not know have ended unseen.
pub(super) async fn drop_missing<R: ContainerRuntime, N: PodNetworking>(
    node: &Node<R, N>,
    pod: &Pod,
    observed: &mut Observed,
) {
    let living: Vec<_> = observed
        .containers
        .iter()
        .filter(|(_, seen)| seen.running().is_some() && seen.starting.is_none())
        .filter_map(|(name, seen)| Some((name.clone(), seen.current()?.clone())))
        .collect();
    for (name, run) in living {
        match node.runtime.container(&run.id).await {
            Ok(Some(container)) => absorb(node, pod, observed, &container),
            Ok(None) => {
                let seen = observed.container_mut(&name);
                let exit = unknown_exit(Now::read());
                if seen.absorb(Run { state: RunState::Exited(exit), ..run }) {
                    seen.settle_exit();
                }
            }
            Err(error) => tracing::warn!(container = name, %error, "state of a container not known"),
        }
    }
}

impl<R: ContainerRuntime, N: PodNetworking> Worker<R, N> {
    /// Takes in what the sync loop left.
    pub(super) async fn read_mail(&mut self) {
        let mail = self.mailbox.take();
        if let Some(pod) = mail.pod {
            let meta = |p: &Pod| (p.metadata.labels.clone(), p.metadata.annotations.clone());
            self.refresh_again |= meta(&pod) != meta(&self.pod);
            let debug = |p: &Pod| p.spec.as_ref().and_then(|s| s.ephemeral_containers.clone());
            let refers_anew = debug(&pod) != debug(&self.pod);
            self.pod = pod;
            if refers_anew {
                self.objects = self.node.objects.subscribe(&self.pod);
                self.objects_changed = Box::pin(self.objects.changed());
            }
            self.node.status.observe(&self.pod);
        }
        self.observed.gone |= mail.gone;
        for container in mail.containers.values() {
            absorb(&self.node, &self.pod, &mut self.observed, container);
        }
        if mail.compare {
            let node = Arc::clone(&self.node);
            for container in node.containers_of(&pod::uid(&self.pod)).await {
                absorb(&node, &self.pod, &mut self.observed, &container);
            }
            drop_missing(&node, &self.pod, &mut self.observed).await;
            for seen in self.observed.containers.values_mut() {
                seen.removing.clear();
            }
            tracing::trace!(at = ?Instant::now(), "compared with the runtime");
        }
    }
}
