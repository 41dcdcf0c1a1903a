//! DaemonSets: one pod on every node that is meant, through nodes that come, rollouts and rollbacks.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::wait::{until, until_object};

fn daemon_set(image: &str, spec: &Value) -> Value {
    let mut set = json!({
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"app": "d"}},
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        set["spec"]["template"]["spec"][field] = value.clone();
    }
    set
}

fn nodes_of(pods: &[Pod]) -> Vec<String> {
    let mut nodes: Vec<String> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    nodes.sort();
    nodes
}

fn image(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.containers[0].image.as_deref()
}

/// Everything is of the newest template and available on this many nodes.
fn settled(set: &DaemonSet, nodes: i32) -> bool {
    set.status.as_ref().is_some_and(|status| {
        status.observed_generation == set.metadata.generation
            && status.desired_number_scheduled == nodes
            && status.updated_number_scheduled == Some(nodes)
            && status.number_available == Some(nodes)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_runs_one_pod_also_a_later_and_a_cordoned_one() {
    let mut plane = ControlPlane::start(2).await;
    let pods = plane.api::<Pod>();
    plane.create::<DaemonSet>(daemon_set("nginx:1", &json!({}))).await;
    let sets = plane.api::<DaemonSet>();
    until_object("two nodes", &sets, "d", |set| settled(set, 2)).await;
    let cordon = json!({"spec": {"unschedulable": true}});
    plane.all::<Node>().patch("node-1", &PatchParams::default(), &Patch::Merge(&cordon)).await.unwrap();
    plane.join("node-2").await;
    until_object("three nodes", &sets, "d", |set| settled(set, 3)).await;
    let all = until("one pod each", &pods, |pods| nodes_of(pods) == ["node-0", "node-1", "node-2"]).await;
    let on_cordoned =
        all.iter().find(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some("node-1"));
    let name = on_cordoned.unwrap().metadata.name.clone().unwrap();
    pods.delete(&name, &DeleteParams::default()).await.unwrap();
    until("replaced on the cordoned node", &pods, |pods| {
        nodes_of(pods) == ["node-0", "node-1", "node-2"]
            && pods.iter().all(|pod| pod.metadata.name.as_deref() != Some(name.as_str()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn selector_decides_and_taints_drive_pods_away() {
    let plane = ControlPlane::start(2).await;
    let pods = plane.api::<Pod>();
    let picky = json!({"nodeSelector": {"disk": "fast"}});
    plane.create::<DaemonSet>(daemon_set("nginx:1", &picky)).await;
    let label = |value: Value| Patch::Merge(json!({"metadata": {"labels": {"disk": value}}}));
    let nodes = plane.all::<Node>();
    nodes.patch("node-1", &PatchParams::default(), &label(json!("fast"))).await.unwrap();
    until("on the labelled node", &pods, |pods| nodes_of(pods) == ["node-1"]).await;
    nodes.patch("node-1", &PatchParams::default(), &label(json!(null))).await.unwrap();
    until("nowhere", &pods, <[Pod]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rollout_replaces_pods_and_a_rollback_makes_a_new_revision_of_the_old() {
    let mut plane = ControlPlane::start(3).await;
    let sets = plane.api::<DaemonSet>();
    plane.create::<DaemonSet>(daemon_set("nginx:1", &json!({}))).await;
    until_object("first", &sets, "d", |set| settled(set, 3)).await;
    let revisions = plane.api::<ControllerRevision>();
    for (round, name) in [(2, "nginx:2"), (3, "nginx:1")] {
        let patch = if round == 3 {
            // As `kubectl rollout undo`: what the revision holds is the patch that brings it back.
            let all = until("two revisions", &revisions, |all| all.len() == 2).await;
            all.iter().find(|revision| revision.revision == Some(1)).unwrap().data.0.clone()
        } else {
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": name}]}}}})
        };
        sets.patch("d", &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
        if round == 3 {
            plane.kill_parts();
            plane.start_parts();
        }
        until("all new", &plane.api::<Pod>(), |pods| {
            assert!(
                nodes_of(pods).iter().collect::<BTreeSet<_>>().len() == nodes_of(pods).len(),
                "two on one node"
            );
            pods.len() == 3 && pods.iter().all(|pod| image(pod) == Some(name))
        })
        .await;
        until_object("settled", &sets, "d", |set| settled(set, 3)).await;
        let known = until("two revisions", &revisions, |all| {
            all.len() == 2 && all.iter().any(|revision| revision.revision == Some(round))
        })
        .await;
        let newest = known.iter().find(|revision| revision.revision == Some(round)).unwrap();
        assert_eq!(newest.data.0.pointer("/spec/template/spec/containers/0/image"), Some(&json!(name)));
    }
}
