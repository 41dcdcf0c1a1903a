//! Waits for what must become true, by asking for it again on every change of the objects concerned.
//!
//! In: an API and a condition. Out: the objects once it holds, or a panic that says what was seen last.

use std::fmt::Debug;

use futures::StreamExt;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::control_plane::PATIENCE;

/// The objects of `api` once `holds` says so.
pub(crate) async fn until<K>(what: &str, api: &Api<K>, holds: impl Fn(&[K]) -> bool) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut last = Vec::new();
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            let list = api.list(&ListParams::default()).await.unwrap();
            if holds(&list.items) {
                return list.items;
            }
            last = list.items;
            let version = list.metadata.resource_version.unwrap();
            let changes = api.watch(&WatchParams::default().disable_bookmarks(), &version).await.unwrap();
            let mut changes = std::pin::pin!(changes);
            // Any change is a reason to look again.
            while let Some(Ok(change)) = changes.next().await {
                if !matches!(change, WatchEvent::Bookmark(_)) {
                    break;
                }
            }
        }
    })
    .await;
    match found {
        Ok(objects) => objects,
        Err(_) => panic!("{what}: not so after {PATIENCE:?}; last seen {last:#?}"),
    }
}

/// The object once it is there and `holds`.
pub(crate) async fn until_object<K>(what: &str, api: &Api<K>, name: &str, holds: impl Fn(&K) -> bool) -> K
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let named = |object: &&K| object.meta().name.as_deref() == Some(name);
    let objects = until(what, api, |objects| objects.iter().find(named).is_some_and(&holds)).await;
    objects.into_iter().find(|object| named(&object)).unwrap()
}

/// Returns once no object of that name is there.
pub(crate) async fn until_gone<K>(api: &Api<K>, name: &str)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let what = format!("{} {name} gone", K::kind(&()));
    until(&what, api, |objects| objects.iter().all(|o| o.meta().name.as_deref() != Some(name))).await;
}
