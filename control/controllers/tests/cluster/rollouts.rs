//! Rollouts at their edges: pause, history, deadlines, adoption, who goes first.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::wait::{until, until_object};
use crate::workloads::{available, deployment, rolled};

const REVISION: &str = "deployment.kubernetes.io/revision";

async fn set_image(plane: &ControlPlane, image: &str) {
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    let patch = Patch::Strategic(&patch);
    plane.api::<Deployment>().patch("web", &PatchParams::default(), &patch).await.unwrap();
}

async fn merge(plane: &ControlPlane, patch: Value) {
    plane.api::<Deployment>().patch("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

fn revision(set: &ReplicaSet) -> Option<&str> {
    set.metadata.annotations.as_ref()?.get(REVISION).map(String::as_str)
}

fn condition<'a>(deployment: &'a Deployment, type_: &str) -> Option<(&'a str, &'a str)> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_.as_deref() == Some(type_))?;
    Some((condition.status.as_deref()?, condition.reason.as_deref()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_back_uses_the_old_set_again_under_a_new_revision() {
    let plane = ControlPlane::start(1).await;
    let deployments = plane.api::<Deployment>();
    plane.create::<Deployment>(deployment("web", 2, "nginx:1")).await;
    until_object("first", &deployments, "web", |d| rolled(d, "nginx:1", 2)).await;
    set_image(&plane, "nginx:2").await;
    until_object("second", &deployments, "web", |d| rolled(d, "nginx:2", 2)).await;
    set_image(&plane, "nginx:1").await;
    until_object("back", &deployments, "web", |d| rolled(d, "nginx:1", 2)).await;
    let sets = until("two sets, revisions 2 and 3", &plane.api::<ReplicaSet>(), |sets| {
        let mut revisions: Vec<_> = sets.iter().filter_map(revision).collect();
        revisions.sort_unstable();
        revisions == ["2", "3"]
    })
    .await;
    let current = sets.iter().find(|set| revision(set) == Some("3")).unwrap();
    assert_eq!(current.spec.replicas, Some(2));
    let history =
        &current.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision-history"];
    assert_eq!(history, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_kept_to_its_limit() {
    let plane = ControlPlane::start(1).await;
    let deployments = plane.api::<Deployment>();
    let mut web = deployment("web", 1, "nginx:1");
    web["spec"]["revisionHistoryLimit"] = json!(2);
    plane.create::<Deployment>(web).await;
    for round in 1..6 {
        let image = format!("nginx:{round}");
        set_image(&plane, &image).await;
        until_object("rolled", &deployments, "web", |d| rolled(d, &image, 1)).await;
    }
    until("the current set and two old ones", &plane.api::<ReplicaSet>(), |sets| {
        let mut revisions: Vec<_> = sets.iter().filter_map(revision).collect();
        revisions.sort_unstable();
        revisions == ["3", "4", "5"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_deployment_scales_but_does_not_roll() {
    let plane = ControlPlane::start(1).await;
    let deployments = plane.api::<Deployment>();
    plane.create::<Deployment>(deployment("web", 2, "nginx:1")).await;
    until_object("first", &deployments, "web", |d| rolled(d, "nginx:1", 2)).await;
    merge(&plane, json!({"spec": {"paused": true}})).await;
    set_image(&plane, "nginx:2").await;
    merge(&plane, json!({"spec": {"replicas": 4}})).await;
    let paused = until_object("scaled", &deployments, "web", |d| {
        d.status.as_ref().is_some_and(|s| s.available_replicas == Some(4))
            && d.status.as_ref().and_then(|s| s.observed_generation) == d.metadata.generation
    })
    .await;
    assert_eq!(condition(&paused, "Progressing"), Some(("Unknown", "DeploymentPaused")));
    let sets = plane.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(sets.len(), 1, "no set for the template that waits");
    merge(&plane, json!({"spec": {"paused": null}})).await;
    until_object("rolled", &deployments, "web", |d| rolled(d, "nginx:2", 4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rollout_never_has_fewer_or_more_pods_than_it_may() {
    let plane = ControlPlane::start(2).await;
    let deployments = plane.api::<Deployment>();
    let mut web = deployment("web", 10, "nginx:1");
    web["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}});
    plane.create::<Deployment>(web).await;
    until_object("first", &deployments, "web", |d| rolled(d, "nginx:1", 10)).await;
    set_image(&plane, "nginx:2").await;
    // 25 % of ten: three more at most (rounded up), two fewer at most (rounded down).
    until("rolled within its bounds", &plane.api::<ReplicaSet>(), |sets| {
        let total: i32 = sets.iter().filter_map(|set| set.spec.replicas).sum();
        let available: i32 =
            sets.iter().filter_map(|set| set.status.as_ref().and_then(|s| s.available_replicas)).sum();
        assert!(total <= 13, "{total} pods asked for");
        assert!(available >= 8, "{available} available");
        sets.len() == 2 && sets.iter().any(|set| set.spec.replicas == Some(0)) && available == 10
    })
    .await;
    until_object("rolled", &deployments, "web", |d| rolled(d, "nginx:2", 10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deployment_that_makes_no_progress_says_so_and_recovers() {
    let plane = ControlPlane::start(1).await;
    let deployments = plane.api::<Deployment>();
    let mut web = deployment("web", 1, "nginx:1");
    web["spec"]["progressDeadlineSeconds"] = json!(1);
    web["spec"]["template"]["spec"]["nodeSelector"] = json!({"nowhere": "yes"});
    plane.create::<Deployment>(web).await;
    until_object("deadline exceeded", &deployments, "web", |d| {
        condition(d, "Progressing") == Some(("False", "ProgressDeadlineExceeded"))
            && condition(d, "Available") == Some(("False", "MinimumReplicasUnavailable"))
    })
    .await;
    merge(&plane, json!({"spec": {"template": {"spec": {"nodeSelector": null}}}})).await;
    let done = until_object("available", &deployments, "web", |d| available(d, 1)).await;
    assert_eq!(condition(&done, "Progressing"), Some(("True", "NewReplicaSetAvailable")));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_available_only_after_min_ready_seconds() {
    let plane = ControlPlane::start(1).await;
    let mut web = deployment("web", 2, "nginx:1");
    web["spec"]["minReadySeconds"] = json!(2);
    plane.create::<Deployment>(web).await;
    until_object("available", &plane.api::<Deployment>(), "web", |d| available(d, 2)).await;
    let now = Timestamp::now();
    let pods = plane.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    for pod in &pods {
        let conditions = pod.status.as_ref().unwrap().conditions.as_ref().unwrap();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        let since = ready.last_transition_time.as_ref().unwrap().0;
        let waited = Duration::try_from(now.duration_since(since)).unwrap();
        assert!(waited >= Duration::from_secs(2), "available after {waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recreate_starts_new_pods_only_when_the_old_are_gone() {
    let plane = ControlPlane::start(1).await;
    let deployments = plane.api::<Deployment>();
    let mut web = deployment("web", 3, "nginx:1");
    web["spec"]["strategy"] = json!({"type": "Recreate"});
    plane.create::<Deployment>(web).await;
    until_object("first", &deployments, "web", |d| rolled(d, "nginx:1", 3)).await;
    set_image(&plane, "nginx:2").await;
    let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    until("only new pods", &plane.api::<Pod>(), |pods| {
        let (new, old): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|pod| image(pod) == "nginx:2");
        assert!(new.is_empty() || old.is_empty(), "both at once");
        new.len() == 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_set_adopts_matching_pods_and_releases_others() {
    let plane = ControlPlane::start(1).await;
    let pods = plane.api::<Pod>();
    let spec = json!({"containers": [{"name": "c", "image": "nginx"}]});
    plane.create::<Pod>(json!({"metadata": {"name": "stray", "labels": {"app": "web"}}, "spec": spec})).await;
    plane
        .create::<ReplicaSet>(json!({
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec},
            },
        }))
        .await;
    let owned = |pod: &Pod| pod.metadata.owner_references.iter().flatten().any(|owner| owner.name == "web");
    until("two pods, one of them the stray", &pods, |pods| {
        pods.len() == 2
            && pods.iter().all(owned)
            && pods.iter().any(|p| p.metadata.name.as_deref() == Some("stray"))
    })
    .await;
    let relabel = json!({"metadata": {"labels": {"app": "debug"}}});
    pods.patch("stray", &PatchParams::default(), &Patch::Merge(&relabel)).await.unwrap();
    let after = until("released and replaced", &pods, |pods| {
        pods.len() == 3 && pods.iter().filter(|pod| owned(pod)).count() == 2
    })
    .await;
    let stray = after.iter().find(|pod| pod.metadata.name.as_deref() == Some("stray")).unwrap();
    assert!(!owned(stray) && stray.metadata.deletion_timestamp.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_of_the_lowest_deletion_cost_goes_first() {
    let plane = ControlPlane::start(1).await;
    let deployments = plane.api::<Deployment>();
    plane.create::<Deployment>(deployment("web", 4, "nginx")).await;
    until_object("first", &deployments, "web", |d| available(d, 4)).await;
    let pods = plane.api::<Pod>();
    let all = pods.list(&ListParams::default()).await.unwrap().items;
    let cheap = all[2].metadata.name.clone().unwrap();
    let cost = json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-10"}}});
    pods.patch(&cheap, &PatchParams::default(), &Patch::Merge(&cost)).await.unwrap();
    merge(&plane, json!({"spec": {"replicas": 3}})).await;
    let left = until("three", &pods, |pods| pods.len() == 3).await;
    assert!(left.iter().all(|pod| pod.metadata.name.as_deref() != Some(cheap.as_str())));
}
