//! Waits for what must become true, looking at every state on the way: a condition that asserts sees what lasts a moment.
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
        let list = api.list(&ListParams::default()).await.unwrap();
        last = list.items;
        let mut version = list.metadata.resource_version.unwrap();
        while !holds(&last) {
            let changes = api.watch(&WatchParams::default().disable_bookmarks(), &version).await.unwrap();
            let mut changes = std::pin::pin!(changes);
            while let Some(change) = changes.next().await {
                let (object, there) = match change {
                    Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => (object, true),
                    Ok(WatchEvent::Deleted(object)) => (object, false),
                    Ok(WatchEvent::Bookmark(_)) => continue,
                    Ok(WatchEvent::Error(error)) => panic!("{what}: the watch failed: {error:?}"),
                    // The server was stopped; the watch goes on where it was.
                    Err(_) => break,
                };
                version = object.meta().resource_version.clone().unwrap();
                last.retain(|known| known.meta().uid != object.meta().uid);
                last.extend(there.then_some(object));
                if holds(&last) {
                    return;
                }
            }
        }
    })
    .await;
    match found {
        Ok(()) => last,
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
