//! What goes with what: owners and dependents, namespaces and their content.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, Resource};
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, NAMESPACE};
use crate::wait::{until, until_gone, until_object};
use crate::workloads::deployment;

async fn running_deployment(plane: &ControlPlane) {
    plane.create::<Deployment>(deployment("web", 3, "nginx")).await;
    until("3 pods", &plane.api::<Pod>(), |pods| pods.len() == 3).await;
}

fn map(name: &str, owners: &[(&ConfigMap, bool)], finalizers: &[&str]) -> Value {
    let owners: Vec<Value> = owners
        .iter()
        .map(|(owner, blocks)| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "name": owner.metadata.name, "uid": owner.metadata.uid,
                "blockOwnerDeletion": blocks,
            })
        })
        .collect();
    json!({"metadata": {"name": name, "ownerReferences": owners, "finalizers": finalizers}})
}

#[tokio::test(flavor = "multi_thread")]
async fn deployment_takes_its_sets_and_pods_along() {
    let plane = ControlPlane::start(1).await;
    running_deployment(&plane).await;
    plane.api::<Deployment>().delete("web", &DeleteParams::background()).await.unwrap();
    until("no set", &plane.api::<ReplicaSet>(), <[ReplicaSet]>::is_empty).await;
    until("no pod", &plane.api::<Pod>(), <[Pod]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_deletion_waits_for_the_pods() {
    let plane = ControlPlane::start(1).await;
    running_deployment(&plane).await;
    plane.api::<Deployment>().delete("web", &DeleteParams::foreground()).await.unwrap();
    until_gone(&plane.api::<Deployment>(), "web").await;
    let sets = plane.api::<ReplicaSet>().list(&Default::default()).await.unwrap().items;
    let pods = plane.api::<Pod>().list(&Default::default()).await.unwrap().items;
    assert!(sets.is_empty() && pods.is_empty(), "the owner went before its dependents: {sets:?} {pods:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orphaned_sets_and_pods_stay_without_owner() {
    let plane = ControlPlane::start(1).await;
    running_deployment(&plane).await;
    plane.api::<Deployment>().delete("web", &DeleteParams::orphan()).await.unwrap();
    until_gone(&plane.api::<Deployment>(), "web").await;
    let sets = until("the set lost its owner", &plane.api::<ReplicaSet>(), |sets| {
        sets.len() == 1 && sets[0].metadata.owner_references.is_none()
    })
    .await;
    assert!(sets[0].metadata.deletion_timestamp.is_none());
    assert_eq!(plane.api::<Pod>().list(&Default::default()).await.unwrap().items.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn object_with_an_owner_that_never_was_goes() {
    let plane = ControlPlane::start(0).await;
    let absent = json!({"metadata": {"name": "child", "ownerReferences": [{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "00000000-0000-0000-0000-000000000001",
    }]}});
    plane.create::<ConfigMap>(absent).await;
    until_gone(&plane.api::<ConfigMap>(), "child").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn object_with_a_second_owner_stays_with_that_one() {
    let plane = ControlPlane::start(0).await;
    let maps = plane.api::<ConfigMap>();
    let first: ConfigMap = plane.create(map("first", &[], &[])).await;
    let second: ConfigMap = plane.create(map("second", &[], &[])).await;
    plane.create::<ConfigMap>(map("child", &[(&first, true), (&second, false)], &[])).await;
    maps.delete("first", &DeleteParams::foreground()).await.unwrap();
    until_gone(&maps, "first").await;
    let child = maps.get("child").await.unwrap();
    let owners: Vec<&str> =
        child.metadata.owner_references.iter().flatten().map(|owner| owner.name.as_str()).collect();
    assert_eq!(owners, ["second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_in_a_circle_do_not_block_each_other() {
    let plane = ControlPlane::start(0).await;
    let maps = plane.api::<ConfigMap>();
    let first: ConfigMap = plane.create(map("first", &[], &[])).await;
    let second: ConfigMap = plane.create(map("second", &[(&first, true)], &[])).await;
    let third: ConfigMap = plane.create(map("third", &[(&second, true)], &[])).await;
    let closed = map("first", &[(&third, true)], &[]);
    maps.patch("first", &PatchParams::default(), &Patch::Merge(&closed)).await.unwrap();
    maps.delete("first", &DeleteParams::foreground()).await.unwrap();
    for name in ["first", "second", "third"] {
        until_gone(&maps, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_that_went_while_nobody_looked_takes_its_dependents_along() {
    let mut plane = ControlPlane::start(0).await;
    let maps = plane.api::<ConfigMap>();
    let owner: ConfigMap = plane.create(map("owner", &[], &[])).await;
    plane.create::<ConfigMap>(map("child", &[(&owner, true)], &[])).await;
    plane.kill_parts();
    maps.delete("owner", &DeleteParams::background()).await.unwrap();
    plane.start_parts();
    until_gone(&maps, "child").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_goes_with_its_content_and_waits_for_finalizers() {
    let plane = ControlPlane::start(1).await;
    running_deployment(&plane).await;
    let held: ConfigMap = plane.create(map("held", &[], &["example.com/hold"])).await;
    assert!(held.meta().uid.is_some());
    plane.create::<Secret>(json!({"metadata": {"name": "secret"}})).await;
    until_object("the default account", &plane.api::<ServiceAccount>(), "default", |_| true).await;
    let namespaces = plane.all::<Namespace>();
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
    let refused = plane.api::<ConfigMap>();
    let late: ConfigMap = serde_json::from_value(map("late", &[], &[])).unwrap();
    let refused = refused.create(&PostParams::default(), &late).await.unwrap_err();
    assert!(refused.to_string().contains("being terminated"), "{refused}");

    let waiting = until_object("told what remains", &namespaces, NAMESPACE, |namespace| {
        let conditions = namespace.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.into_iter().any(|c| {
            c.type_ == "NamespaceFinalizersRemaining"
                && c.message
                    .as_deref()
                    .is_some_and(|m| m.ends_with("example.com/hold in 1 resource instances"))
        })
    })
    .await;
    assert_eq!(waiting.status.unwrap().phase.as_deref(), Some("Terminating"));
    assert!(plane.api::<Pod>().list(&Default::default()).await.unwrap().items.is_empty());

    let release = json!({"metadata": {"finalizers": null}});
    plane.api::<ConfigMap>().patch("held", &PatchParams::default(), &Patch::Merge(&release)).await.unwrap();
    until_gone(&namespaces, NAMESPACE).await;
    assert!(
        Api::<Secret>::all(plane.client.clone()).list(&Default::default()).await.unwrap().items.is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_takes_along_kinds_of_every_version_of_a_group() {
    let plane = ControlPlane::start(0).await;
    let mut resources = Vec::new();
    for (kind, version) in [("Apple", "v1"), ("Pear", "v1alpha1")] {
        let plural = format!("{}s", kind.to_lowercase());
        let definition = json!({
            "metadata": {"name": format!("{plural}.fruit.example.com")},
            "spec": {
                "group": "fruit.example.com", "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind},
                "versions": [{"name": version, "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
        });
        let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
        plane.all::<CustomResourceDefinition>().create(&PostParams::default(), &definition).await.unwrap();
        resources.push(ApiResource {
            group: "fruit.example.com".to_owned(),
            version: version.to_owned(),
            api_version: format!("fruit.example.com/{version}"),
            kind: kind.to_owned(),
            plural,
        });
    }
    for resource in &resources {
        let api: Api<DynamicObject> = Api::namespaced_with(plane.client.clone(), NAMESPACE, resource);
        let one = DynamicObject::new("one", resource);
        // A definition is served a moment after it was accepted.
        let made = async {
            while api.create(&PostParams::default(), &one).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(crate::control_plane::PATIENCE, made).await.unwrap();
    }
    let namespaces = plane.all::<Namespace>();
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
    until_gone(&namespaces, NAMESPACE).await;
    for resource in &resources {
        let api: Api<DynamicObject> = Api::all_with(plane.client.clone(), resource);
        assert!(api.list(&Default::default()).await.unwrap().items.is_empty(), "{} stays", resource.kind);
    }
}
