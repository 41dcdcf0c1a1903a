//! Where pods go, and what brings those back that fit nowhere.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::wait::until_object;

fn pod(name: &str, spec: &Value) -> Value {
    let mut pod =
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}});
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn refusal(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    scheduled.message.as_deref()
}

async fn patch_node(plane: &ControlPlane, name: &str, patch: Value) {
    plane.all::<Node>().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn selector_and_affinity_are_followed_when_a_label_appears() {
    let plane = ControlPlane::start(2).await;
    let pods = plane.api::<Pod>();
    plane.create::<Pod>(pod("selects", &json!({"nodeSelector": {"disk": "fast"}}))).await;
    let affinity = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["fast", "faster"]}]}],
    }}}});
    plane.create::<Pod>(pod("prefers", &affinity)).await;
    let expected = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.";
    for name in ["selects", "prefers"] {
        // Not at once: the scheduler may not have seen yet that the nodes' first taint is gone.
        let refused = |pod: &Pod| refusal(pod).is_some_and(|message| message.starts_with(expected));
        until_object("refused", &pods, name, refused).await;
    }
    patch_node(&plane, "node-1", json!({"metadata": {"labels": {"disk": "fast"}}})).await;
    for name in ["selects", "prefers"] {
        until_object("on the labelled node", &pods, name, |pod| node_of(pod) == Some("node-1")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn taint_keeps_pods_off_until_it_is_gone() {
    let plane = ControlPlane::start(1).await;
    patch_node(&plane, "node-0", json!({"spec": {"taints": [{"key": "dedicated", "effect": "NoSchedule"}]}}))
        .await;
    let pods = plane.api::<Pod>();
    let tolerates = json!({"tolerations": [{"key": "dedicated", "operator": "Exists"}]});
    plane.create::<Pod>(pod("friend", &tolerates)).await;
    until_object("on the tainted node", &pods, "friend", |pod| node_of(pod) == Some("node-0")).await;
    plane.create::<Pod>(pod("stranger", &json!({}))).await;
    let refused = until_object("refused", &pods, "stranger", |pod| refusal(pod).is_some()).await;
    assert!(
        refusal(&refused).unwrap().starts_with("0/1 nodes are available: 1 node(s) had untolerated taint")
    );
    patch_node(&plane, "node-0", json!({"spec": {"taints": null}})).await;
    until_object("on the node", &pods, "stranger", |pod| node_of(pod) == Some("node-0")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_without_any_node_waits_for_the_first() {
    let mut plane = ControlPlane::start(0).await;
    let pods = plane.api::<Pod>();
    plane.create::<Pod>(pod("early", &json!({}))).await;
    let refused = until_object("refused", &pods, "early", |pod| refusal(pod).is_some()).await;
    assert_eq!(refusal(&refused), Some("no nodes available to schedule pods"));
    plane.join("late").await;
    until_object("on the new node", &pods, "early", |pod| node_of(pod) == Some("late")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gated_pod_is_left_alone_until_its_gates_are_open() {
    let plane = ControlPlane::start(1).await;
    let pods = plane.api::<Pod>();
    plane.create::<Pod>(pod("gated", &json!({"schedulingGates": [{"name": "example.com/wait"}]}))).await;
    plane.create::<Pod>(pod("open", &json!({}))).await;
    until_object("bound", &pods, "open", |pod| node_of(pod).is_some()).await;
    let gated = pods.get("gated").await.unwrap();
    assert_eq!(node_of(&gated), None);
    let open = json!({"spec": {"schedulingGates": null}});
    pods.patch("gated", &PatchParams::default(), &Patch::Merge(&open)).await.unwrap();
    until_object("bound", &pods, "gated", |pod| node_of(pod).is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_deleted_while_it_waits_is_forgotten_and_others_go_on() {
    let plane = ControlPlane::start(1).await;
    let pods = plane.api::<Pod>();
    let huge =
        json!({"containers": [{"name": "c", "image": "nginx", "resources": {"requests": {"cpu": "64"}}}]});
    plane.create::<Pod>(pod("huge", &huge)).await;
    until_object("refused", &pods, "huge", |pod| refusal(pod).is_some()).await;
    pods.delete("huge", &DeleteParams::default()).await.unwrap();
    plane.create::<Pod>(pod("huge", &json!({}))).await;
    until_object("the new one of that name", &pods, "huge", |pod| node_of(pod).is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_wait_for_a_killed_scheduler_and_are_placed_once() {
    let mut plane = ControlPlane::start(2).await;
    let pods = plane.api::<Pod>();
    let cpu =
        json!({"containers": [{"name": "c", "image": "nginx", "resources": {"requests": {"cpu": "1"}}}]});
    for number in 0..8 {
        plane.create::<Pod>(pod(&format!("p{number}"), &cpu)).await;
        if number % 3 == 2 {
            plane.kill_parts();
            plane.start_parts();
        }
    }
    let mut per_node = [0, 0];
    for number in 0..8 {
        let name = format!("p{number}");
        let bound = until_object("bound", &pods, &name, |pod| node_of(pod).is_some()).await;
        per_node[usize::from(node_of(&bound) == Some("node-1"))] += 1;
    }
    assert_eq!(per_node, [4, 4], "no node took more than its 4 CPUs");
}
