//! Follows the metadata of every object of every kind, known at build time or not.
//!
//! In: discovery, repeated; a metadata watch of each kind that has no informer of its own, the informers' changes for
//! the rest. Out: [`Sighting`]s to the registered observers, in the order of each kind's watch. Keeps no object.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::inventory::{Inventory, Kind};

/// How often the served kinds are looked up again: custom kinds come and go.
const REDISCOVER: Duration = Duration::from_secs(30);
/// How long the first lists may take before work begins without those that fail.
const FIRST_LISTS: Duration = Duration::from_secs(30);

/// Kinds an informer follows anyway.
const BRIDGED: [(&str, &str); 11] = [
    ("", "endpoints"),
    ("", "namespaces"),
    ("", "nodes"),
    ("", "pods"),
    ("", "services"),
    ("apps", "controllerrevisions"),
    ("apps", "daemonsets"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("discovery.k8s.io", "endpointslices"),
];
/// Nobody owns through these, they own nothing, and there are many.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

/// Something about one kind's objects.
#[derive(Debug)]
pub(crate) enum Sighting<'a> {
    /// A complete list of the kind follows.
    ListBegins(&'a Arc<Kind>),
    /// The object is as this says.
    Present(&'a Arc<Kind>, &'a ObjectMeta),
    /// The object is no more.
    Gone(&'a ObjectMeta),
    /// What the list did not name is gone.
    ListEnds(&'a Arc<Kind>),
    /// The kind is not served any more.
    KindGone(&'a Arc<Kind>),
    /// The served kinds were looked up.
    Discovered(&'a Arc<Inventory>),
    /// Every kind has been listed once.
    Synced,
}

pub(crate) type Observer = Box<dyn Fn(&Sighting<'_>) + Send + Sync>;

/// The watches.
pub(crate) struct MetadataWatches {
    client: Client,
    observers: Arc<Vec<Observer>>,
    informers: Vec<watch::Receiver<bool>>,
}

impl MetadataWatches {
    /// `informers` are those that feed the bridged kinds to the same observers.
    pub(crate) fn new(
        client: Client,
        observers: Vec<Observer>,
        informers: Vec<watch::Receiver<bool>>,
    ) -> Self {
        Self { client, observers: Arc::new(observers), informers }
    }

    /// Follows the API until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let work = self.follow();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    async fn follow(&mut self) {
        let mut watched: HashMap<String, (Arc<Kind>, AbortHandle)> = HashMap::new();
        let mut tasks = JoinSet::new();
        let mut synced = false;
        loop {
            match Inventory::discover(&self.client).await {
                Ok(inventory) => {
                    let inventory = Arc::new(inventory);
                    tell(&self.observers, &Sighting::Discovered(&inventory));
                    let lists = self.adjust(&inventory, &mut watched, &mut tasks);
                    if !synced {
                        self.wait_for_lists(lists).await;
                        tell(&self.observers, &Sighting::Synced);
                        synced = true;
                    }
                }
                Err(error) => tracing::warn!(%error, "kinds are not known, trying again"),
            }
            tokio::time::sleep(if synced { REDISCOVER } else { Duration::from_secs(1) }).await;
        }
    }

    /// Starts and ends watches. The receiver gets one message for each first list.
    fn adjust(
        &self,
        inventory: &Inventory,
        watched: &mut HashMap<String, (Arc<Kind>, AbortHandle)>,
        tasks: &mut JoinSet<()>,
    ) -> (usize, mpsc::Receiver<()>) {
        let wanted: HashMap<String, &Arc<Kind>> = inventory
            .preferred
            .iter()
            .filter(|kind| follows(kind))
            .map(|kind| (kind.title(), kind))
            .collect();
        watched.retain(|title, (kind, task)| {
            let stays = wanted.get(title).is_some_and(|wanted| ***wanted == **kind);
            if !stays {
                task.abort();
                tell(&self.observers, &Sighting::KindGone(kind));
            }
            stays
        });
        let (done, lists) = mpsc::channel(wanted.len().max(1));
        let mut started = 0;
        for (title, kind) in wanted {
            if watched.contains_key(&title) {
                continue;
            }
            let follow = follow_kind(self.client.clone(), kind.clone(), self.observers.clone(), done.clone());
            watched.insert(title, (kind.clone(), tasks.spawn(follow)));
            started += 1;
        }
        while tasks.try_join_next().is_some() {}
        (started, lists)
    }

    async fn wait_for_lists(&mut self, (mut left, mut lists): (usize, mpsc::Receiver<()>)) {
        let informers = &mut self.informers;
        let all = async {
            while left > 0 && lists.recv().await.is_some() {
                left -= 1;
            }
            for informer in informers {
                // An informer that ended means shutdown.
                let _ = informer.wait_for(|synced| *synced).await;
            }
        };
        if tokio::time::timeout(FIRST_LISTS, all).await.is_err() {
            tracing::warn!(
                missing = left,
                "some kinds cannot be listed; the others are collected without them"
            );
        }
    }
}

/// This kind is followed by a watch of this module.
fn follows(kind: &Kind) -> bool {
    let collectable = ["list", "watch", "delete"].iter().all(|verb| kind.can(verb));
    let listed = |list: &[(&str, &str)]| list.iter().any(|(group, plural)| kind.is(group, plural));
    collectable && !listed(&BRIDGED) && !listed(&IGNORED)
}

fn tell(observers: &[Observer], sighting: &Sighting<'_>) {
    for observer in observers {
        observer(sighting);
    }
}

async fn follow_kind(
    client: Client,
    kind: Arc<Kind>,
    observers: Arc<Vec<Observer>>,
    first_list: mpsc::Sender<()>,
) {
    let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client, &kind.resource);
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut first_list = Some(first_list);
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(kind = %kind.title(), %error, "metadata watch failed, trying again");
                continue;
            }
        };
        match &event {
            watcher::Event::Init => tell(&observers, &Sighting::ListBegins(&kind)),
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                tell(&observers, &Sighting::Present(&kind, &object.metadata));
            }
            watcher::Event::Delete(object) => tell(&observers, &Sighting::Gone(&object.metadata)),
            watcher::Event::InitDone => {
                tell(&observers, &Sighting::ListEnds(&kind));
                if let Some(first) = first_list.take() {
                    // Nobody waits for it any more when the first lists took too long.
                    let _ = first.try_send(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::fixtures::kind;

    #[test]
    fn kinds_with_an_informer_and_events_get_no_second_watch() {
        assert!(follows(&kind("v1", "ConfigMap", "configmaps", true)));
        assert!(follows(&kind("example.com/v1", "Pod", "pods", true)));
        assert!(!follows(&kind("v1", "Pod", "pods", true)));
        assert!(!follows(&kind("v1", "Event", "events", true)));
    }
}
