//! The end of a pod: volumes, network and cgroup given back, the object deleted, containers and files removed.
//!
//! Every step may be repeated; none stops at the first error.

use std::sync::Arc;

use xebec_runtime::types::ContainerRuntime;

use super::Worker;
use crate::container_config::{log_dir, log_path};
use crate::log_links;
use crate::machine::outcome::{Outcome, Trouble};
use crate::node::Node;
use crate::pod::{self, PodRef, PodUid};
use crate::pod_network::PodNetworking;

impl<R: ContainerRuntime, N: PodNetworking> Worker<R, N> {
    pub(super) fn remove(&mut self, container: String, attempt: u32) {
        let Some(run) = self.observed.container(&container).and_then(|c| c.runs.get(&attempt)) else {
            return;
        };
        let (node, id) = (Arc::clone(&self.node), run.id.clone());
        let log = log_path(&node.config, &self.pod, &container, attempt);
        self.tasks.spawn(async move {
            let result = if id.0.is_empty() { Ok(()) } else { node.runtime.remove(&id).await };
            if let Err(error) = &result {
                tracing::warn!(id = id.0, %error, "old container not removed");
            } else {
                remove_logs(&log);
                log_links::clean(node.config.log_links_dir.as_deref());
            }
            Outcome::Removed { container, attempt, removed: result.is_ok() }
        });
    }

    pub(super) fn release(&mut self) {
        self.refresh = None;
        let (node, uid) = (Arc::clone(&self.node), pod::uid(&self.pod));
        self.tasks.spawn(async move {
            let errors = release(&node, &uid).await;
            Outcome::Released(if errors.is_empty() {
                Ok(())
            } else {
                tracing::warn!(pod = %uid, errors = errors.join("; "), "pod not yet released");
                Err(Trouble::new("FailedKillPod", errors.join("; ")))
            })
        });
    }

    pub(super) fn delete_from_api(&mut self) {
        let (node, reference) = (Arc::clone(&self.node), PodRef::of(&self.pod));
        self.tasks.spawn(async move {
            let result = node.status.delete(&reference).await;
            Outcome::DeletedFromApi(result.map_err(|message| {
                tracing::warn!(pod = %reference, message, "object of an ended pod not deleted");
                Trouble::new("FailedDelete", message)
            }))
        });
    }

    pub(super) fn forget(&mut self) {
        let (node, uid) = (Arc::clone(&self.node), pod::uid(&self.pod));
        let logs = log_dir(&node.config, &self.pod);
        self.tasks.spawn(async move {
            let mut errors = remove_containers(&node, &uid).await;
            errors.extend(node.volumes.forget(&uid).err().map(|e| e.to_string()));
            errors.extend(node.cgroups.remove_pod(&uid).err().map(|e| e.to_string()));
            if let Err(error) = std::fs::remove_dir_all(&logs)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                errors.push(format!("{}: {error}", logs.display()));
            }
            log_links::clean(node.config.log_links_dir.as_deref());
            Outcome::Forgotten(if errors.is_empty() {
                Ok(())
            } else {
                tracing::warn!(pod = %uid, errors = errors.join("; "), "pod not yet forgotten");
                Err(Trouble::new("FailedKillPod", errors.join("; ")))
            })
        });
    }
}

/// The log of one run and its rotated parts.
fn remove_logs(log: &std::path::Path) {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else { return };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let ours = file.to_str().is_some_and(|f| f == name || f.starts_with(&format!("{name}.")));
        if ours && let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::debug!(path = %entry.path().display(), %error, "old log not removed");
        }
    }
}

/// Gives back volumes, network and cgroup; returns what did not work.
pub(crate) async fn release<R: ContainerRuntime, N: PodNetworking>(
    node: &Node<R, N>,
    uid: &PodUid,
) -> Vec<String> {
    let mut errors = Vec::new();
    errors.extend(node.volumes.release(uid).err().map(|e| e.to_string()));
    errors.extend(node.network.detach(&uid.0).await.err());
    errors.extend(node.cgroups.remove_pod(uid).err().map(|e| e.to_string()));
    errors
}

/// Kills and removes every container of a pod; returns what did not work.
pub(crate) async fn remove_containers<R: ContainerRuntime, N: PodNetworking>(
    node: &Node<R, N>,
    uid: &PodUid,
) -> Vec<String> {
    let mut errors = Vec::new();
    let Some(containers) = node.containers_of(uid).await else {
        return vec!["the runtime cannot be asked for the pod's containers".to_owned()];
    };
    for container in containers {
        errors.extend(node.runtime.remove(&container.id).await.err().map(|e| e.to_string()));
    }
    errors
}
