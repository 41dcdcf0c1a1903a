//! Keeping `status` of the Node true.
//!
//! In: facts of the host and the runtime, every ten seconds as upstream's kubelet looks; the Node as it is seen. Out: a
//! patch when something changed, when somebody else wrote what is not so (the node controller, after a partition), and
//! every five minutes in any case.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::Store;
use kube::{Api, Client};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use xebec_runtime::types::ContainerRuntime;

use super::eviction::Thresholds;
use super::facts::{Capacity, Pressure, system_info};
use super::object::{Facts, Identity, MAX_IMAGES, status};

const LOOK: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(300);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Images are listed so often: one call for each of them.
const IMAGES: Duration = Duration::from_secs(60);

/// What was reported last, and when.
type Reported = Option<(NodeStatus, Instant)>;

/// Whether the node can run pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Ready,
    /// With what is wrong, for the condition's message.
    NotReady(String),
}

/// What this node was told to take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_pods: u32,
    pub thresholds: Thresholds,
}

/// Reports until shut down.
pub async fn keep_status<R: ContainerRuntime>(
    client: Client,
    identity: Identity,
    state_dir: PathBuf,
    limits: Limits,
    runtime: R,
    seen: Store<Node>,
    shutdown: CancellationToken,
) {
    let nodes: Api<Node> = Api::all(client);
    let mut reported: Reported = None;
    let mut listed: Option<(Vec<ContainerImage>, Instant)> = None;
    while !shutdown.is_cancelled() {
        if listed.as_ref().is_none_or(|(_, at)| at.elapsed() >= IMAGES) {
            listed = Some((images(&runtime).await, Instant::now()));
        }
        let images = listed.as_ref().map(|(images, _)| images.clone()).unwrap_or_default();
        let look = Look { nodes: &nodes, identity: &identity, state_dir: &state_dir, limits, seen: &seen };
        if let Err(error) = look.report(&runtime, images, &mut reported).await {
            tracing::warn!("cannot report the node's status: {error:#}");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// What one look is made with.
struct Look<'a> {
    nodes: &'a Api<Node>,
    identity: &'a Identity,
    state_dir: &'a Path,
    limits: Limits,
    seen: &'a Store<Node>,
}

impl Look<'_> {
    async fn report<R: ContainerRuntime>(
        &self,
        runtime: &R,
        images: Vec<ContainerImage>,
        reported: &mut Reported,
    ) -> Result<()> {
        let Self { nodes, identity, state_dir, limits, seen } = self;
        let (health, version) = match runtime.version().await {
            Ok(version) => (Health::Ready, version),
            Err(error) => (Health::NotReady(format!("container runtime is down: {error}")), String::new()),
        };
        let facts = Facts {
            identity,
            capacity: Capacity::read(state_dir, limits.max_pods)?,
            pressure: Pressure::read(state_dir, &limits.thresholds)?,
            health: &health,
            system: system_info(&version),
            images,
        };
        if let Some((old, _)) = reported {
            let node = seen.find(|node| node.metadata.name.as_ref() == Some(&identity.name));
            let status = node.as_ref().and_then(|node| node.status.as_ref());
            if status.is_some_and(|status| is_contradicted(old, status)) {
                tracing::info!("somebody else wrote this node's conditions: they are reported again");
                *reported = None;
            }
        }
        let held = match reported {
            Some((status, _)) => status.conditions.clone().unwrap_or_default(),
            None => held_conditions(nodes, &identity.name).await?,
        };
        let new = status(facts, &held, &Time(Timestamp::now()));
        let same = |old: &NodeStatus| without_heartbeat(old) == without_heartbeat(&new);
        if reported.as_ref().is_some_and(|(old, at)| at.elapsed() < REPORT && same(old)) {
            return Ok(());
        }
        let patch = Patch::Strategic(status_patch(&new));
        let params = PatchParams::default();
        let write = nodes.patch_status(&identity.name, &params, &patch);
        tokio::time::timeout(CALL_TIMEOUT, write).await.context("no answer")??;
        *reported = Some((new, Instant::now()));
        Ok(())
    }
}

/// Whether one of the conditions that were reported says something else by now.
fn is_contradicted(reported: &NodeStatus, seen: &NodeStatus) -> bool {
    let of_type = |wanted: &NodeCondition| {
        seen.conditions.iter().flatten().find(|condition| condition.type_ == wanted.type_)
    };
    let differs = |ours: &NodeCondition| of_type(ours).is_none_or(|theirs| theirs.status != ours.status);
    reported.conditions.iter().flatten().any(differs)
}

/// The status as a strategic merge patch. Addresses are replaced as a whole: their merge key is the type, and a node with
/// two families has two of type InternalIP, which a merge would make one.
fn status_patch(status: &NodeStatus) -> serde_json::Value {
    let mut patch = json!({ "status": status });
    if let Some(addresses) = patch["status"]["addresses"].as_array_mut() {
        addresses.push(json!({ "$patch": "replace" }));
    }
    patch
}

async fn held_conditions(nodes: &Api<Node>, name: &str) -> Result<Vec<NodeCondition>> {
    let node = tokio::time::timeout(CALL_TIMEOUT, nodes.get(name)).await.context("no answer")??;
    Ok(node.status.and_then(|s| s.conditions).unwrap_or_default())
}

/// For comparison: heartbeats differ always.
fn without_heartbeat(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    status
}

async fn images<R: ContainerRuntime>(runtime: &R) -> Vec<ContainerImage> {
    let mut images = runtime.images().await.unwrap_or_default();
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    images
        .into_iter()
        .take(MAX_IMAGES)
        .map(|image| {
            let mut names = vec![image.repo_digest];
            names.extend(image.names);
            ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(conditions: &[(&str, &str)]) -> NodeStatus {
        let conditions = conditions.iter().map(|(kind, status)| NodeCondition {
            type_: (*kind).to_owned(),
            status: (*status).to_owned(),
            ..NodeCondition::default()
        });
        NodeStatus { conditions: Some(conditions.collect()), ..NodeStatus::default() }
    }

    #[test]
    fn what_others_wrote_of_this_node_is_noticed() {
        let reported = of(&[("MemoryPressure", "False"), ("Ready", "True")]);
        let with_more = of(&[("Ready", "True"), ("Frequent", "True"), ("MemoryPressure", "False")]);
        assert!(!is_contradicted(&reported, &with_more), "others may have conditions of their own");
        let silenced = of(&[("MemoryPressure", "False"), ("Ready", "Unknown")]);
        assert!(is_contradicted(&reported, &silenced));
        assert!(is_contradicted(&reported, &of(&[("Ready", "True")])), "one was taken away");
    }
}
