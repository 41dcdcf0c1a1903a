//! ReplicationControllers: as ReplicaSets, under their older name.

use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::wait::{until, until_gone, until_object};

fn controller(replicas: i32, spec: &Value) -> Value {
    let mut pod = json!({"containers": [{"name": "c", "image": "nginx"}]});
    for (field, value) in spec.as_object().unwrap() {
        pod[field] = value.clone();
    }
    json!({
        "metadata": {"name": "rc"},
        "spec": {
            "replicas": replicas, "selector": {"app": "rc"},
            "template": {"metadata": {"labels": {"app": "rc"}}, "spec": pod},
        },
    })
}

fn owned(pod: &Pod) -> bool {
    let owners = pod.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.kind == "ReplicationController" && owner.controller == Some(true))
}

#[tokio::test(flavor = "multi_thread")]
async fn controller_scales_adopts_releases_and_orphans() {
    let plane = ControlPlane::start(1).await;
    let (controllers, pods) = (plane.api::<ReplicationController>(), plane.api::<Pod>());
    let stray = json!({"metadata": {"name": "stray", "labels": {"app": "rc"}},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]}});
    plane.create::<Pod>(stray).await;
    plane.create::<ReplicationController>(controller(2, &json!({}))).await;
    let ready = |count: i32| {
        move |rc: &ReplicationController| {
            rc.status.as_ref().is_some_and(|s| {
                s.ready_replicas == Some(count)
                    && s.replicas == count
                    && s.observed_generation == rc.metadata.generation
            })
        }
    };
    until_object("two ready", &controllers, "rc", ready(2)).await;
    until("the stray is one of them", &pods, |pods| {
        let is_stray = |pod: &&Pod| pod.metadata.name.as_deref() == Some("stray");
        pods.len() == 2 && pods.iter().all(owned) && pods.iter().any(|pod| is_stray(&pod))
    })
    .await;
    let scale = json!({"spec": {"replicas": 4}});
    controllers.patch_scale("rc", &PatchParams::default(), &Patch::Merge(&scale)).await.unwrap();
    until_object("four ready", &controllers, "rc", ready(4)).await;
    let relabel = json!({"metadata": {"labels": {"app": "debug"}}});
    pods.patch("stray", &PatchParams::default(), &Patch::Merge(&relabel)).await.unwrap();
    until("released and replaced", &pods, |pods| {
        pods.len() == 5 && pods.iter().filter(|pod| owned(pod)).count() == 4
    })
    .await;
    controllers.delete("rc", &DeleteParams::orphan()).await.unwrap();
    until_gone(&controllers, "rc").await;
    until("nobody's", &pods, |pods| pods.len() == 5 && !pods.iter().any(owned)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn controller_whose_pods_are_refused_says_so() {
    let plane = ControlPlane::start(1).await;
    let controllers = plane.api::<ReplicationController>();
    let refused = json!({"priorityClassName": "there-is-none"});
    plane.create::<ReplicationController>(controller(1, &refused)).await;
    let told = until_object("told", &controllers, "rc", |rc| {
        let conditions = rc.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions
            .into_iter()
            .any(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
    })
    .await;
    let condition = &told.status.unwrap().conditions.unwrap()[0];
    assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
    let message = condition.message.as_deref().unwrap();
    assert!(message.contains("no PriorityClass with name there-is-none was found"), "{message}");
}
