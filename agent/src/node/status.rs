//! Keeping `status` of the Node true.
//!
//! In: facts of the host and the runtime, every ten seconds as upstream's kubelet looks. Out: a patch when something
//! changed, and every five minutes in any case.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
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
    shutdown: CancellationToken,
) {
    let nodes: Api<Node> = Api::all(client);
    let mut reported: Option<(NodeStatus, Instant)> = None;
    while !shutdown.is_cancelled() {
        if let Err(error) = report(&nodes, &identity, &state_dir, limits, &runtime, &mut reported).await {
            tracing::warn!("cannot report the node's status: {error:#}");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

async fn report<R: ContainerRuntime>(
    nodes: &Api<Node>,
    identity: &Identity,
    state_dir: &std::path::Path,
    limits: Limits,
    runtime: &R,
    reported: &mut Option<(NodeStatus, Instant)>,
) -> Result<()> {
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
        images: images(runtime).await,
    };
    let held = match reported {
        Some((status, _)) => status.conditions.clone().unwrap_or_default(),
        None => held_conditions(nodes, &identity.name).await?,
    };
    let new = status(facts, &held, &Time(Timestamp::now()));
    if reported
        .as_ref()
        .is_some_and(|(old, at)| at.elapsed() < REPORT && without_heartbeat(old) == without_heartbeat(&new))
    {
        return Ok(());
    }
    let patch = Patch::Strategic(status_patch(&new));
    let params = PatchParams::default();
    let write = nodes.patch_status(&identity.name, &params, &patch);
    tokio::time::timeout(CALL_TIMEOUT, write).await.context("no answer")??;
    *reported = Some((new, Instant::now()));
    Ok(())
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
