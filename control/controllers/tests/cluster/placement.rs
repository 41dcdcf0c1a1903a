//! Pods among pods: affinity, spreading, and those that make room for more important ones.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::wait::{until, until_gone, until_object};
use crate::workloads::{available, deployment};

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Six nodes in two zones.
async fn zones() -> ControlPlane {
    let plane = ControlPlane::start(6).await;
    for number in 0..6 {
        let zone = if number < 2 { "a" } else { "b" };
        let label = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
        let name = format!("node-{number}");
        plane.all::<Node>().patch(&name, &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
    }
    plane
}

async fn pods_by_node(plane: &ControlPlane, app: &str) -> BTreeMap<String, usize> {
    let params = ListParams::default().labels(&format!("app={app}"));
    let pods = plane.api::<Pod>().list(&params).await.unwrap().items;
    let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
    for pod in &pods {
        *nodes.entry(node_of(pod).unwrap_or("nowhere").to_owned()).or_default() += 1;
    }
    nodes
}

fn with(mut workload: Value, field: &str, value: Value) -> Value {
    workload["spec"]["template"]["spec"][field] = value;
    workload
}

#[tokio::test(flavor = "multi_thread")]
async fn anti_affinity_gives_each_pod_a_node_and_affinity_follows_them_into_their_zone() {
    let plane = zones().await;
    let term =
        |app: &str, key: &str| json!([{"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key}]);
    let apart = json!({
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term("db", "kubernetes.io/hostname")},
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]},
        ]}},
    });
    plane.create::<Deployment>(with(deployment("db", 3, "nginx"), "affinity", apart)).await;
    let deployments = plane.api::<Deployment>();
    until_object("two of three", &deployments, "db", |d| {
        d.status.as_ref().is_some_and(|status| status.available_replicas == Some(2))
    })
    .await;
    let refused = until("the third is told why", &plane.api::<Pod>(), |pods| {
        pods.iter().any(|pod| node_of(pod).is_none() && pod.status.as_ref().unwrap().conditions.is_some())
    })
    .await;
    let waiting = refused.iter().find(|pod| node_of(pod).is_none()).unwrap();
    let message = waiting.status.as_ref().unwrap().conditions.as_ref().unwrap()[0].message.clone().unwrap();
    assert!(message.contains("2 node(s) didn't match pod anti-affinity rules"), "{message}");
    assert!(message.contains("4 node(s) didn't match Pod's node affinity/selector"), "{message}");

    let near = json!({
        "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term("db", "topology.kubernetes.io/zone")},
    });
    plane.create::<Deployment>(with(deployment("web", 4, "nginx"), "affinity", near)).await;
    until_object("all", &deployments, "web", |d| available(d, 4)).await;
    let nodes = pods_by_node(&plane, "web").await;
    assert!(nodes.keys().all(|node| ["node-0", "node-1"].contains(&node.as_str())), "{nodes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn constraint_spreads_pods_evenly_over_zones_and_waits_for_a_zone_that_is_full() {
    let plane = zones().await;
    let spread = json!([{
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }]);
    let web = with(deployment("web", 8, "nginx"), "topologySpreadConstraints", spread);
    plane.create::<Deployment>(web).await;
    until_object("all", &plane.api::<Deployment>(), "web", |d| available(d, 8)).await;
    let nodes = pods_by_node(&plane, "web").await;
    let in_a: usize = ["node-0", "node-1"].iter().filter_map(|node| nodes.get(*node)).sum();
    assert_eq!(in_a, 4, "{nodes:?}");
}

async fn priority_class(plane: &ControlPlane, name: &str, value: i32) {
    let class: PriorityClass =
        serde_json::from_value(json!({"metadata": {"name": name}, "value": value})).unwrap();
    plane.all::<PriorityClass>().create(&PostParams::default(), &class).await.unwrap();
}

/// A pod that asks for most of a node's four CPUs.
fn large(name: &str, class: Option<&str>) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {
        "priorityClassName": class,
        "containers": [{"name": "c", "image": "nginx", "resources": {"requests": {"cpu": "3"}}}],
    }})
}

#[tokio::test(flavor = "multi_thread")]
async fn important_pod_takes_the_place_of_the_least_important_one() {
    let plane = ControlPlane::start(3).await;
    let pods = plane.api::<Pod>();
    priority_class(&plane, "low", 10).await;
    priority_class(&plane, "middle", 100).await;
    priority_class(&plane, "high", 1000).await;
    for (name, class) in [("first", "middle"), ("second", "low"), ("guarded", "low")] {
        plane.create::<Pod>(large(name, Some(class))).await;
        until_object("bound", &pods, name, |pod| node_of(pod).is_some()).await;
    }
    let budget = json!({"metadata": {"name": "b"}, "spec": {
        "minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}},
    }});
    plane.create::<PodDisruptionBudget>(budget).await;
    until_object("it allows none", &plane.api::<PodDisruptionBudget>(), "b", |budget| {
        budget
            .status
            .as_ref()
            .is_some_and(|status| status.current_healthy == Some(1) && status.disruptions_allowed == Some(0))
    })
    .await;
    let second = pods.get("second").await.unwrap();
    plane.create::<Pod>(large("urgent", Some("high"))).await;
    let urgent = until_object("it has a node", &pods, "urgent", |pod| node_of(pod).is_some()).await;
    assert_eq!(node_of(&urgent), node_of(&second));
    until_gone(&pods, "second").await;
    for name in ["first", "guarded"] {
        assert!(pods.get(name).await.unwrap().metadata.deletion_timestamp.is_none(), "{name}");
    }
    until("the event", &plane.api::<Event>(), |events| {
        events.iter().any(|event| {
            event.reason.as_deref() == Some("Preempted")
                && event.involved_object.name.as_deref() == Some("second")
                && event.message.as_deref().is_some_and(|message| message.starts_with("Preempted by pod "))
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn victim_is_marked_and_a_polite_pod_waits() {
    let plane = ControlPlane::start(1).await;
    let pods = plane.api::<Pod>();
    priority_class(&plane, "high", 1000).await;
    let polite: PriorityClass = serde_json::from_value(
        json!({"metadata": {"name": "polite"}, "value": 5000, "preemptionPolicy": "Never"}),
    )
    .unwrap();
    plane.all::<PriorityClass>().create(&PostParams::default(), &polite).await.unwrap();
    let mut held = large("held", None);
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    plane.create::<Pod>(held).await;
    until_object("bound", &pods, "held", |pod| node_of(pod).is_some()).await;
    plane.create::<Pod>(large("waits", Some("polite"))).await;
    let refusal = |pod: &Pod| -> Option<String> {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?.message.clone()
    };
    let waits = until_object("told", &pods, "waits", |pod| refusal(pod).is_some()).await;
    let message = refusal(&waits).unwrap();
    assert!(message.ends_with("preemption: not eligible due to preemptionPolicy=Never."), "{message}");
    pods.delete("waits", &Default::default()).await.unwrap();

    plane.create::<Pod>(large("urgent", Some("high"))).await;
    let marked = until_object("marked", &pods, "held", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    let conditions = marked.status.unwrap().conditions.unwrap();
    let target = conditions.iter().find(|condition| condition.type_ == "DisruptionTarget").unwrap();
    assert_eq!(target.reason.as_deref(), Some("PreemptionByScheduler"));
    until_object("nominated", &pods, "urgent", |pod| {
        pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref()) == Some("node-0")
    })
    .await;
    let release = json!({"metadata": {"finalizers": null}});
    pods.patch("held", &PatchParams::default(), &Patch::Merge(&release)).await.unwrap();
    until_object("bound", &pods, "urgent", |pod| node_of(pod) == Some("node-0")).await;
}
