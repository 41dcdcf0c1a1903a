//! Keeps the number of pods a ReplicaSet or a ReplicationController asks for.
//!
//! In: ReplicaSets, ReplicationControllers, Pods. Out: pods created, deleted, adopted, released; status; Events.

mod plan;
pub(crate) mod rank;
mod replicated;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use xebec_api::wellknown::reasons::workload;

use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::error::Error;
use crate::key::ObjectKey;
use crate::owner;
use crate::owner::claims;
use crate::patch::{self, Half};
use crate::pod;
use crate::pod_control::PodControl;
use crate::pod_owner;
use crate::pod_template::pod_from;
use crate::replicaset::plan::{Failure, Scale};
use crate::replicaset::replicated::Replicated;

/// How soon to look again while the cache is behind our own writes; the watch normally comes first.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The controller of one such kind. Its keys are objects of that kind.
pub(crate) struct ReplicaSetController<K> {
    context: Context,
    queue: ControllerQueue,
    pods: PodControl,
    kind: PhantomData<fn() -> K>,
}

impl<K: Replicated> ReplicaSetController<K> {
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> Self {
        let queue = context.queue_of(K::CONTROLLER);
        let pods = PodControl::new(context, K::CONTROLLER);
        K::informer(informers).on_change({
            let (queue, expectations) = (queue.clone(), pods.expectations.clone());
            move |change| {
                if let Some(set) = change.object() {
                    let key = ObjectKey::of(set.as_ref());
                    if change.new.is_none() {
                        expectations.forget(&key);
                    }
                    queue.add(key);
                }
            }
        });
        informers.pods.on_change({
            let (queue, sets) = (queue.clone(), K::cache(&context.caches).clone());
            move |change| {
                pod_owner::enqueue_owners::<K>(&queue, change);
                let selector = |set: &K| owner::selector(set, &set.as_replica_set().spec.selector);
                pod_owner::enqueue_adopters(&queue, &sets, selector, change);
            }
        });
        Self { context: context.clone(), queue, pods, kind: PhantomData }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let caches = &self.context.caches;
        let Some(object) = K::cache(caches).get(key) else {
            self.pods.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        let set = object.as_replica_set();
        let caught_up = self.pods.expectations.satisfied(key, &caches.pods);
        let selector = owner::selector(object.as_ref(), &set.spec.selector)?;
        let mut candidates = caches.pods.controlled_by(set.metadata.uid.as_deref().unwrap_or_default());
        candidates.extend(caches.pods.uncontrolled_in(&key.namespace));
        let claims = claims(object.as_ref(), &selector, candidates, pod::is_active);
        let owned = self.pods.claim(key, object.as_ref(), claims).await?;

        let mut failed = None;
        if caught_up && set.metadata.deletion_timestamp.is_none() {
            let step = plan::scale(&set, &owned, &self.related(&object, &owned), Timestamp::now());
            failed = self.apply(key, &object, step).await.err();
        }
        let failure = failed.as_ref().map(|(failure, _)| failure);
        let now = Timestamp::now();
        let desired = object.with_status(plan::status(&set, &owned, failure, now));
        match patch::update(&self.context.api(&key.namespace), Half::Status, object.as_ref(), &desired).await
        {
            Err(error) if error.is_not_found() => return Ok(Outcome::Done),
            result => drop(result?),
        }
        if let Some((_, error)) = failed {
            return Err(error);
        }
        let available =
            plan::next_available(&set, &owned, now).and_then(|left| Duration::try_from(left).ok());
        let catch_up = (!caught_up).then_some(CATCH_UP);
        Ok(Outcome::after(available.into_iter().chain(catch_up).min()))
    }

    /// Pods of all sets that share this one's owner; its own pods if it has none.
    fn related(&self, set: &K, owned: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let caches = &self.context.caches;
        let Some(controller) = owner::controller_of(set) else {
            return owned.to_vec();
        };
        let sets = K::cache(caches).controlled_by(&controller.uid);
        let uids = sets.iter().filter_map(|set| set.meta().uid.as_deref());
        uids.flat_map(|uid| caches.pods.controlled_by(uid)).collect()
    }

    async fn apply(&self, key: &ObjectKey, set: &K, step: Scale) -> Result<(), (Failure, Error)> {
        let (reason, result) = match step {
            Scale::Enough => return Ok(()),
            Scale::Create(count) => {
                let reference = owner::controller_reference(set);
                let template = set.as_replica_set().spec.template.clone();
                let pod = template.map(|template| pod_from(&template, &reference));
                let pods: Vec<Pod> = pod.into_iter().cycle().take(count).collect();
                (workload::FAILED_CREATE, self.pods.create(key, set, &pods).await)
            }
            Scale::Delete(pods) => (workload::FAILED_DELETE, self.pods.delete(key, set, &pods).await),
        };
        result.map_err(|error| (Failure { reason, message: error.to_string() }, error))
    }
}

impl<K: Replicated> Controller for ReplicaSetController<K> {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.sync(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(K::cache(&self.context.caches));
    }
}
