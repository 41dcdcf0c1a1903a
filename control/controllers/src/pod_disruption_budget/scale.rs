//! How many pods the owners of some pods want.
//!
//! In: pods, the caches of the workloads, the API for kinds of others. Out: the sum over all owners; pods that nobody
//! owns.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;

use crate::context::Context;
use crate::error::{Error, is_not_found};
use crate::inventory::Inventory;
use crate::key::ObjectKey;
use crate::owner;

/// What the owners want.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) pods: i32,
    /// Names of pods without an owner.
    pub(crate) unmanaged: Vec<String>,
}

/// An owner, by its UID, and how many pods it wants.
type Scale = (String, i32);

/// Asks every owner of `pods` once.
pub(crate) async fn wanted(context: &Context, namespace: &str, pods: &[Arc<Pod>]) -> Result<Wanted, Error> {
    let mut wanted = Wanted::default();
    // Pods of one owner are many, owners are few.
    let mut owners: BTreeMap<&str, &OwnerReference> = BTreeMap::new();
    for pod in pods {
        match owner::controller_of(pod.as_ref()) {
            Some(controller) => drop(owners.insert(&controller.uid, controller)),
            None => wanted.unmanaged.push(pod.metadata.name.clone().unwrap_or_default()),
        }
    }
    let mut scales: BTreeMap<String, i32> = BTreeMap::new();
    for controller in owners.into_values() {
        let known = builtin(context, namespace, controller);
        let scale = match known {
            Some(scale) => scale,
            None => asked(context, namespace, controller).await?,
        };
        // An owner that is gone takes its pods along.
        let (uid, replicas) = scale.unwrap_or_else(|| (controller.uid.clone(), 0));
        scales.insert(uid, replicas);
    }
    wanted.pods = scales.values().fold(0, |sum, replicas| sum.saturating_add(*replicas));
    Ok(wanted)
}

/// What a workload this crate runs wants. `None`: the owner is of another kind; `Some(None)`: it is gone.
fn builtin(context: &Context, namespace: &str, owner: &OwnerReference) -> Option<Option<Scale>> {
    let caches = &context.caches;
    let key = ObjectKey::new(namespace, &owner.name);
    let same = |uid: &Option<String>| uid.as_deref() == Some(owner.uid.as_str());
    if is::<ReplicaSet>(owner) {
        let set = caches.replica_sets.get(&key).filter(|set| same(&set.metadata.uid));
        return Some(set.map(|set| match deployment(context, namespace, &set) {
            Some(scale) => scale,
            None => (owner.uid.clone(), set.spec.replicas.unwrap_or(1)),
        }));
    }
    if is::<StatefulSet>(owner) {
        let set = caches.stateful_sets.get(&key).filter(|set| same(&set.metadata.uid));
        return Some(set.map(|set| (owner.uid.clone(), set.spec.replicas.unwrap_or(1))));
    }
    if is::<ReplicationController>(owner) {
        let set = caches.replication_controllers.get(&key).filter(|set| same(&set.metadata.uid));
        let replicas = |set: &ReplicationController| set.spec.as_ref().and_then(|spec| spec.replicas);
        return Some(set.map(|set| (owner.uid.clone(), replicas(&set).unwrap_or(1))));
    }
    None
}

/// The Deployment that owns the set: during a rollout it wants fewer pods than its sets together.
fn deployment(context: &Context, namespace: &str, set: &ReplicaSet) -> Option<Scale> {
    let owner = owner::controller_of_kind::<Deployment, _>(set)?;
    let deployment = context.caches.deployments.get(&ObjectKey::new(namespace, &owner.name))?;
    let same = deployment.metadata.uid.as_deref() == Some(owner.uid.as_str());
    same.then(|| (owner.uid.clone(), deployment.spec.replicas.unwrap_or(1)))
}

/// What an owner of any other kind says through its `scale` sub-resource; `None` when it is gone.
async fn asked(context: &Context, namespace: &str, owner: &OwnerReference) -> Result<Option<Scale>, Error> {
    let inventory = Inventory::discover(&context.client).await?;
    let unscalable = |what: String| Error::Invalid {
        object: format!("{} {namespace}/{}", owner.kind, owner.name),
        field: "scale",
        reason: format!("{what} does not implement the scale subresource"),
    };
    let kind = inventory
        .by_type(&owner.api_version, &owner.kind)
        .ok_or_else(|| unscalable(format!("{}/{}", owner.api_version, owner.kind)))?;
    let api = kind.api(&context.client, namespace);
    match api.get_scale(&owner.name).await {
        Ok(scale) => {
            let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
            Ok(Some((owner.uid.clone(), replicas)))
        }
        Err(error) if is_not_found(&error) => match api.get_opt(&owner.name).await {
            Ok(None) => Ok(None),
            Ok(Some(_)) => Err(unscalable(kind.title())),
            Err(error) => Err(Error::api(format!("get {} {namespace}/{}", owner.kind, owner.name), error)),
        },
        Err(error) => {
            Err(Error::api(format!("get the scale of {} {namespace}/{}", owner.kind, owner.name), error))
        }
    }
}

fn is<K: Resource<DynamicType = ()>>(owner: &OwnerReference) -> bool {
    owner.kind == K::kind(&()) && owner.api_version == K::api_version(&())
}
