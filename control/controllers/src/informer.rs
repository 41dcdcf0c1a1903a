//! Keeps a [`Cache`] in step with the API and tells the controllers what changed.
//!
//! In: list and watch of one kind. Out: an up-to-date cache; calls to the registered observers, in event order, each
//! after the cache shows the change.

use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Change, IndexFn};

type Observer<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// One watch, its cache and who wants to know.
pub(crate) struct Informer<K: 'static> {
    api: Api<K>,
    config: watcher::Config,
    cache: Arc<Cache<K>>,
    observers: Vec<Observer<K>>,
    synced: watch::Sender<bool>,
}

impl<K> Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    pub(crate) fn new(api: Api<K>) -> Self {
        Self::build(api, watcher::Config::default(), None)
    }

    pub(crate) fn with_index(api: Api<K>, index: IndexFn<K>) -> Self {
        Self::build(api, watcher::Config::default(), Some(index))
    }

    pub(crate) fn with_fields(api: Api<K>, fields: &str) -> Self {
        Self::build(api, watcher::Config::default().fields(fields), None)
    }

    fn build(api: Api<K>, config: watcher::Config, index: Option<IndexFn<K>>) -> Self {
        let (synced, _) = watch::channel(false);
        Self { api, config, cache: Arc::new(Cache::new(index)), observers: Vec::new(), synced }
    }

    pub(crate) fn cache(&self) -> Arc<Cache<K>> {
        self.cache.clone()
    }

    /// Registers an observer. It runs on the watch's own task: it may add keys to queues, nothing slower.
    pub(crate) fn on_change(&mut self, observer: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.observers.push(Box::new(observer));
    }

    /// Becomes true when the first list is complete.
    pub(crate) fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Follows the API until `shutdown`; failures are retried with backoff for as long as it takes.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let kind = K::kind(&());
        let stream = watcher(self.api, self.config).default_backoff();
        let mut stream = std::pin::pin!(stream.take_until(shutdown.cancelled_owned()));
        while let Some(event) = stream.next().await {
            let event = match event {
                Ok(event) => event.modify(|object| object.managed_fields_mut().clear()),
                Err(error) => {
                    tracing::warn!(%kind, %error, "watch failed, trying again");
                    continue;
                }
            };
            let listed = matches!(event, watcher::Event::InitDone);
            for change in self.cache.apply(event) {
                for observer in &self.observers {
                    observer(&change);
                }
            }
            if listed && !self.synced.send_replace(true) {
                tracing::debug!(%kind, "cache is complete");
            }
        }
    }
}
