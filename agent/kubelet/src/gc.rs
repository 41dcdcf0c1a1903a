//! What belongs to no pod of this node is removed: containers, networks, cgroups, folders, logs.
//!
//! In: the register of pods, complete since the first list. Out: nothing left of pods that are gone.
//! Things are listed first and looked up after, and a worker is registered before it makes anything: what is new is safe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use xebec_runtime::types::{Container, ContainerRuntime, ContainerState};

use crate::log_links;
use crate::node::Node;
use crate::pod::PodUid;
use crate::pod_network::PodNetworking;
use crate::worker::release;

/// Between the signal and the kill of a container whose pod is gone.
const GRACE: Duration = Duration::from_secs(1);
const SIGTERM: i32 = 15;

pub(crate) async fn clean<R: ContainerRuntime, N: PodNetworking>(node: Arc<Node<R, N>>) {
    clean_containers(&node).await;
    for uid in orphans(&node).await {
        tracing::info!(pod = %uid, "removing what is left of a pod that is gone");
        let mut errors = release(&node, &uid).await;
        errors.extend(node.volumes.forget(&uid).err().map(|e| e.to_string()));
        if !errors.is_empty() {
            tracing::warn!(pod = %uid, errors = errors.join("; "), "left over");
        }
    }
    clean_logs(&node);
    log_links::clean(node.config.log_links_dir.as_deref());
}

async fn clean_containers<R: ContainerRuntime, N: PodNetworking>(node: &Node<R, N>) {
    let Some(all) = node.containers().await else { return };
    let mut of_pod: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
    for container in all.iter() {
        of_pod.entry(&container.key.pod_uid).or_default().push(container);
    }
    for (uid, containers) in of_pod {
        if node.known.contains(&PodUid(uid.to_owned())) {
            continue;
        }
        tracing::info!(pod = uid, containers = containers.len(), "removing containers of a pod that is gone");
        let mut running = false;
        for container in &containers {
            if matches!(container.state, ContainerState::Running { .. }) {
                running = true;
                if let Err(error) = node.runtime.signal(&container.id, SIGTERM).await {
                    tracing::debug!(id = container.id.0, %error, "not signalled");
                }
            }
        }
        if running {
            tokio::time::sleep(GRACE).await;
        }
        for container in &containers {
            if let Err(error) = node.runtime.remove(&container.id).await {
                tracing::warn!(id = container.id.0, %error, "left over");
            }
        }
    }
}

/// Uids that have something on this node and no worker.
async fn orphans<R: ContainerRuntime, N: PodNetworking>(node: &Node<R, N>) -> BTreeSet<PodUid> {
    let mut found = node.cgroups.pods();
    let dirs = std::fs::read_dir(node.volumes.dirs().root()).into_iter().flatten().flatten();
    found.extend(dirs.filter_map(|e| e.file_name().into_string().ok()).map(PodUid));
    match node.network.attached().await {
        Ok(uids) => found.extend(uids.into_iter().map(PodUid)),
        Err(error) => tracing::warn!(error, "pod networks not listed"),
    }
    found.retain(|uid| !node.known.contains(uid));
    found
}

/// Log folders are named `<namespace>_<name>_<uid>`.
fn clean_logs<R: ContainerRuntime, N: PodNetworking>(node: &Node<R, N>) {
    for entry in std::fs::read_dir(&node.config.log_dir).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let mut parts = name.rsplitn(3, '_');
        let (Some(uid), Some(_), Some(_)) = (parts.next(), parts.next(), parts.next()) else { continue };
        if node.known.contains(&PodUid(uid.to_owned())) {
            continue;
        }
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "old logs not removed");
        }
    }
}
