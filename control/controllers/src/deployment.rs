//! Rolls Deployments out: a ReplicaSet for each pod template, sized so that the service goes on.
//!
//! In: Deployments, ReplicaSets, Pods (Recreate waits for the last old one). Out: ReplicaSets created, sized and
//! deleted; revision; status; Events.

mod conditions;
mod fenceposts;
mod plan;
mod progress;
mod revision;
mod rollout;
pub(crate) mod template;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use xebec_api::wellknown::conditions::{DEPLOYMENT_PROGRESSING, FALSE};

use crate::cache::{Cache, Change, revision_of};
use crate::context::{Caches, Context, Controller, ControllerQueue, Informers, Outcome};
use crate::deployment::conditions::condition;
use crate::deployment::plan::{Plan, plan};
use crate::deployment::template::same_template;
use crate::deployment::work::Piece;
use crate::error::{Error, is_already_exists, is_conflict, is_not_found, namespace_is_terminating};
use crate::expectations::Expectations;
use crate::key::{ControllerName, ObjectKey};
use crate::owner::{self, Claim};
use crate::patch::{self, Half};
use crate::pod;
use crate::recorder::Severity;

/// How soon to look again while the cache is behind our own writes; the watch normally comes first.
const CATCH_UP: Duration = Duration::from_secs(1);
const CREATE_ERROR: &str = "ReplicaSetCreateError";

/// The controller. Its keys are Deployments.
pub(crate) struct DeploymentController {
    context: Context,
    queue: ControllerQueue,
    expectations: Arc<Expectations>,
}

impl DeploymentController {
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> Self {
        let queue = context.queue_of(ControllerName::Deployment);
        let expectations = Arc::new(Expectations::default());
        informers.deployments.on_change({
            let (queue, expectations) = (queue.clone(), expectations.clone());
            move |change| {
                if let Some(deployment) = change.object() {
                    let key = ObjectKey::of(deployment.as_ref());
                    if change.new.is_none() {
                        expectations.forget(&key);
                    }
                    queue.add(key);
                }
            }
        });
        informers.replica_sets.on_change({
            let (queue, deployments) = (queue.clone(), context.caches.deployments.clone());
            move |change| enqueue_for_set(&queue, &deployments, change)
        });
        informers.pods.on_change({
            let (queue, caches) = (queue.clone(), context.caches.clone());
            move |change| enqueue_for_pod(&queue, &caches, change)
        });
        Self { context: context.clone(), queue, expectations }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let caches = &self.context.caches;
        let Some(deployment) = caches.deployments.get(key) else {
            self.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        if !self.expectations.satisfied(key, &caches.replica_sets) {
            return Ok(Outcome::After(CATCH_UP));
        }
        let selector = owner::selector(deployment.as_ref(), &deployment.spec.selector)?;
        if selector.is_everything() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.event(&deployment, Severity::Warning, "SelectingAll", message.to_owned());
            return Ok(Outcome::Done);
        }
        let sets = self.claim(key, &deployment, &selector).await?;
        let runs = |uid: &str| caches.pods.controlled_by(uid).iter().any(|pod| !pod::is_terminal(pod));
        let plan = plan(&deployment, sets, runs, Timestamp::now());
        let check_in = plan.check_in.and_then(|wait| Duration::try_from(wait).ok());
        self.apply(key, &deployment, plan).await?;
        Ok(Outcome::after(check_in))
    }

    /// The ReplicaSets this Deployment owns, after adopting and releasing.
    async fn claim(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        selector: &xebec_api::labels::Selector,
    ) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let caches = &self.context.caches;
        let api = self.context.api::<ReplicaSet>(&key.namespace);
        let reference = owner::controller_reference(deployment);
        let mut candidates = caches.replica_sets.controlled_by(&reference.uid);
        candidates.extend(caches.replica_sets.uncontrolled_in(&key.namespace));
        let mut owned = Vec::new();
        let mut checked = false;
        for set in candidates {
            match owner::claim(deployment, selector, set.as_ref()) {
                Claim::Keep => owned.push(set),
                Claim::Ignore => {}
                Claim::Adopt => {
                    if !checked {
                        owner::may_adopt(&self.context.api(&key.namespace), deployment).await?;
                        checked = true;
                    }
                    if let Some(adopted) = owner::adopt(&api, &reference, set.as_ref()).await? {
                        self.expectations.wrote(key, revision_of(&adopted));
                        owned.push(Arc::new(adopted));
                    }
                }
                Claim::Release => {
                    if let Some(released) = owner::release(&api, &reference, set.as_ref()).await? {
                        self.expectations.wrote(key, revision_of(&released));
                    }
                }
            }
        }
        Ok(owned)
    }

    async fn apply(&self, key: &ObjectKey, current: &Deployment, plan: Plan) -> Result<(), Error> {
        for piece in &plan.pieces {
            match self.write(key, current, piece).await? {
                Written::Done => {}
                Written::NamespaceGoes => return Ok(()),
            }
        }
        let api: Api<Deployment> = self.context.api(&key.namespace);
        let mut base = current.clone();
        match patch::update(&api, Half::Main, current, &plan.deployment).await {
            Ok(Some(updated)) => base = updated,
            Ok(None) => {}
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        }
        self.write_status(&api, &base, plan.deployment.status).await
    }

    async fn write_status(
        &self,
        api: &Api<Deployment>,
        base: &Deployment,
        status: Option<k8s_openapi::api::apps::v1::DeploymentStatus>,
    ) -> Result<(), Error> {
        let desired = Deployment { status, ..base.clone() };
        match patch::update(api, Half::Status, base, &desired).await {
            Err(error) if error.is_not_found() => Ok(()),
            result => result.map(drop),
        }
    }

    async fn write(&self, key: &ObjectKey, deployment: &Deployment, piece: &Piece) -> Result<Written, Error> {
        let api = self.context.api::<ReplicaSet>(&key.namespace);
        let Some(current) = &piece.current else {
            return self.create(key, &api, deployment, piece).await;
        };
        if piece.delete {
            let name = current.metadata.name.as_deref().unwrap_or_default();
            let params = DeleteParams::background().preconditions(Preconditions {
                uid: current.metadata.uid.clone(),
                resource_version: current.metadata.resource_version.clone(),
            });
            return match api.delete(name, &params).await {
                Ok(_) => {
                    self.expectations.deleted(key, current.as_ref());
                    Ok(Written::Done)
                }
                // Gone, or in use again: the next run sees.
                Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(Written::Done),
                Err(error) => Err(Error::api(format!("delete ReplicaSet {}/{name}", key.namespace), error)),
            };
        }
        if let Some(updated) = patch::update(&api, Half::Main, current.as_ref(), &piece.desired).await? {
            self.expectations.wrote(key, revision_of(&updated));
            self.tell(deployment, piece);
        }
        Ok(Written::Done)
    }

    async fn create(
        &self,
        key: &ObjectKey,
        api: &Api<ReplicaSet>,
        deployment: &Deployment,
        piece: &Piece,
    ) -> Result<Written, Error> {
        let name = piece.desired.metadata.name.as_deref().unwrap_or_default();
        let error = match api.create(&PostParams::default(), &piece.desired).await {
            Ok(created) => {
                self.expectations.wrote(key, revision_of(&created));
                self.tell(deployment, piece);
                return Ok(Written::Done);
            }
            Err(error) => error,
        };
        if namespace_is_terminating(&error) {
            return Ok(Written::NamespaceGoes);
        }
        if is_already_exists(&error) {
            return self.meet(key, api, deployment, name).await;
        }
        if progress::has_deadline(deployment) {
            let message = format!("Failed to create new replica set {name:?}: {error}");
            let failed = condition(DEPLOYMENT_PROGRESSING, FALSE, CREATE_ERROR, message, Timestamp::now());
            let mut status = deployment.status.clone().unwrap_or_default();
            conditions::set(status.conditions.get_or_insert_default(), failed);
            self.write_status(&self.context.api(&key.namespace), deployment, Some(status)).await?;
        }
        Err(Error::api(format!("create ReplicaSet {}/{name}", key.namespace), error))
    }

    /// A ReplicaSet of the chosen name exists: ours from an earlier run, or another template with the same hash.
    async fn meet(
        &self,
        key: &ObjectKey,
        api: &Api<ReplicaSet>,
        deployment: &Deployment,
        name: &str,
    ) -> Result<Written, Error> {
        let found = api.get(name).await.map_err(|e| Error::api(format!("get ReplicaSet {name}"), e))?;
        let ours =
            owner::controller_of(&found).is_some_and(|o| Some(&o.uid) == deployment.metadata.uid.as_ref());
        let same = found.spec.template.as_ref().is_some_and(|t| same_template(t, &deployment.spec.template));
        if !(ours && same) {
            let mut status = deployment.status.clone().unwrap_or_default();
            status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
            self.write_status(&self.context.api(&key.namespace), deployment, Some(status)).await?;
        } else {
            self.expectations.wrote(key, revision_of(&found));
        }
        // The plan rested on a name that was free: the next run rests on what is there.
        let reason = format!("a ReplicaSet named {name} exists already");
        Err(Error::NotYet { reason, after: Duration::from_millis(20) })
    }

    fn tell(&self, deployment: &Deployment, piece: &Piece) {
        for told in &piece.events {
            self.event(deployment, Severity::Normal, told.reason, told.message.clone());
        }
    }

    fn event(&self, deployment: &Deployment, severity: Severity, reason: &'static str, message: String) {
        self.context.record(ControllerName::Deployment, deployment, severity, reason, message);
    }
}

enum Written {
    Done,
    /// Nothing more is created in this namespace.
    NamespaceGoes,
}

impl Controller for DeploymentController {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.sync(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.deployments);
    }
}

/// Asks for a run of the Deployment that owns or owned the ReplicaSet, or of all that might adopt it.
fn enqueue_for_set(queue: &ControllerQueue, deployments: &Cache<Deployment>, change: &Change<ReplicaSet>) {
    for set in change.sides() {
        if let Some(reference) = owner::controller_of_kind::<Deployment, ReplicaSet>(set.as_ref()) {
            queue.add(ObjectKey::new(set.metadata.namespace.clone().unwrap_or_default(), &reference.name));
        }
    }
    let Some(set) = change.new.as_ref().filter(|set| owner::controller_of(set.as_ref()).is_none()) else {
        return;
    };
    let news = change.old.as_ref().is_none_or(|old| {
        old.metadata.labels != set.metadata.labels || owner::controller_of(old.as_ref()).is_some()
    });
    if !news {
        return;
    }
    for deployment in deployments.in_namespace(set.metadata.namespace.as_deref().unwrap_or_default()) {
        let selector = owner::selector(deployment.as_ref(), &deployment.spec.selector);
        if selector.is_ok_and(|selector| owner::matches(&selector, set.as_ref())) {
            queue.add(ObjectKey::of(deployment.as_ref()));
        }
    }
}

/// A Deployment that recreates waits for its old pods to be gone: it is told when one is.
fn enqueue_for_pod(queue: &ControllerQueue, caches: &Caches, change: &Change<Pod>) {
    let (Some(pod), None) = (&change.old, &change.new) else {
        return;
    };
    let Some(reference) = owner::controller_of_kind::<ReplicaSet, Pod>(pod.as_ref()) else {
        return;
    };
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let Some(set) = caches.replica_sets.get(&ObjectKey::new(&namespace, &reference.name)) else {
        return;
    };
    if let Some(reference) = owner::controller_of_kind::<Deployment, ReplicaSet>(set.as_ref()) {
        let key = ObjectKey::new(namespace, &reference.name);
        let recreates = caches.deployments.get(&key).is_some_and(|d| !fenceposts::is_rolling(&d));
        if recreates {
            queue.add(key);
        }
    }
}
