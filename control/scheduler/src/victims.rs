//! Tells the pods that make room for another to leave.
//!
//! In: a decision of preemption. Out: the DisruptionTarget condition, deletions, Events.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use xebec_api::wellknown::conditions::{DISRUPTION_TARGET, TRUE};

use crate::error::WriteError;
use crate::outbox::{Notice, Outbox};
use crate::pod_info::{PREEMPTION_BY_SCHEDULER, PodInfo};
use crate::preemption::Preemption;

/// All writes of one preemption.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What came of telling them.
pub(crate) struct Preempted {
    /// The pod they make room for.
    pub(crate) pod: Arc<PodInfo>,
    pub(crate) result: Result<(), WriteError>,
}

/// Deletes the victims.
pub(crate) async fn preempt(
    client: Client,
    outbox: Outbox,
    scheduler: String,
    pod: Arc<PodInfo>,
    preemption: Preemption,
) -> Preempted {
    let Preemption { node, victims } = preemption;
    let staying = victims.into_iter().filter(|victim| !victim.terminating);
    let told = staying.map(|victim| {
        let (client, scheduler, outbox) = (&client, &scheduler, &outbox);
        let (by, node) = (pod.uid.clone(), node.clone());
        async move {
            delete(client, scheduler, &victim).await?;
            tracing::info!(%victim, %by, %node, "preempted");
            outbox.post(Notice::Preempted { victim, by, node });
            Ok(())
        }
    });
    let all = tokio::time::timeout(TIMEOUT, join_all(told)).await;
    let result = match all {
        Ok(results) => results.into_iter().collect::<Result<(), WriteError>>(),
        Err(_) => Err(WriteError::TimedOut(TIMEOUT)),
    };
    Preempted { pod, result }
}

async fn delete(client: &Client, scheduler: &str, victim: &PodInfo) -> Result<(), WriteError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &victim.namespace);
    let condition = json!({
        "metadata": {"uid": &*victim.uid},
        "status": {"conditions": [{
            "type": DISRUPTION_TARGET,
            "status": TRUE,
            "reason": PREEMPTION_BY_SCHEDULER,
            "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
            "lastTransitionTime": Time(Timestamp::now()),
        }]},
    });
    let patched =
        api.patch_status(&victim.name, &PatchParams::default(), &Patch::Strategic(&condition)).await;
    let preconditions = Preconditions { uid: Some(victim.uid.to_string()), resource_version: None };
    let params = DeleteParams::default().preconditions(preconditions);
    let written = match patched {
        Ok(_) => api.delete(&victim.name, &params).await.map(drop),
        Err(error) => Err(error),
    };
    match written.map_err(WriteError::from) {
        // Gone already, or another pod of that name: the room is there.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        other => other,
    }
}
