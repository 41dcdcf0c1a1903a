//! Runs the pods of a StatefulSet, each with a name and claims of its own.
//!
//! In: StatefulSets, Pods, ControllerRevisions. Out: pods, claims, revisions, status, Events.

mod identity;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use kube::api::PostParams;

use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::error::{Error, is_already_exists, namespace_is_terminating};
use crate::history::{self, History};
use crate::key::{ControllerName, ObjectKey};
use crate::owner;
use crate::owner::claims;
use crate::patch::{self, Half};
use crate::pod_control::PodControl;
use crate::pod_owner;
use crate::recorder::Severity;
use crate::revisions::Revisions;
use crate::statefulset::plan::{Pods, Step, Target};

/// How soon to look again while the cache is behind our own writes; the watch normally comes first.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The controller. Its keys are StatefulSets.
pub(crate) struct StatefulSetController {
    context: Context,
    queue: ControllerQueue,
    pods: PodControl,
    revisions: Revisions,
}

/// The two revisions with their templates.
struct Versions {
    target: Target,
    current: PodTemplateSpec,
}

impl StatefulSetController {
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> Self {
        let queue = context.queue_of(ControllerName::StatefulSet);
        let pods = PodControl::new(context, ControllerName::StatefulSet);
        let revisions = Revisions::new(context);
        informers.stateful_sets.on_change({
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
            let (queue, sets) = (queue.clone(), context.caches.stateful_sets.clone());
            move |change| {
                pod_owner::enqueue_owners::<StatefulSet>(&queue, change);
                let selector = |set: &StatefulSet| owner::selector(set, &set.spec.selector);
                pod_owner::enqueue_adopters(&queue, &sets, selector, change);
            }
        });
        Self { context: context.clone(), queue, pods, revisions }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let caches = &self.context.caches;
        let Some(set) = caches.stateful_sets.get(key) else {
            return Ok(Outcome::Done);
        };
        let selector = owner::selector(set.as_ref(), &set.spec.selector)?;
        if selector.is_everything() || set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let caught_up = self.pods.expectations.satisfied(key, &caches.pods)
            && self.revisions.expectations.satisfied(key, &caches.controller_revisions);
        if !caught_up {
            return Ok(Outcome::After(CATCH_UP));
        }
        let mut candidates = caches.pods.controlled_by(set.metadata.uid.as_deref().unwrap_or_default());
        candidates.extend(caches.pods.uncontrolled_in(&key.namespace));
        // Only pods named after the set can be its own.
        candidates.retain(|pod| {
            identity::ordinal_of(&set, pod).is_some() || owner::controller_of(pod.as_ref()).is_some()
        });
        let claims = claims(set.as_ref(), &selector, candidates, |_| true);
        let owned = self.pods.claim(key, set.as_ref(), claims).await?;

        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let known = self.revisions.claim(key, set.as_ref(), &selector).await?;
        let history = history::history(set.as_ref(), &set.spec.template, collisions, &known);
        if !self.revisions.write(key, &history).await? {
            let count = |set: &mut StatefulSet| {
                let count = &mut set.status.get_or_insert_default().collision_count;
                *count = Some(count.unwrap_or(0).saturating_add(1));
            };
            self.revisions.name_is_taken(key, &set, count).await?;
            return Ok(Outcome::Done);
        }
        let versions = versions(&set, &history, &known);
        let pods = plan::by_ordinal(&set, &owned);
        let now = Timestamp::now();
        let worked = self.work(key, &set, &pods, &versions, now).await;
        self.write_status(key, &set, &pods, &versions.target, now).await?;
        worked?;
        let live: BTreeSet<String> = pods
            .values()
            .map(|pod| plan::revision_of(pod).to_owned())
            .chain([versions.target.current, versions.target.update])
            .collect();
        let surplus = history::surplus(&known, &live, set.spec.revision_history_limit);
        self.revisions.remove(key, &surplus).await?;
        let available = plan::next_available(&set, &pods, now);
        Ok(Outcome::after(available.and_then(|left| Duration::try_from(left).ok())))
    }

    async fn work(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        pods: &Pods,
        versions: &Versions,
        now: Timestamp,
    ) -> Result<(), Error> {
        let target = &versions.target;
        let (mut create, mut delete): (Vec<Pod>, Vec<Arc<Pod>>) = (Vec::new(), Vec::new());
        for step in plan::steps(set, pods, target, now) {
            match step {
                Step::Delete(pod) => delete.push(pod),
                Step::Create { ordinal, update } => {
                    let (template, revision) = if update {
                        (&set.spec.template, &target.update)
                    } else {
                        (&versions.current, &target.current)
                    };
                    self.claim_volumes(key, set, ordinal).await?;
                    create.push(identity::pod(set, ordinal, template, revision));
                }
            }
        }
        let created = self.pods.create(key, set, &create).await;
        let deleted = self.pods.delete(key, set, &delete).await;
        created.and(deleted)
    }

    /// The claims come before the pod that names them.
    async fn claim_volumes(&self, key: &ObjectKey, set: &StatefulSet, ordinal: i32) -> Result<(), Error> {
        let api = self.context.api::<PersistentVolumeClaim>(&key.namespace);
        for claim in identity::claims(set, ordinal) {
            let name = claim.metadata.name.clone().unwrap_or_default();
            match api.create(&PostParams::default(), &claim).await {
                Ok(_) => {
                    let message = format!(
                        "create Claim {name} Pod {} in StatefulSet {} success",
                        identity::pod_name(set, ordinal),
                        key.name
                    );
                    let name = ControllerName::StatefulSet;
                    self.context.record(name, set, Severity::Normal, "SuccessfulCreate", message);
                }
                Err(error) if is_already_exists(&error) || namespace_is_terminating(&error) => {}
                Err(error) => {
                    return Err(Error::api(format!("create claim {}/{name}", key.namespace), error));
                }
            }
        }
        Ok(())
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &Arc<StatefulSet>,
        pods: &Pods,
        target: &Target,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut desired = (**set).clone();
        desired.status = Some(plan::status(set, pods, target, now));
        match patch::update(&self.context.api(&key.namespace), Half::Status, set.as_ref(), &desired).await {
            Err(error) if error.is_not_found() => Ok(()),
            written => written.map(drop),
        }
    }
}

impl Controller for StatefulSetController {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.sync(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.stateful_sets);
    }
}

/// The revision to reach is the template's; the one to come from is what the status says, as long as it is known.
fn versions(set: &StatefulSet, history: &History, known: &[Arc<ControllerRevision>]) -> Versions {
    let name = |revision: &ControllerRevision| revision.metadata.name.clone().unwrap_or_default();
    let update = name(&history.current);
    let stated = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
    let current = known.iter().find(|revision| Some(name(revision).as_str()) == stated);
    let held = current.and_then(|revision| Some((name(revision), history::template_of(revision)?)));
    let (current, template) = held.unwrap_or_else(|| (update.clone(), set.spec.template.clone()));
    Versions { target: Target { current, update }, current: template }
}
