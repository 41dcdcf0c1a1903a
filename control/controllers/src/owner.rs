//! Controlling owners: who owns an object, who should, and the writes that make it so.
//!
//! In: objects, a would-be owner and its selector. Out: verdicts (pure); adoption and release (writes).

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use xebec_api::labels::Selector;

use crate::cache::revision_of;
use crate::error::Error;
use crate::patch::{self, Half};

/// What an owner does about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Owned and matching.
    Keep,
    /// Owned by nobody and matching.
    Adopt,
    /// Owned, but no longer matching.
    Release,
    /// None of this owner's business.
    Ignore,
}

/// The reference that marks `owner` as an object's controller.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The reference to an object's controller, if it has one.
pub(crate) fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.meta().owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The object's controller, if it is of kind `O`.
pub(crate) fn controller_of_kind<O, K>(object: &K) -> Option<&OwnerReference>
where
    O: Resource<DynamicType = ()>,
    K: Resource,
{
    controller_of(object)
        .filter(|owner| owner.kind == O::kind(&()) && owner.api_version == O::api_version(&()))
}

/// Parses a selector as the API defines it.
pub(crate) fn selector<K: Resource<DynamicType = ()>>(
    owner: &K,
    selector: &LabelSelector,
) -> Result<Selector, Error> {
    Selector::from_label_selector(Some(selector)).map_err(|error| Error::Invalid {
        object: format!("{} {}", K::kind(&()), owner.meta().name.as_deref().unwrap_or_default()),
        field: "spec.selector",
        reason: error.to_string(),
    })
}

pub(crate) fn matches<K: Resource>(selector: &Selector, object: &K) -> bool {
    selector.matches(&object.meta().labels)
}

/// What `owner` does about `object`.
pub(crate) fn claim<O: Resource, K: Resource>(owner: &O, selector: &Selector, object: &K) -> Claim {
    let owner_goes = owner.meta().deletion_timestamp.is_some();
    match controller_of(object) {
        Some(controller) if Some(&controller.uid) != owner.meta().uid.as_ref() => Claim::Ignore,
        Some(_) if matches(selector, object) => Claim::Keep,
        Some(_) if owner_goes => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner_goes || object.meta().deletion_timestamp.is_some() => Claim::Ignore,
        None if matches(selector, object) => Claim::Adopt,
        None => Claim::Ignore,
    }
}

/// Objects by what is to be done about their ownership.
#[derive(Debug)]
pub(crate) struct Claims<K> {
    pub(crate) owned: Vec<Arc<K>>,
    pub(crate) adopt: Vec<Arc<K>>,
    pub(crate) release: Vec<Arc<K>>,
}

/// Sorts the candidates by ownership. Only `changeable` ones change their owner.
pub(crate) fn claims<O: Resource, K: Resource>(
    owner: &O,
    selector: &Selector,
    candidates: Vec<Arc<K>>,
    changeable: impl Fn(&K) -> bool,
) -> Claims<K> {
    let mut claims = Claims { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for candidate in candidates {
        match claim(owner, selector, candidate.as_ref()) {
            Claim::Keep => claims.owned.push(candidate),
            Claim::Adopt if changeable(&candidate) => claims.adopt.push(candidate),
            Claim::Release if changeable(&candidate) => claims.release.push(candidate),
            Claim::Adopt | Claim::Release | Claim::Ignore => {}
        }
    }
    claims
}

/// Adopts and releases; those owned afterwards. `wrote` is told the revision of every write.
pub(crate) async fn claim_all<O, K>(
    api: &Api<K>,
    owners: &Api<O>,
    owner: &O,
    claims: Claims<K>,
    wrote: impl Fn(u64),
) -> Result<Vec<Arc<K>>, Error>
where
    O: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let Claims { mut owned, adopt: orphans, release: strays } = claims;
    if !orphans.is_empty() {
        may_adopt(owners, owner).await?;
    }
    let reference = controller_reference(owner);
    for orphan in orphans {
        if let Some(adopted) = adopt(api, &reference, orphan.as_ref()).await? {
            wrote(revision_of(&adopted));
            owned.push(Arc::new(adopted));
        }
    }
    for stray in strays {
        if let Some(released) = release(api, &reference, stray.as_ref()).await? {
            wrote(revision_of(&released));
        }
    }
    Ok(owned)
}

/// Makes `owner` the controller of `object`. `None` when the object is gone.
pub(crate) async fn adopt<K>(api: &Api<K>, owner: &OwnerReference, object: &K) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let mut adopted = object.clone();
    adopted.meta_mut().owner_references.get_or_insert_default().push(owner.clone());
    match patch::update(api, Half::Main, object, &adopted).await {
        Err(error) if error.is_not_found() => Ok(None),
        written => written,
    }
}

/// `object` without `owner` among its owners.
pub(crate) fn released<K: Resource + Clone>(owner: &OwnerReference, object: &K) -> K {
    let mut released = object.clone();
    let references = &mut released.meta_mut().owner_references;
    if let Some(owners) = references {
        owners.retain(|known| known.uid != owner.uid);
        if owners.is_empty() {
            *references = None;
        }
    }
    released
}

/// Removes `owner` from `object`'s owners.
pub(crate) async fn release<K>(api: &Api<K>, owner: &OwnerReference, object: &K) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let released = released(owner, object);
    match patch::update(api, Half::Main, object, &released).await {
        Err(error) if error.is_not_found() => Ok(None),
        written => written,
    }
}

/// Asks the API itself whether `owner` still exists and is not being deleted: the cache may not know yet, and an
/// object adopted by an owner that goes would be deleted with it.
pub(crate) async fn may_adopt<O>(api: &Api<O>, owner: &O) -> Result<(), Error>
where
    O: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let kind = O::kind(&());
    let name = owner.meta().name.as_deref().unwrap_or_default();
    let live = api.get_opt(name).await.map_err(|e| Error::api(format!("get {kind} {name}"), e))?;
    let same = live
        .is_some_and(|live| live.meta().uid == owner.meta().uid && live.meta().deletion_timestamp.is_none());
    if same {
        return Ok(());
    }
    Err(Error::NotYet {
        reason: format!("{kind} {name} is gone or being deleted; it adopts nothing"),
        after: std::time::Duration::from_secs(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn owner(deleting: bool) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "r", "uid": "u1", "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z")},
            "spec": {"selector": {"matchLabels": {"app": "web"}}},
        }))
        .unwrap()
    }

    fn pod(app: &str, controller: Option<&str>, deleting: bool) -> Pod {
        serde_json::from_value(json!({"metadata": {
            "name": "p", "labels": {"app": app},
            "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z"),
            "ownerReferences": controller.map(|uid| vec![json!({
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid, "controller": true
            })]),
        }}))
        .unwrap()
    }

    #[test]
    fn claim_follows_owner_selector_and_deletion() {
        let cases = [
            ("web", Some("u1"), false, false, Claim::Keep),
            ("web", Some("u1"), true, false, Claim::Keep),
            ("other", Some("u1"), false, false, Claim::Release),
            ("other", Some("u1"), false, true, Claim::Ignore),
            ("web", Some("u2"), false, false, Claim::Ignore),
            ("web", None, false, false, Claim::Adopt),
            ("web", None, true, false, Claim::Ignore),
            ("web", None, false, true, Claim::Ignore),
            ("other", None, false, false, Claim::Ignore),
        ];
        for (app, controller, pod_deleting, owner_deleting, expected) in cases {
            let owner = owner(owner_deleting);
            let selector = selector(&owner, &owner.spec.selector).unwrap();
            let got = claim(&owner, &selector, &pod(app, controller, pod_deleting));
            assert_eq!(got, expected, "{app} {controller:?} {pod_deleting} {owner_deleting}");
        }
    }
}
