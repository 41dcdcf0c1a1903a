//! Runs one pod of a DaemonSet on every node that it is meant for.
//!
//! In: DaemonSets, Nodes, Pods, ControllerRevisions. Out: pods pinned to nodes, revisions, status, Events.

mod place;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::cache::Change;
use crate::context::{Caches, Context, Controller, ControllerQueue, Informers, Outcome};
use crate::daemonset::place::{place, pod_for};
use crate::daemonset::plan::{Sites, Steps};
use crate::error::Error;
use crate::history;
use crate::key::{ControllerName, ObjectKey};
use crate::owner;
use crate::patch::{self, Half};
use crate::pod;
use crate::pod_control::{PodControl, claims};
use crate::recorder::Severity;
use crate::revisions::Revisions;

/// How soon to look again while the cache is behind our own writes; the watch normally comes first.
const CATCH_UP: Duration = Duration::from_secs(1);
/// How long a pod that ended is left on its node before another is tried there.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// The controller. Its keys are DaemonSets.
pub(crate) struct DaemonSetController {
    context: Context,
    queue: ControllerQueue,
    pods: PodControl,
    revisions: Revisions,
}

impl DaemonSetController {
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> Self {
        let queue = context.queue_of(ControllerName::DaemonSet);
        let pods = PodControl::new(context, ControllerName::DaemonSet);
        let revisions = Revisions::new(context);
        informers.daemon_sets.on_change({
            let queue = queue.clone();
            let (pods, revisions) = (pods.expectations.clone(), revisions.expectations.clone());
            move |change| {
                if let Some(set) = change.object() {
                    let key = ObjectKey::of(set.as_ref());
                    if change.new.is_none() {
                        pods.forget(&key);
                        revisions.forget(&key);
                    }
                    queue.add(key);
                }
            }
        });
        informers.pods.on_change({
            let (queue, caches) = (queue.clone(), context.caches.clone());
            move |change| enqueue_for_pod(&queue, &caches, change)
        });
        informers.nodes.on_change({
            let (queue, caches) = (queue.clone(), context.caches.clone());
            move |change| enqueue_for_node(&queue, &caches, change)
        });
        informers.controller_revisions.on_change({
            let queue = queue.clone();
            move |change| {
                for revision in change.sides() {
                    if let Some(owner) = owner::controller_of_kind::<DaemonSet, _>(revision.as_ref()) {
                        let namespace = revision.metadata.namespace.clone().unwrap_or_default();
                        queue.add(ObjectKey::new(namespace, &owner.name));
                    }
                }
            }
        });
        Self { context: context.clone(), queue, pods, revisions }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let caches = &self.context.caches;
        let Some(set) = caches.daemon_sets.get(key) else {
            return Ok(Outcome::Done);
        };
        let selector = owner::selector(set.as_ref(), &set.spec.selector)?;
        if selector.is_everything() {
            let message =
                "This daemon set is selecting all pods. A non-empty selector is required.".to_owned();
            self.event(&set, Severity::Warning, "SelectingAll", message);
            return Ok(Outcome::Done);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let mut candidates = caches.pods.controlled_by(set.metadata.uid.as_deref().unwrap_or_default());
        candidates.extend(caches.pods.uncontrolled_in(&key.namespace));
        let owned = claims(set.as_ref(), &selector, candidates, |_| true);
        let caught_up = self.pods.expectations.satisfied(key, &caches.pods)
            && self.revisions.expectations.satisfied(key, &caches.controller_revisions);
        let owned = self.pods.claim(key, set.as_ref(), owned).await?;
        let sites = plan::sites(&set, &caches.nodes.all(), &owned);

        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let known = self.revisions.of(key, set.as_ref(), &selector);
        let history = history::history(set.as_ref(), &set.spec.template, collisions, &known);
        let hash = history::hash_of(&history.current).to_owned();
        if caught_up && !self.revisions.write(key, &history).await? {
            return self.count_collision(key, &set).await;
        }
        let now = Timestamp::now();
        let worked = if caught_up { self.work(key, &set, &sites, &hash, now).await } else { Ok(None) };
        self.write_status(key, &set, &sites, &hash, now).await?;
        let again = worked?;
        if caught_up {
            let live = plan::live_hashes(&sites, &hash);
            let surplus = history::surplus(&known, &live, set.spec.revision_history_limit);
            self.revisions.remove(key, &surplus).await?;
        }
        let available =
            plan::next_available(&set, &sites, now).and_then(|left| Duration::try_from(left).ok());
        let catch_up = (!caught_up).then_some(CATCH_UP);
        Ok(Outcome::after(available.into_iter().chain(catch_up).chain(again).min()))
    }

    /// One step; when to look again at pods that ended.
    async fn work(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        sites: &Sites,
        hash: &str,
        now: Timestamp,
    ) -> Result<Option<Duration>, Error> {
        let mut steps = plan::manage(set, sites, hash, now);
        let failed = std::mem::take(&mut steps.failed);
        let (due, waiting): (Vec<_>, Vec<_>) = failed.into_iter().partition(|pod| is_due(pod, now));
        for pod in &due {
            let (name, node) = (pod.metadata.name.as_deref(), pod::bound_to(pod));
            let (name, node) = (name.unwrap_or_default(), node.unwrap_or_default());
            let message = format!(
                "Found failed daemon pod {}/{name} on node {node}, will try to kill it",
                key.namespace
            );
            self.event(set, Severity::Warning, "FailedDaemonPod", message);
        }
        steps.delete.extend(due);
        let idle = steps.create_on.is_empty() && steps.delete.is_empty();
        self.apply(key, set, &steps, hash).await?;
        // Nodes come first: a rollout goes on when each has what it should.
        if idle {
            self.apply(key, set, &plan::roll(set, sites, hash, now), hash).await?;
        }
        Ok((!waiting.is_empty()).then_some(FAILED_PAUSE))
    }

    async fn apply(&self, key: &ObjectKey, set: &DaemonSet, steps: &Steps, hash: &str) -> Result<(), Error> {
        let pods: Vec<Pod> = steps.create_on.iter().map(|node| pod_for(set, node, hash)).collect();
        let created = self.pods.create(key, set, &pods).await;
        let deleted = self.pods.delete(key, set, &steps.delete).await;
        created.and(deleted)
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &Arc<DaemonSet>,
        sites: &Sites,
        hash: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut desired = (**set).clone();
        desired.status = Some(plan::status(set, sites, hash, now));
        match patch::update(&self.context.api(&key.namespace), Half::Status, set.as_ref(), &desired).await {
            Err(error) if error.is_not_found() => Ok(()),
            written => written.map(drop),
        }
    }

    /// The revision's name is another's: the next hash is made with a higher count.
    async fn count_collision(&self, key: &ObjectKey, set: &Arc<DaemonSet>) -> Result<Outcome, Error> {
        let mut desired = (**set).clone();
        let status = desired.status.get_or_insert_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
        patch::update(&self.context.api(&key.namespace), Half::Status, set.as_ref(), &desired).await?;
        Ok(Outcome::Done)
    }

    fn event(&self, set: &DaemonSet, severity: Severity, reason: &'static str, message: String) {
        self.context.record(ControllerName::DaemonSet, set, severity, reason, message);
    }
}

impl Controller for DaemonSetController {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.sync(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.daemon_sets);
    }
}

/// A pod that ended long enough ago to be replaced: a node that refuses its pods must not be asked without end.
fn is_due(pod: &Pod, now: Timestamp) -> bool {
    let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0);
    Duration::try_from(now.duration_since(created)).is_ok_and(|age| age >= FAILED_PAUSE)
}

/// Asks for a run of the DaemonSet that owns or owned the pod, or of all that might adopt it.
fn enqueue_for_pod(queue: &ControllerQueue, caches: &Caches, change: &Change<Pod>) {
    for pod in change.sides() {
        if let Some(reference) = owner::controller_of_kind::<DaemonSet, Pod>(pod.as_ref()) {
            queue.add(ObjectKey::new(pod.metadata.namespace.clone().unwrap_or_default(), &reference.name));
        }
    }
    let Some(pod) = change.new.as_ref().filter(|pod| owner::controller_of(pod.as_ref()).is_none()) else {
        return;
    };
    for set in caches.daemon_sets.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
        let selector = owner::selector(set.as_ref(), &set.spec.selector);
        if selector.is_ok_and(|selector| owner::matches(&selector, pod.as_ref())) {
            queue.add(ObjectKey::of(set.as_ref()));
        }
    }
}

/// Asks for a run of every DaemonSet that thinks otherwise of the node now.
fn enqueue_for_node(queue: &ControllerQueue, caches: &Caches, change: &Change<Node>) {
    for set in caches.daemon_sets.all() {
        let of = |node: &Option<Arc<Node>>| node.as_ref().map(|node| place(&set, node));
        if of(&change.old) != of(&change.new) {
            queue.add(ObjectKey::of(set.as_ref()));
        }
    }
}
