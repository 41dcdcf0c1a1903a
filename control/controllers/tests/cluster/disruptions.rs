//! PodDisruptionBudgets: how many pods may go at a time, and evictions that ask for it.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{EvictParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::wait::{until, until_gone, until_object};
use crate::workloads::{available, deployment};

fn budget(spec: &Value) -> Value {
    let mut budget =
        json!({"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}});
    for (field, value) in spec.as_object().unwrap() {
        budget["spec"][field] = value.clone();
    }
    budget
}

/// Allowed, healthy, desired, expected.
fn counts(budget: &PodDisruptionBudget) -> Option<[i32; 4]> {
    let status = budget.status.as_ref()?;
    Some([
        status.disruptions_allowed?,
        status.current_healthy?,
        status.desired_healthy?,
        status.expected_pods?,
    ])
}

async fn running(replicas: i32) -> ControlPlane {
    let plane = ControlPlane::start(2).await;
    plane.create::<Deployment>(deployment("web", replicas, "nginx")).await;
    let deployments = plane.api::<Deployment>();
    until_object("available", &deployments, "web", |d| available(d, replicas)).await;
    plane
}

async fn names(plane: &ControlPlane) -> Vec<String> {
    let pods = plane.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    pods.into_iter().map(|pod| pod.metadata.name.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn budget_counts_what_its_workload_wants() {
    let plane = running(4).await;
    let budgets = plane.api::<PodDisruptionBudget>();
    plane.create::<PodDisruptionBudget>(budget(&json!({"maxUnavailable": "25%"}))).await;
    until_object("one of four", &budgets, "b", |b| counts(b) == Some([1, 4, 3, 4])).await;
    let scale = json!({"spec": {"replicas": 8}});
    plane.api::<Deployment>().patch("web", &PatchParams::default(), &Patch::Merge(&scale)).await.unwrap();
    let counted = until_object("two of eight", &budgets, "b", |b| counts(b) == Some([2, 8, 6, 8])).await;
    let condition = &counted.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
    let told = (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_str());
    assert_eq!(told, ("DisruptionAllowed", "True", "SufficientPods"));
    let all = json!({"spec": {"maxUnavailable": null, "minAvailable": 8}});
    budgets.patch("b", &PatchParams::default(), &Patch::Merge(&all)).await.unwrap();
    until_object("none", &budgets, "b", |b| counts(b) == Some([0, 8, 8, 8])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eviction_waits_until_the_budget_has_room_again() {
    let plane = running(3).await;
    let budgets = plane.api::<PodDisruptionBudget>();
    plane.create::<PodDisruptionBudget>(budget(&json!({"minAvailable": 2}))).await;
    until_object("one of three", &budgets, "b", |b| counts(b) == Some([1, 3, 2, 3])).await;
    let pods = plane.api::<Pod>();
    let all = names(&plane).await;
    pods.evict(&all[0], &EvictParams::default()).await.unwrap();
    let refused = pods.evict(&all[1], &EvictParams::default()).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
    assert_eq!(status.message, "Cannot evict pod as it would violate the pod's disruption budget.");
    until_gone(&pods, &all[0]).await;
    until_object("three again", &budgets, "b", |b| counts(b) == Some([1, 3, 2, 3])).await;
    pods.evict(&all[1], &EvictParams::default()).await.unwrap();
    until_gone(&pods, &all[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_is_emptied_without_ever_going_below_the_budget() {
    let mut plane = running(6).await;
    plane.create::<PodDisruptionBudget>(budget(&json!({"maxUnavailable": 1}))).await;
    let cordon = json!({"spec": {"unschedulable": true}});
    plane.all::<Node>().patch("node-1", &PatchParams::default(), &Patch::Merge(&cordon)).await.unwrap();
    plane.join("node-2").await;
    let pods = plane.api::<Pod>();
    let ready = |pods: &[Pod]| {
        let conditions =
            |pod: &Pod| pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let is_ready = |pod: &&Pod| conditions(pod).iter().any(|c| c.type_ == "Ready" && c.status == "True");
        pods.iter().filter(is_ready).filter(|pod| pod.metadata.deletion_timestamp.is_none()).count()
    };
    // As `kubectl drain`: every pod of the node, again and again until the budget agrees.
    let drain = async {
        loop {
            let list = pods.list(&ListParams::default().fields("spec.nodeName=node-1")).await.unwrap().items;
            if list.is_empty() {
                return;
            }
            for pod in list.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
                let name = pod.metadata.name.as_deref().unwrap();
                match pods.evict(name, &EvictParams::default()).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 429) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let watched = until("emptied", &pods, |pods| {
        assert!(ready(pods) >= 5, "{} of 6 ready", ready(pods));
        let on_node = |pod: &&Pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some("node-1");
        !pods.iter().any(|pod| on_node(&pod)) && ready(pods) == 6
    });
    let ((), left) = tokio::join!(drain, watched);
    assert_eq!(left.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_whose_owner_cannot_be_asked_are_not_evicted() {
    let plane = ControlPlane::start(1).await;
    plane
        .create::<DaemonSet>(json!({
            "metadata": {"name": "d"},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "nginx"}]},
                },
            },
        }))
        .await;
    until("it runs", &plane.api::<Pod>(), |pods| pods.len() == 1).await;
    plane.create::<PodDisruptionBudget>(budget(&json!({"maxUnavailable": 1}))).await;
    let failed = until_object("told", &plane.api::<PodDisruptionBudget>(), "b", |b| {
        let conditions = b.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.reason == "SyncFailed")
    })
    .await;
    let status = failed.status.unwrap();
    assert_eq!(status.disruptions_allowed, Some(0));
    let message = &status.conditions.unwrap()[0].message;
    assert!(message.contains("daemonsets.apps does not implement the scale subresource"), "{message}");
    until("the event", &plane.api::<Event>(), |events| {
        events.iter().any(|event| event.reason.as_deref() == Some("CalculateExpectedPodCountFailed"))
    })
    .await;
}
