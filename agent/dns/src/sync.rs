//! Keeping the zone equal to the API.
//!
//! In: watches of Services and EndpointSlices. Out: changes of the zone. A new list replaces what is no longer there; a
//! broken watch changes nothing.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::zone::Zone;

type Key = (String, String);

const SERVICES: u8 = 1;
const SLICES: u8 = 2;

/// Whether both lists were complete once.
#[derive(Clone, Default)]
pub(crate) struct Synced(Arc<AtomicU8>);

impl Synced {
    pub(crate) fn is_complete(&self) -> bool {
        self.0.load(Ordering::Acquire) == SERVICES | SLICES
    }

    #[cfg(test)]
    pub(crate) fn complete() -> Self {
        Self(Arc::new(AtomicU8::new(SERVICES | SLICES)))
    }

    fn mark(&self, part: u8) {
        self.0.fetch_or(part, Ordering::Release);
    }
}

pub(crate) async fn services(
    client: Client,
    zone: Arc<RwLock<Zone>>,
    synced: Synced,
    shutdown: CancellationToken,
) {
    follow::<Service>(client, shutdown, |change| {
        let mut zone = zone.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Put(service) => zone.put_service(&service),
            Change::Remove(key) => zone.remove_service(&key),
            Change::Listed => synced.mark(SERVICES),
        }
    })
    .await;
}

pub(crate) async fn slices(
    client: Client,
    zone: Arc<RwLock<Zone>>,
    synced: Synced,
    shutdown: CancellationToken,
) {
    follow::<EndpointSlice>(client, shutdown, |change| {
        let mut zone = zone.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Put(slice) => zone.put_slice(&slice),
            Change::Remove(key) => zone.remove_slice(&key),
            Change::Listed => synced.mark(SLICES),
        }
    })
    .await;
}

enum Change<K> {
    Put(Box<K>),
    Remove(Key),
    /// The list is complete.
    Listed,
}

async fn follow<K>(client: Client, shutdown: CancellationToken, apply: impl Fn(Change<K>))
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
    let stream = watcher(Api::<K>::all(client), watcher::Config::default()).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut known = Known::default();
    while let Some(event) =
        tokio::select! { event = stream.next() => event, () = shutdown.cancelled() => None }
    {
        match event {
            Ok(watcher::Event::Init) => known.begin(),
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                known.seen(key(&object));
                apply(Change::Put(Box::new(object)));
            }
            Ok(watcher::Event::Delete(object)) => {
                let key = key(&object);
                known.gone(&key);
                apply(Change::Remove(key));
            }
            Ok(watcher::Event::InitDone) => {
                for key in known.finish() {
                    apply(Change::Remove(key));
                }
                apply(Change::Listed);
            }
            Err(error) => tracing::warn!("watching {}: {error}", K::kind(&())),
        }
    }
}

/// Which objects exist, so that a new list shows which do not any more.
struct Known<K> {
    current: HashSet<K>,
    /// Those of before a list that is under way, less what it has shown.
    stale: HashSet<K>,
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self { current: HashSet::new(), stale: HashSet::new() }
    }
}

impl<K: Hash + Eq> Known<K> {
    fn begin(&mut self) {
        // A list that broke off leaves its own rest stale.
        let seen = std::mem::take(&mut self.current);
        self.stale.extend(seen);
    }

    fn seen(&mut self, key: K) {
        self.stale.remove(&key);
        self.current.insert(key);
    }

    fn gone(&mut self, key: &K) {
        self.current.remove(key);
    }

    fn finish(&mut self) -> HashSet<K> {
        std::mem::take(&mut self.stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_list_shows_what_is_gone() {
        let mut known = Known::default();
        known.begin();
        known.seen(1);
        known.seen(2);
        assert!(known.finish().is_empty());
        known.begin();
        known.seen(2);
        known.begin();
        known.seen(3);
        assert_eq!(known.finish(), HashSet::from([1, 2]));
    }
}
