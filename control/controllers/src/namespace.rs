//! Empties namespaces that are being deleted, then lets them go.
//!
//! In: Namespaces; the served kinds; the content of the namespace. Out: deletions, status conditions that say what
//! remains, the finalizer taken off. The API refuses new content from the moment the namespace is marked, so what the
//! last look did not find cannot come.

mod conditions;
mod content;

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;
use xebec_api::wellknown::finalizers;

use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::error::Error;
use crate::inventory::Inventory;
use crate::key::{ControllerName, ObjectKey};
use crate::metadata_watch::{Observer, Sighting};
use crate::namespace::content::Sweep;
use crate::patch::{self, Half};

/// Content that stays is looked at again after a quarter of the time the deletion has taken, within these bounds.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);

/// The controller. Its keys are namespaces.
pub(crate) struct NamespaceController {
    context: Context,
    queue: ControllerQueue,
}

impl NamespaceController {
    /// The observer belongs on the metadata watches: it tells when something left a namespace.
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> (Self, Observer) {
        let queue = context.queue_of(ControllerName::Namespace);
        informers.namespaces.on_change({
            let queue = queue.clone();
            move |change| {
                if let Some(namespace) = change.new.as_ref().filter(|namespace| is_ours(namespace)) {
                    queue.add(ObjectKey::of(namespace.as_ref()));
                }
            }
        });
        let left = {
            let (queue, namespaces) = (queue.clone(), context.caches.namespaces.clone());
            move |namespace: &str| {
                let key = ObjectKey::cluster(namespace);
                if namespaces.get(&key).is_some_and(|namespace| is_ours(&namespace)) {
                    queue.add(key);
                }
            }
        };
        informers.pods.on_change({
            let left = left.clone();
            move |change| {
                if let (None, Some(pod)) = (&change.new, &change.old) {
                    left(pod.metadata.namespace.as_deref().unwrap_or_default());
                }
            }
        });
        let observer: Observer = Box::new(move |sighting| {
            if let Sighting::Gone(meta) = sighting
                && let Some(namespace) = &meta.namespace
            {
                left(namespace);
            }
        });
        (Self { context: context.clone(), queue }, observer)
    }

    async fn empty(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(namespace) = self.context.caches.namespaces.get(key).filter(|namespace| is_ours(namespace))
        else {
            return Ok(Outcome::Done);
        };
        let inventory = match Inventory::discover(&self.context.client).await {
            Ok(inventory) => inventory,
            Err(error) => {
                self.tell(&namespace, &Sweep::blind(error.to_string())).await?;
                return Err(error);
            }
        };
        let sweep = content::sweep(&self.context.client, &inventory, &key.name).await;
        if !sweep.is_clean() {
            self.tell(&namespace, &sweep).await?;
            return match sweep.errors.into_iter().next() {
                Some(error) => Err(error),
                None => Ok(Outcome::After(next_look(&namespace, Timestamp::now()))),
            };
        }
        self.finalize(&namespace).await
    }

    async fn tell(&self, namespace: &Namespace, sweep: &Sweep) -> Result<(), Error> {
        let mut desired = namespace.clone();
        let status = desired.status.get_or_insert_default();
        status.phase = Some("Terminating".to_owned());
        let known = status.conditions.take().unwrap_or_default();
        status.conditions = Some(conditions::update(known, sweep, Timestamp::now()));
        let api = Api::<Namespace>::all(self.context.client.clone());
        match patch::update(&api, Half::Status, namespace, &desired).await {
            Err(error) if error.is_not_found() => Ok(()),
            // The next run, on the newer namespace, says it again.
            Err(error) if error.is_conflict() => Ok(()),
            result => result.map(drop),
        }
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<Outcome, Error> {
        let mut released = namespace.clone();
        if let Some(held) = released.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            held.retain(|finalizer| finalizer != finalizers::NAMESPACE);
        }
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let api = Api::<Namespace>::all(self.context.client.clone());
        let params = PostParams::default();
        let released = api.replace_subresource::<Namespace>("finalize", name, &params, &released).await;
        match released.map_err(|error| Error::api(format!("finalize namespace {name}"), error)) {
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            result => result.map(|_| Outcome::Done),
        }
    }
}

impl Controller for NamespaceController {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.empty(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.namespaces);
    }
}

/// It is being deleted and waits for this controller.
fn is_ours(namespace: &Namespace) -> bool {
    let held = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
    namespace.metadata.deletion_timestamp.is_some() && held.into_iter().any(|f| f == finalizers::NAMESPACE)
}

/// When to look again at content that stays; most of it tells through its watch when it goes.
fn next_look(namespace: &Namespace, now: Timestamp) -> Duration {
    let since = namespace.metadata.deletion_timestamp.as_ref().map_or(now, |time| time.0);
    let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    (age / 4).clamp(SOONEST, LATEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn namespace(deleting: bool, finalizers: &[&str]) -> Namespace {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z")},
            "spec": {"finalizers": finalizers},
        }))
        .unwrap()
    }

    #[test]
    fn only_terminating_namespaces_with_the_finalizer_are_emptied() {
        assert!(is_ours(&namespace(true, &["kubernetes"])));
        assert!(!is_ours(&namespace(false, &["kubernetes"])));
        assert!(!is_ours(&namespace(true, &["example.com/mine"])));
    }

    #[test]
    fn looks_come_rarer_the_longer_content_stays() {
        let namespace = namespace(true, &["kubernetes"]);
        let after = |text: &str| next_look(&namespace, text.parse().unwrap()).as_secs();
        assert_eq!(after("2026-01-01T00:00:00Z"), 1);
        assert_eq!(after("2026-01-01T00:00:40Z"), 10);
        assert_eq!(after("2026-01-02T00:00:00Z"), 60);
        assert_eq!(after("2025-12-31T00:00:00Z"), 1, "a clock that went back");
    }
}
