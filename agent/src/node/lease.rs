//! The node's heartbeat: its Lease in `kube-node-lease` (KEP-589).
//!
//! In: the Node (its owner). Out: `renewTime` every ten seconds; a failed renewal is tried again sooner.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-node-lease";
const DURATION_SECONDS: i32 = 40;
const INTERVAL: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Renews until shut down.
pub async fn renew(client: Client, node: Node, shutdown: CancellationToken) {
    let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut failures = 0_u32;
    while !shutdown.is_cancelled() {
        let wait = match tokio::time::timeout(CALL_TIMEOUT, heartbeat(&leases, &node)).await {
            Ok(Ok(())) => {
                failures = 0;
                INTERVAL
            }
            failed => {
                failures += 1;
                let reason = failed.map_or_else(
                    |_| "no answer".to_owned(),
                    |r| r.map_or_else(|e| e.to_string(), |()| String::new()),
                );
                // Once a minute is enough to know.
                if failures % 60 == 1 {
                    tracing::warn!(failures, "cannot renew the node's lease: {reason}");
                }
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

async fn heartbeat(leases: &Api<Lease>, node: &Node) -> kube::Result<()> {
    let name = node.name_any();
    let now = MicroTime(Timestamp::now());
    let renewed = json!({ "spec": {
        "holderIdentity": name, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now,
    } });
    match leases.patch(&name, &PatchParams::default(), &Patch::Merge(renewed)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            leases.create(&PostParams::default(), &lease(node, now)).await.map(drop)
        }
        outcome => outcome.map(drop),
    }
}

fn lease(node: &Node, now: MicroTime) -> Lease {
    let name = node.name_any();
    Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: name.clone(),
                uid: node.uid().unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}
