//! Keeps the number of pods a ReplicaSet asks for.
//!
//! In: ReplicaSets, Pods. Out: pods created, deleted, adopted, released; status; Events.

mod plan;
mod rank;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams, Preconditions};
use xebec_api::wellknown::reasons::workload;

use crate::cache::{Cache, Change, revision_of};
use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::error::{Error, is_conflict, is_not_found, namespace_is_terminating};
use crate::expectations::Expectations;
use crate::key::{ControllerName, ObjectKey};
use crate::owner;
use crate::patch::{self, Half};
use crate::pod_template::pod_from;
use crate::recorder::Severity;
use crate::replicaset::plan::{Claims, Failure, Scale};

/// How soon to look again while the cache is behind our own writes; the watch normally comes first.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The controller. Its keys are ReplicaSets.
pub(crate) struct ReplicaSetController {
    context: Context,
    queue: ControllerQueue,
    expectations: Arc<Expectations>,
}

impl ReplicaSetController {
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> Self {
        let queue = context.queue_of(ControllerName::ReplicaSet);
        let expectations = Arc::new(Expectations::default());
        informers.replica_sets.on_change({
            let (queue, expectations) = (queue.clone(), expectations.clone());
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
            let (queue, sets) = (queue.clone(), context.caches.replica_sets.clone());
            move |change| enqueue_for_pod(&queue, &sets, change)
        });
        Self { context: context.clone(), queue, expectations }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let caches = &self.context.caches;
        let Some(set) = caches.replica_sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        let caught_up = self.expectations.satisfied(key, &caches.pods);
        let selector = owner::selector(set.as_ref(), &set.spec.selector)?;
        let mut candidates = caches.pods.controlled_by(set.metadata.uid.as_deref().unwrap_or_default());
        candidates.extend(caches.pods.uncontrolled_in(&key.namespace));
        let owned = self.claim(key, &set, plan::claims(&set, &selector, candidates)).await?;

        let mut failed = None;
        if caught_up && set.metadata.deletion_timestamp.is_none() {
            let step = plan::scale(&set, &owned, &self.related(&set, &owned), Timestamp::now());
            failed = self.apply(key, &set, step).await.err();
        }
        let failure = failed.as_ref().map(|(failure, _)| failure);
        let now = Timestamp::now();
        let mut desired = (*set).clone();
        desired.status = Some(plan::status(&set, &owned, failure, now));
        match patch::update(&self.context.api(&key.namespace), Half::Status, set.as_ref(), &desired).await {
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

    /// Adopts and releases; the pods owned afterwards.
    async fn claim(&self, key: &ObjectKey, set: &ReplicaSet, claims: Claims) -> Result<Vec<Arc<Pod>>, Error> {
        let Claims { mut owned, adopt, release } = claims;
        if adopt.is_empty() && release.is_empty() {
            return Ok(owned);
        }
        let reference = owner::controller_reference(set);
        let api = self.context.api::<Pod>(&key.namespace);
        if !adopt.is_empty() {
            owner::may_adopt(&self.context.api(&key.namespace), set).await?;
        }
        for pod in adopt {
            if let Some(adopted) = owner::adopt(&api, &reference, pod.as_ref()).await? {
                self.expectations.wrote(key, revision_of(&adopted));
                owned.push(Arc::new(adopted));
            }
        }
        for pod in release {
            if let Some(released) = owner::release(&api, &reference, pod.as_ref()).await? {
                self.expectations.wrote(key, revision_of(&released));
            }
        }
        Ok(owned)
    }

    /// Pods of all ReplicaSets that share this one's owner; its own pods if it has none.
    fn related(&self, set: &ReplicaSet, owned: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let caches = &self.context.caches;
        let Some(controller) = owner::controller_of(set) else {
            return owned.to_vec();
        };
        let sets = caches.replica_sets.controlled_by(&controller.uid);
        let uids = sets.iter().filter_map(|set| set.metadata.uid.as_deref());
        uids.flat_map(|uid| caches.pods.controlled_by(uid)).collect()
    }

    async fn apply(&self, key: &ObjectKey, set: &ReplicaSet, step: Scale) -> Result<(), (Failure, Error)> {
        let (reason, result) = match step {
            Scale::Enough => return Ok(()),
            Scale::Create(count) => (workload::FAILED_CREATE, self.create(key, set, count).await),
            Scale::Delete(pods) => (workload::FAILED_DELETE, self.delete(key, set, pods).await),
        };
        result.map_err(|error| (Failure { reason, message: error.to_string() }, error))
    }

    /// Creates pods in batches of 1, 2, 4, …: when the first is refused (a quota, say), the rest is not tried.
    async fn create(&self, key: &ObjectKey, set: &ReplicaSet, count: usize) -> Result<(), Error> {
        let reference = owner::controller_reference(set);
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let size = batch.min(left);
            let results = join_all((0..size).map(|_| self.create_one(key, set, &reference))).await;
            let errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
            if let Some(error) = Error::several(errors) {
                return Err(error);
            }
            left -= size;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        owner: &OwnerReference,
    ) -> Result<(), Error> {
        let Some(template) = &set.spec.template else {
            return Ok(());
        };
        let pod = pod_from(template, owner);
        match self.context.api::<Pod>(&key.namespace).create(&PostParams::default(), &pod).await {
            Ok(created) => {
                self.expectations.wrote(key, revision_of(&created));
                let name = created.metadata.name.unwrap_or_default();
                self.event(
                    set,
                    Severity::Normal,
                    workload::SUCCESSFUL_CREATE,
                    format!("Created pod: {name}"),
                );
                Ok(())
            }
            Err(error) if namespace_is_terminating(&error) => Ok(()),
            Err(error) => {
                self.event(
                    set,
                    Severity::Warning,
                    workload::FAILED_CREATE,
                    format!("Error creating: {error}"),
                );
                Err(Error::api(format!("create a pod of ReplicaSet {key}"), error))
            }
        }
    }

    async fn delete(&self, key: &ObjectKey, set: &ReplicaSet, pods: Vec<Arc<Pod>>) -> Result<(), Error> {
        let results = join_all(pods.iter().map(|pod| self.delete_one(key, set, pod))).await;
        Error::several(results.into_iter().filter_map(Result::err).collect()).map_or(Ok(()), Err)
    }

    async fn delete_one(&self, key: &ObjectKey, set: &ReplicaSet, pod: &Pod) -> Result<(), Error> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams::default()
            .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        match self.context.api::<Pod>(&key.namespace).delete(name, &params).await {
            Ok(_) => {
                self.expectations.deleted(key, pod);
                self.event(
                    set,
                    Severity::Normal,
                    workload::SUCCESSFUL_DELETE,
                    format!("Deleted pod: {name}"),
                );
                Ok(())
            }
            // Gone already, or another pod of that name: what was to be deleted is not there.
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) => {
                self.event(
                    set,
                    Severity::Warning,
                    workload::FAILED_DELETE,
                    format!("Error deleting: {error}"),
                );
                Err(Error::api(format!("delete pod {}/{name}", key.namespace), error))
            }
        }
    }

    fn event(&self, set: &ReplicaSet, severity: Severity, reason: &'static str, message: String) {
        self.context.record(ControllerName::ReplicaSet, set, severity, reason, message);
    }
}

impl Controller for ReplicaSetController {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.sync(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.replica_sets);
    }
}

/// Asks for a run of the ReplicaSet that owns or owned the pod, or of all that might adopt it.
fn enqueue_for_pod(queue: &ControllerQueue, sets: &Cache<ReplicaSet>, change: &Change<Pod>) {
    for pod in change.sides() {
        if let Some(reference) = owner::controller_of_kind::<ReplicaSet, Pod>(pod.as_ref()) {
            queue.add(ObjectKey::new(pod.metadata.namespace.clone().unwrap_or_default(), &reference.name));
        }
    }
    let Some(pod) = change.new.as_ref().filter(|pod| owner::controller_of(pod.as_ref()).is_none()) else {
        return;
    };
    let news = change.old.as_ref().is_none_or(|old| {
        old.metadata.labels != pod.metadata.labels || owner::controller_of(old.as_ref()).is_some()
    });
    if !news {
        return;
    }
    for set in sets.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
        let selector = owner::selector(set.as_ref(), &set.spec.selector);
        if selector.is_ok_and(|selector| owner::matches(&selector, pod.as_ref())) {
            queue.add(ObjectKey::of(set.as_ref()));
        }
    }
}
