//! Nodes that fall silent, return, are drained of pods by taints, or are removed.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::control_plane::ControlPlane;
use crate::wait::{until, until_gone, until_object};
use crate::workloads::deployment;

const GRACE: Duration = Duration::from_secs(2);

async fn plane(nodes: usize) -> ControlPlane {
    ControlPlane::with_config(nodes, |config| {
        config.node_monitor_grace_period = GRACE;
        config.orphaned_pod_quarantine = Duration::from_millis(100);
    })
    .await
}

fn taints(node: &Node) -> Vec<String> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut taints: Vec<String> = taints
        .map(|taint| format!("{}:{}", taint.key.trim_start_matches("node.kubernetes.io/"), taint.effect))
        .collect();
    taints.sort();
    taints
}

fn ready(node: &Node) -> Option<&str> {
    let conditions = node.status.as_ref()?.conditions.iter().flatten();
    conditions.into_iter().find(|c| c.type_ == "Ready").map(|c| c.status.as_str())
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn pod_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_node_loses_its_pods_after_their_toleration_and_returns() {
    let mut plane = plane(2).await;
    let nodes = plane.all::<Node>();
    for name in ["node-0", "node-1"] {
        until_object("untainted", &nodes, name, |node| {
            taints(node).is_empty() && ready(node) == Some("True")
        })
        .await;
    }
    let mut web = deployment("web", 4, "nginx");
    web["spec"]["template"]["spec"]["tolerations"] = json!([
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
    ]);
    plane.create::<Deployment>(web).await;
    let service =
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    plane.create::<Service>(service).await;
    let pods = plane.api::<Pod>();
    let running = |pods: &[Pod]| pods.len() == 4 && pods.iter().all(pod_ready);
    let before = until("4 ready", &pods, running).await;
    assert_eq!(before.iter().filter(|pod| node_of(pod) == Some("node-1")).count(), 2);

    plane.node("node-1").power_off();
    let expected = ["unreachable:NoExecute", "unreachable:NoSchedule"];
    until_object("unreachable", &nodes, "node-1", |n| ready(n) == Some("Unknown") && taints(n) == expected)
        .await;
    until("its pods are no endpoints", &plane.api::<EndpointSlice>(), |slices| {
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        endpoints.into_iter().all(|e| {
            e.node_name.as_deref() != Some("node-1")
                || e.conditions.as_ref().and_then(|c| c.ready) == Some(false)
        })
    })
    .await;
    let moved = until("replaced on the other node", &pods, |pods| {
        pods.iter().filter(|pod| node_of(pod) == Some("node-0") && pod_ready(pod)).count() == 4
    })
    .await;
    let stuck: Vec<&Pod> = moved.iter().filter(|pod| node_of(pod) == Some("node-1")).collect();
    assert_eq!(stuck.len(), 2, "nobody knows whether they still run");
    for pod in stuck {
        assert!(pod.metadata.deletion_timestamp.is_some());
        let conditions = pod.status.as_ref().unwrap().conditions.as_ref().unwrap();
        let target = conditions.iter().find(|c| c.type_ == "DisruptionTarget").unwrap();
        assert_eq!(target.reason.as_deref(), Some("DeletionByTaintManager"));
    }

    plane.node("node-1").power_on().await;
    until_object("ready again", &nodes, "node-1", |n| ready(n) == Some("True") && taints(n).is_empty()).await;
    until("four pods, all on the other node", &pods, |pods| {
        pods.len() == 4 && pods.iter().all(|pod| node_of(pod) == Some("node-0") && pod_ready(pod))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_renews_its_lease_stays_ready() {
    let plane = plane(2).await;
    let nodes = plane.all::<Node>();
    until_object("ready", &nodes, "node-0", |node| taints(node).is_empty() && ready(node) == Some("True"))
        .await;
    let uninterrupted = tokio::time::timeout(
        GRACE * 2,
        until("a node is not ready", &nodes, |nodes| nodes.iter().any(|node| ready(node) != Some("True"))),
    );
    assert!(uninterrupted.await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_node_that_falls_silent_keeps_its_pods() {
    let mut plane = plane(1).await;
    let (nodes, pods) = (plane.all::<Node>(), plane.api::<Pod>());
    plane.create::<Deployment>(deployment("web", 2, "nginx")).await;
    until("2 ready", &pods, |pods| pods.len() == 2 && pods.iter().all(pod_ready)).await;
    plane.node("node-0").power_off();
    until_object("unreachable", &nodes, "node-0", |node| ready(node) == Some("Unknown")).await;
    // Where every node is silent, it is the control plane that is cut off: nothing is evicted.
    let evicted = until("something goes", &pods, |pods| {
        pods.len() != 2 || pods.iter().any(|pod| pod.metadata.deletion_timestamp.is_some())
    });
    assert!(tokio::time::timeout(GRACE * 2, evicted).await.is_err());
    assert_eq!(taints(&nodes.get("node-0").await.unwrap()), ["unreachable:NoSchedule"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cordoned_node_is_tainted_and_gets_no_pods() {
    let plane = plane(2).await;
    let nodes = plane.all::<Node>();
    let cordon = json!({"spec": {"unschedulable": true}});
    nodes.patch("node-1", &PatchParams::default(), &Patch::Merge(&cordon)).await.unwrap();
    until_object("cordoned", &nodes, "node-1", |node| taints(node) == ["unschedulable:NoSchedule"]).await;
    plane.create::<Deployment>(deployment("web", 6, "nginx")).await;
    let pods = until("6 ready", &plane.api::<Pod>(), |p| p.len() == 6 && p.iter().all(pod_ready)).await;
    assert!(pods.iter().all(|pod| node_of(pod) == Some("node-0")));
    let uncordon = json!({"spec": {"unschedulable": null}});
    nodes.patch("node-1", &PatchParams::default(), &Patch::Merge(&uncordon)).await.unwrap();
    until_object("uncordoned", &nodes, "node-1", |node| taints(node).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_removed_node_fail_and_are_replaced() {
    let mut plane = plane(2).await;
    plane.create::<Deployment>(deployment("web", 4, "nginx")).await;
    let pods = plane.api::<Pod>();
    let before = until("4 ready", &pods, |p| p.len() == 4 && p.iter().all(pod_ready)).await;
    let lost: Vec<String> = before
        .iter()
        .filter(|pod| node_of(pod) == Some("node-1"))
        .map(|pod| pod.metadata.name.clone().unwrap())
        .collect();
    plane.node("node-1").power_off();
    plane.all::<Node>().delete("node-1", &DeleteParams::default()).await.unwrap();
    for name in &lost {
        until_gone(&pods, name).await;
    }
    until("4 on the other node", &pods, |pods| {
        pods.len() == 4 && pods.iter().all(|pod| node_of(pod) == Some("node-0") && pod_ready(pod))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn user_taint_evicts_what_does_not_tolerate_it() {
    let plane = plane(2).await;
    let pod = |name: &str, tolerations: serde_json::Value| {
        json!({"metadata": {"name": name}, "spec": {
            "nodeName": "node-1", "tolerations": tolerations, "containers": [{"name": "c", "image": "nginx"}],
        }})
    };
    plane.create::<Pod>(pod("stranger", json!([]))).await;
    plane.create::<Pod>(pod("friend", json!([{"key": "dedicated", "operator": "Exists"}]))).await;
    let pods = plane.api::<Pod>();
    until("both run", &pods, |pods| pods.len() == 2 && pods.iter().all(pod_ready)).await;
    let taint = json!({"spec": {"taints": [{"key": "dedicated", "effect": "NoExecute"}]}});
    plane.all::<Node>().patch("node-1", &PatchParams::default(), &Patch::Merge(&taint)).await.unwrap();
    until_gone(&pods, "stranger").await;
    assert!(pods.get("friend").await.unwrap().metadata.deletion_timestamp.is_none());
    until("the event", &plane.api::<Event>(), |events| {
        events.iter().any(|e| {
            e.reason.as_deref() == Some("TaintManagerEviction")
                && e.message.as_deref() == Some("Marking for deletion Pod test/stranger")
        })
    })
    .await;
}
