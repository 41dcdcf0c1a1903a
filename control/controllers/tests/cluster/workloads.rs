//! Deployments from apply to rollback, and the slices that follow their pods.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::wait::{until, until_object};

pub(crate) fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "c", "image": image, "ports": [{"name": "http", "containerPort": 80}],
                    "resources": {"requests": {"cpu": "100m"}},
                }]},
            },
        },
    })
}

/// All replicas are of this image, and available.
pub(crate) fn rolled(deployment: &Deployment, image: &str, replicas: i32) -> bool {
    let template = deployment.spec.template.spec.as_ref().unwrap();
    template.containers[0].image.as_deref() == Some(image) && available(deployment, replicas)
}

pub(crate) fn available(deployment: &Deployment, replicas: i32) -> bool {
    let (spec, status) = (&deployment.spec, deployment.status.as_ref());
    status.is_some_and(|status| {
        status.available_replicas == Some(replicas)
            && status.updated_replicas == Some(replicas)
            && status.replicas == Some(replicas)
            && spec.replicas == Some(replicas)
            && status.observed_generation == deployment.metadata.generation
    })
}

fn image(set: &ReplicaSet) -> String {
    let spec = set.spec.template.as_ref().unwrap().spec.as_ref().unwrap();
    spec.containers[0].image.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn deployment_runs_rolls_and_scales_over_both_nodes() {
    let plane = ControlPlane::start(2).await;
    let deployments = plane.api::<Deployment>();
    plane.create::<Deployment>(deployment("web", 2, "nginx:1")).await;
    until_object("2 available", &deployments, "web", |d| available(d, 2)).await;

    let image_2 =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}}});
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(&image_2)).await.unwrap();
    until_object("rolled", &deployments, "web", |d| rolled(d, "nginx:2", 2)).await;
    let sets = until("old set empty", &plane.api::<ReplicaSet>(), |sets| {
        let of = |name: &str| sets.iter().find(|set| image(set) == name).and_then(|set| set.spec.replicas);
        sets.len() == 2 && of("nginx:1") == Some(0) && of("nginx:2") == Some(2)
    })
    .await;
    assert_eq!(sets.len(), 2);

    let scale = json!({"spec": {"replicas": 10}});
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(&scale)).await.unwrap();
    until_object("10 available", &deployments, "web", |d| available(d, 10)).await;
    let pods = plane.api::<Pod>().list(&ListParams::default().labels("app=web")).await.unwrap().items;
    let mut per_node: BTreeMap<String, usize> = BTreeMap::new();
    for pod in &pods {
        *per_node.entry(pod.spec.as_ref().unwrap().node_name.clone().unwrap()).or_default() += 1;
    }
    assert_eq!(per_node.values().copied().collect::<Vec<_>>(), [5, 5], "{per_node:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deployment_that_is_rolled_out_survives_a_kill_of_its_controllers() {
    let mut plane = ControlPlane::start(2).await;
    let deployments = plane.api::<Deployment>();
    plane.create::<Deployment>(deployment("web", 6, "nginx:1")).await;
    until_object("6 available", &deployments, "web", |d| available(d, 6)).await;
    for round in 2..7 {
        let image = format!("nginx:{round}");
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": &image}]}}}});
        deployments.patch("web", &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
        until("the rollout has begun", &plane.api::<ReplicaSet>(), |sets| {
            sets.iter().any(|s| self::image(s) == image)
        })
        .await;
        plane.kill_parts();
        plane.start_parts();
        until_object("rolled", &deployments, "web", |d| rolled(d, &image, 6)).await;
    }
    let pods = until("6 pods remain", &plane.api::<Pod>(), |pods| pods.len() == 6).await;
    let sets = plane.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(sets.len(), 6, "one set for each revision, none made twice");
    let images: Vec<String> =
        pods.iter().map(|pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap()).collect();
    assert!(images.iter().all(|image| image == "nginx:6"), "{images:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_of_both_families_follow_the_pods() {
    let plane = ControlPlane::start(2).await;
    plane.create::<Deployment>(deployment("web", 3, "nginx")).await;
    plane
        .create::<Service>(json!({
            "metadata": {"name": "web"},
            "spec": {
                "selector": {"app": "web"}, "ipFamilyPolicy": "PreferDualStack",
                "ports": [{"name": "web", "port": 80, "targetPort": "http"}],
            },
        }))
        .await;
    let ready = |slice: &EndpointSlice| {
        slice
            .endpoints
            .iter()
            .flatten()
            .filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true))
            .count()
    };
    let slices = until("two slices with three ready endpoints", &plane.api::<EndpointSlice>(), |slices| {
        slices.len() == 2 && slices.iter().all(|slice| ready(slice) == 3)
    })
    .await;
    let mut families: Vec<&str> = slices.iter().map(|slice| slice.address_type.as_str()).collect();
    families.sort_unstable();
    assert_eq!(families, ["IPv4", "IPv6"]);
    assert!(slices.iter().all(|slice| slice.ports.as_ref().unwrap()[0].port == Some(80)), "{slices:?}");
    let pods = plane.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    let gone = pods[0].metadata.name.clone().unwrap();
    plane.api::<Pod>().delete(&gone, &kube::api::DeleteParams::default()).await.unwrap();
    until("the deleted pod is no endpoint and another is", &plane.api::<EndpointSlice>(), |slices| {
        let named = |slice: &EndpointSlice| {
            slice
                .endpoints
                .iter()
                .flatten()
                .any(|e| e.target_ref.as_ref().and_then(|t| t.name.clone()) == Some(gone.clone()))
        };
        slices.iter().all(|slice| ready(slice) == 3 && !named(slice))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_that_cannot_fit_says_why_and_runs_when_there_is_room() {
    let plane = ControlPlane::start(2).await;
    let big = |name: &str, cpu: &str| {
        json!({"metadata": {"name": name}, "spec": {"containers": [{
            "name": "c", "image": "nginx", "resources": {"requests": {"cpu": cpu}},
        }]}})
    };
    let pods = plane.api::<Pod>();
    for name in ["first", "second"] {
        plane.create::<Pod>(big(name, "3")).await;
    }
    until("both run", &pods, |pods| pods.iter().all(|p| p.spec.as_ref().unwrap().node_name.is_some())).await;
    plane.create::<Pod>(big("third", "3")).await;
    let third = until_object("told", &pods, "third", |pod| {
        pod.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == "PodScheduled")
    })
    .await;
    let conditions = third.status.unwrap().conditions.unwrap();
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled").unwrap();
    assert_eq!((scheduled.status.as_str(), scheduled.reason.as_deref()), ("False", Some("Unschedulable")));
    let message = scheduled.message.as_deref().unwrap();
    assert!(message.starts_with("0/2 nodes are available: 2 Insufficient cpu."), "{message}");
    until("the event", &plane.api::<Event>(), |events| {
        events.iter().any(|e| {
            e.reason.as_deref() == Some("FailedScheduling")
                && e.type_.as_deref() == Some("Warning")
                && e.involved_object.name.as_deref() == Some("third")
                && e.message.as_deref() == Some(message)
        })
    })
    .await;
    pods.delete("first", &kube::api::DeleteParams::default()).await.unwrap();
    until_object("it runs", &pods, "third", |pod| {
        pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
    })
    .await;
}
