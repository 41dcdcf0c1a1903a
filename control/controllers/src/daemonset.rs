//! Runs one pod of a DaemonSet on every node that it is meant for.
//!
//! In: DaemonSets, Nodes, Pods, ControllerRevisions. Out: pods pinned to nodes, revisions, status, Events.

mod backoff;
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
use tokio::time::Instant;

use crate::cache::Change;
use crate::context::{Caches, Context, Controller, ControllerQueue, Informers, Outcome};
use crate::daemonset::backoff::Backoff;
use crate::daemonset::place::{place, pod_for};
use crate::daemonset::plan::{Sites, Steps};
use crate::error::Error;
use crate::history;
use crate::key::{ControllerName, ObjectKey};
use crate::owner;
use crate::owner::claims;
use crate::patch::{self, Half};
use crate::pod;
use crate::pod_control::PodControl;
use crate::pod_owner;
use crate::recorder::Severity;
use crate::revisions::Revisions;

/// How soon to look again while the cache is behind our own writes; the watch normally comes first.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The controller. Its keys are DaemonSets.
pub(crate) struct DaemonSetController {
    context: Context,
    queue: ControllerQueue,
    pods: PodControl,
    revisions: Revisions,
    backoff: Backoff,
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
            let (queue, sets) = (queue.clone(), context.caches.daemon_sets.clone());
            move |change| {
                pod_owner::enqueue_owners::<DaemonSet>(&queue, change);
                let selector = |set: &DaemonSet| owner::selector(set, &set.spec.selector);
                pod_owner::enqueue_adopters(&queue, &sets, selector, change);
            }
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
        Self { context: context.clone(), queue, pods, revisions, backoff: Backoff::default() }
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
        let known = self.revisions.claim(key, set.as_ref(), &selector).await?;
        let history = history::history(set.as_ref(), &set.spec.template, collisions, &known);
        let hash = history::hash_of(&history.current).to_owned();
        if caught_up && !self.revisions.write(key, &history).await? {
            let count = |set: &mut DaemonSet| {
                let count = &mut set.status.get_or_insert_default().collision_count;
                *count = Some(count.unwrap_or(0).saturating_add(1));
            };
            self.revisions.name_is_taken(key, &set, count).await?;
            return Ok(Outcome::Done);
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
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let mut again: Option<Duration> = None;
        for pod in std::mem::take(&mut steps.failed) {
            let (name, node) = (pod.metadata.name.as_deref(), pod::bound_to(&pod));
            let (name, node) = (name.unwrap_or_default(), node.unwrap_or_default());
            let site = (uid.clone(), set.metadata.generation.unwrap_or(0), node.to_owned());
            if let Err(wait) = self.backoff.replace(site, Instant::now()) {
                again = Some(again.map_or(wait, |other| other.min(wait)));
                continue;
            }
            let message = format!(
                "Found failed daemon pod {}/{name} on node {node}, will try to kill it",
                key.namespace
            );
            self.event(set, Severity::Warning, "FailedDaemonPod", message);
            steps.delete.push(pod);
        }
        let idle = steps.create_on.is_empty() && steps.delete.is_empty();
        self.apply(key, set, &steps, hash).await?;
        // Nodes come first: a rollout goes on when each has what it should.
        if idle {
            self.apply(key, set, &plan::roll(set, sites, hash, now), hash).await?;
        }
        Ok(again)
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

/// Asks for a run of every DaemonSet that thinks otherwise of the node now.
fn enqueue_for_node(queue: &ControllerQueue, caches: &Caches, change: &Change<Node>) {
    for set in caches.daemon_sets.all() {
        let of = |node: &Option<Arc<Node>>| node.as_ref().map(|node| place(&set, node));
        if of(&change.old) != of(&change.new) {
            queue.add(ObjectKey::of(set.as_ref()));
        }
    }
}
