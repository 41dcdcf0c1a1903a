//! Making the Node object, or taking over the one that is there.
//!
//! In: identity. Out: a Node with this agent's labels. Tried until it works: a node is useful only with an API server.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::object::Identity;

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(7);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the registered Node.
///
/// # Errors
/// When the API server refuses it for good: wrong credentials, an invalid name.
pub async fn register(client: &Client, identity: &Identity) -> Result<Node> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut wait = FIRST_WAIT;
    loop {
        let reason = match tokio::time::timeout(CALL_TIMEOUT, attempt(&nodes, identity)).await {
            Ok(Ok(node)) => return Ok(node),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 400 | 401 | 403 | 422) => {
                anyhow::bail!(
                    "the API server refuses to register node {}: {}",
                    identity.name,
                    status.message
                );
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {CALL_TIMEOUT:?}"),
        };
        tracing::warn!(node = identity.name, "cannot register yet: {reason}");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn attempt(nodes: &Api<Node>, identity: &Identity) -> kube::Result<Node> {
    match nodes.create(&PostParams::default(), &identity.node()).await {
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let labels = json!({ "metadata": { "labels": identity.labels() } });
            nodes.patch(&identity.name, &PatchParams::default(), &Patch::Merge(labels)).await
        }
        outcome => outcome,
    }
}
