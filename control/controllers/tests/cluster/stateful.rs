//! StatefulSets: pods with names, in order, through updates and restarts of their controller.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::wait::{until, until_gone, until_object};

fn stateful_set(replicas: i32, extra: &Value) -> Value {
    let mut set = json!({
        "metadata": {"name": "db"},
        "spec": {
            "replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "c", "image": "nginx:1"}]},
            },
        },
    });
    for (field, value) in extra.as_object().unwrap() {
        set["spec"][field] = value.clone();
    }
    set
}

fn names(pods: &[Pod]) -> Vec<&str> {
    let mut names: Vec<&str> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    names.sort_unstable();
    names
}

fn image(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.containers[0].image.as_deref()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Every replica is of the newest template and available.
fn settled(set: &StatefulSet, replicas: i32) -> bool {
    set.status.as_ref().is_some_and(|status| {
        status.observed_generation == set.metadata.generation
            && status.replicas == replicas
            && status.available_replicas == Some(replicas)
            && status.current_revision == status.update_revision
            && status.updated_replicas.unwrap_or(0) == replicas
    })
}

async fn merge(plane: &ControlPlane, patch: Value) {
    plane.api::<StatefulSet>().patch("db", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_come_in_order_and_go_in_reverse() {
    let plane = ControlPlane::start(2).await;
    let pods = plane.api::<Pod>();
    plane.create::<StatefulSet>(stateful_set(3, &json!({}))).await;
    until("three in order", &pods, |pods| {
        let present = names(pods);
        assert!(["db-0", "db-1", "db-2"].starts_with(&present), "out of order: {present:?}");
        // All but the newest are ready.
        let waiting = pods.iter().filter(|pod| !is_ready(pod)).count();
        assert!(waiting <= 1, "{waiting} are not ready");
        present.len() == 3
    })
    .await;
    until_object("settled", &plane.api::<StatefulSet>(), "db", |set| settled(set, 3)).await;
    merge(&plane, json!({"spec": {"replicas": 1}})).await;
    until("one", &pods, |pods| {
        assert!(["db-0", "db-1", "db-2"].starts_with(&names(pods)), "out of order: {:?}", names(pods));
        names(pods) == ["db-0"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_pod_comes_back_under_its_name_and_with_its_claim() {
    let plane = ControlPlane::start(1).await;
    let pods = plane.api::<Pod>();
    let claimed = json!({"volumeClaimTemplates": [{
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }]});
    plane.create::<StatefulSet>(stateful_set(1, &claimed)).await;
    let first = until_object("first", &pods, "db-0", |_| true).await;
    let claim = until_object("its claim", &plane.api::<PersistentVolumeClaim>(), "data-db-0", |_| true).await;
    pods.delete("db-0", &DeleteParams::default()).await.unwrap();
    let second = until_object("second", &pods, "db-0", |pod| pod.metadata.uid != first.metadata.uid).await;
    let volumes = second.spec.unwrap().volumes.unwrap();
    let named = volumes.iter().find_map(|v| v.persistent_volume_claim.as_ref()).unwrap();
    assert_eq!(named.claim_name, "data-db-0");
    let kept = plane.api::<PersistentVolumeClaim>().get("data-db-0").await.unwrap();
    assert_eq!(kept.metadata.uid, claim.metadata.uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn update_goes_from_the_top_and_stops_at_the_partition() {
    let mut plane = ControlPlane::start(2).await;
    let (sets, pods) = (plane.api::<StatefulSet>(), plane.api::<Pod>());
    let parted = json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}});
    plane.create::<StatefulSet>(stateful_set(3, &parted)).await;
    until_object("settled", &sets, "db", |set| settled(set, 3)).await;
    let template =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}}});
    sets.patch("db", &PatchParams::default(), &Patch::Strategic(&template)).await.unwrap();
    let images = |pods: &[Pod]| {
        let mut all: Vec<(String, String)> = pods
            .iter()
            .map(|pod| (pod.metadata.name.clone().unwrap(), image(pod).unwrap().to_owned()))
            .collect();
        all.sort();
        all.into_iter().map(|(_, image)| image).collect::<Vec<_>>()
    };
    let ready = |pods: &[Pod]| pods.len() == 3 && pods.iter().all(is_ready);
    until("only the last", &pods, |p| ready(p) && images(p) == ["nginx:1", "nginx:1", "nginx:2"]).await;
    // Below the partition a lost pod comes back as it was, also after a restart of the controllers.
    plane.kill_parts();
    plane.start_parts();
    pods.delete("db-0", &DeleteParams::default()).await.unwrap();
    until("as it was", &pods, |p| ready(p) && images(p) == ["nginx:1", "nginx:1", "nginx:2"]).await;
    merge(&plane, json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})).await;
    until("all new", &pods, |p| ready(p) && images(p).iter().all(|image| image == "nginx:2")).await;
    until_object("settled", &sets, "db", |set| settled(set, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_update_is_undone_by_the_revision_it_came_from() {
    let plane = ControlPlane::start(2).await;
    let (sets, pods) = (plane.api::<StatefulSet>(), plane.api::<Pod>());
    plane.create::<StatefulSet>(stateful_set(2, &json!({}))).await;
    let first = until_object("settled", &sets, "db", |set| settled(set, 2)).await;
    let broken = json!({"spec": {"template": {"spec": {"nodeSelector": {"nowhere": "yes"}}}}});
    sets.patch("db", &PatchParams::default(), &Patch::Strategic(&broken)).await.unwrap();
    // The top pod is replaced by one that never runs; the rest is left alone.
    until("it waits", &pods, |pods| {
        pods.len() == 2
            && pods.iter().any(|pod| pod.metadata.name.as_deref() == Some("db-1") && !is_ready(pod))
    })
    .await;
    let halted = until_object("halted", &sets, "db", |set| {
        set.status.as_ref().is_some_and(|status| status.updated_replicas == Some(1))
    })
    .await;
    let status = halted.status.as_ref().unwrap();
    assert_ne!(status.current_revision, status.update_revision);
    assert_eq!(status.current_revision, first.status.as_ref().unwrap().current_revision);
    // As `kubectl rollout undo`: what the revision holds is the patch that brings it back.
    let revisions = plane.api::<ControllerRevision>();
    let known = until("two revisions", &revisions, |all| all.len() == 2).await;
    let old = known.iter().find(|revision| revision.revision == Some(1)).unwrap();
    let undone = sets.patch("db", &PatchParams::default(), &Patch::Strategic(&old.data.0)).await.unwrap();
    // Else the pod might be made anew from the broken template once more.
    until_object("seen", &sets, "db", |set| {
        set.status.as_ref().and_then(|status| status.observed_generation) == undone.metadata.generation
    })
    .await;
    // In order means that a pod which is not ready is waited for; as upstream, its author has to delete it.
    pods.delete("db-1", &DeleteParams::default()).await.unwrap();
    until_object("settled", &sets, "db", |set| settled(set, 2)).await;
    until("revision 3 is the old one", &revisions, |all| {
        all.iter().any(|revision| revision.revision == Some(3) && revision.metadata.name == old.metadata.name)
    })
    .await;
    assert!(pods.list(&Default::default()).await.unwrap().items.iter().all(is_ready));
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_left_behind_are_the_successors_history() {
    let plane = ControlPlane::start(1).await;
    let (sets, revisions) = (plane.api::<StatefulSet>(), plane.api::<ControllerRevision>());
    plane.create::<StatefulSet>(stateful_set(1, &json!({}))).await;
    until_object("settled", &sets, "db", |set| settled(set, 1)).await;
    sets.delete("db", &DeleteParams::orphan()).await.unwrap();
    until("nobody's", &revisions, |all| {
        all.len() == 1 && all[0].metadata.owner_references.iter().flatten().next().is_none()
    })
    .await;
    until_gone(&sets, "db").await;
    let second: StatefulSet = plane.create(stateful_set(1, &json!({}))).await;
    let owned = until("adopted", &revisions, |all| {
        all.iter().all(|revision| {
            let owners = revision.metadata.owner_references.iter().flatten();
            owners.into_iter().any(|owner| Some(&owner.uid) == second.metadata.uid.as_ref())
        })
    })
    .await;
    assert_eq!(owned.len(), 1, "the same template needs no second revision");
    until_object("settled", &sets, "db", |set| settled(set, 1)).await;
}
