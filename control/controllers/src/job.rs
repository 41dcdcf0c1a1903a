//! Runs pods until enough of them succeeded.
//!
//! In: Jobs, Pods. Out: pods created, deleted and let go of; status, Events. Pods carry a finalizer until they are
//! counted, so that one that is deleted in between is not lost to the count.

mod backoff;
mod failure_policy;
mod indexes;
pub(crate) mod outcome;
mod plan;
mod pods;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use xebec_api::labels::Selector;
use xebec_api::wellknown::labels::{JOB_NAME, LEGACY_JOB_NAME};

use crate::cache::{Change, revision_of};
use crate::config::ControllersConfig;
use crate::context::{Caches, Context, Controller, ControllerQueue, Informers, Outcome};
use crate::error::Error;
use crate::expectations::Expectations;
use crate::job::plan::{News, Plan, Terms};
use crate::key::{ControllerName, ObjectKey};
use crate::owner::{self, Claim};
use crate::patch::{self, Half};
use crate::pod;
use crate::pod_control::PodControl;
use crate::pod_owner;
use crate::recorder::Severity;

/// How soon to look again while the cache is behind our own writes; the watch normally comes first.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The controller. Its keys are Jobs, also such that are gone and left pods behind.
pub(crate) struct JobController {
    context: Context,
    queue: ControllerQueue,
    pods: PodControl,
    /// Our own writes of statuses. Pods seen newer than their Job would look as if nobody had counted them.
    statuses: Arc<Expectations>,
    backoff: Duration,
}

impl JobController {
    pub(crate) fn new(context: &Context, informers: &mut Informers, config: &ControllersConfig) -> Self {
        let queue = context.queue_of(ControllerName::Job);
        let pods = PodControl::new(context, ControllerName::Job);
        let statuses: Arc<Expectations> = Arc::default();
        informers.jobs.on_change({
            let queue = queue.clone();
            let (expectations, statuses) = (pods.expectations.clone(), statuses.clone());
            move |change| {
                if let Some(job) = change.object() {
                    let key = ObjectKey::of(job.as_ref());
                    if change.new.is_none() {
                        expectations.forget(&key);
                        statuses.forget(&key);
                    }
                    queue.add(key);
                }
            }
        });
        informers.pods.on_change({
            let (queue, caches) = (queue.clone(), context.caches.clone());
            move |change| enqueue_for_pod(&queue, &caches, change)
        });
        Self { context: context.clone(), queue, pods, statuses, backoff: config.job_pod_failure_backoff }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let caches = &self.context.caches;
        if !self.statuses.satisfied(key, &caches.jobs) {
            return Ok(Outcome::After(CATCH_UP));
        }
        let job = caches.jobs.get(key).filter(|job| !is_managed_elsewhere(job));
        self.release_strays(key, job.as_deref()).await?;
        let Some(job) = job else {
            return Ok(Outcome::Done);
        };
        if outcome::is_finished(&job) {
            return self.clear_up(key, &job).await;
        }
        let selector = selector(&job)?;
        let caught_up = self.pods.expectations.satisfied(key, &caches.pods);
        let owned = self.claim(key, &job, &selector).await?;
        let terms = Terms { now: Timestamp::now(), backoff: self.backoff, caught_up };
        let plan = plan::plan(&job, &owned, terms);
        let next = plan.next.and_then(|left| Duration::try_from(left).ok());
        self.apply(key, &job, plan).await?;
        let catch_up = (!caught_up).then_some(CATCH_UP);
        Ok(Outcome::after(next.into_iter().chain(catch_up).min()))
    }

    /// The status comes first: what it lists may be let go of, and a Job that changed meanwhile is planned anew.
    async fn apply(&self, key: &ObjectKey, job: &Arc<Job>, plan: Plan) -> Result<(), Error> {
        let mut desired = (**job).clone();
        desired.status = Some(plan.status);
        match patch::update(&self.context.api(&key.namespace), Half::Status, job.as_ref(), &desired).await {
            Err(error) if error.is_not_found() => return Ok(()),
            written => {
                if let Some(written) = written? {
                    self.statuses.wrote(key, revision_of(&written));
                }
            }
        }
        plan.news.iter().for_each(|news| self.tell(job, news));
        self.untrack(key, &plan.untrack).await?;
        self.untrack(key, &plan.withdraw).await?;
        self.pods.delete(key, job.as_ref(), &plan.withdraw).await?;
        self.pods.delete(key, job.as_ref(), &plan.delete).await?;
        let pods: Vec<Pod> = plan.create.iter().map(|start| pods::pod(job, *start)).collect();
        self.pods.create(key, job.as_ref(), &pods).await
    }

    /// Pods that match become the Job's, and are to be counted; pods that do not any more are let go.
    async fn claim(&self, key: &ObjectKey, job: &Job, selector: &Selector) -> Result<Vec<Arc<Pod>>, Error> {
        let caches = &self.context.caches;
        let mut owned = Vec::new();
        let mut candidates = caches.pods.controlled_by(job.metadata.uid.as_deref().unwrap_or_default());
        candidates.extend(caches.pods.uncontrolled_in(&key.namespace));
        let api = self.context.api::<Pod>(&key.namespace);
        let reference = owner::controller_reference(job);
        for pod in candidates {
            match owner::claim(job, selector, pod.as_ref()) {
                Claim::Keep => owned.push(pod),
                Claim::Adopt if pod::is_active(&pod) => {
                    owner::may_adopt(&self.context.api(&key.namespace), job).await?;
                    let mut adopted = pods::tracked(&pod);
                    adopted.metadata.owner_references.get_or_insert_default().push(reference.clone());
                    owned.extend(self.update(key, &api, &pod, &adopted).await?);
                }
                Claim::Release => {
                    let released = owner::released(&reference, &pods::untracked(&pod));
                    self.update(key, &api, &pod, &released).await?;
                }
                Claim::Adopt | Claim::Ignore => {}
            }
        }
        Ok(owned)
    }

    async fn update(
        &self,
        key: &ObjectKey,
        api: &kube::Api<Pod>,
        current: &Pod,
        desired: &Pod,
    ) -> Result<Option<Arc<Pod>>, Error> {
        match patch::update(api, Half::Main, current, desired).await {
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
            Ok(written) => {
                if let Some(written) = &written {
                    self.pods.expectations.wrote(key, revision_of(written));
                }
                Ok(Some(Arc::new(written.unwrap_or_else(|| current.clone()))))
            }
        }
    }

    /// Ends what was started in the last moment, by a run that was cut off, and lets go of the rest.
    async fn clear_up(&self, key: &ObjectKey, job: &Job) -> Result<Outcome, Error> {
        let owned = self.context.caches.pods.controlled_by(job.metadata.uid.as_deref().unwrap_or_default());
        self.untrack(key, &owned).await?;
        let running: Vec<Arc<Pod>> = owned.into_iter().filter(|pod| pod::is_active(pod)).collect();
        self.pods.delete(key, job, &running).await?;
        Ok(Outcome::Done)
    }

    /// Takes the finalizer off.
    async fn untrack(&self, key: &ObjectKey, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let api = self.context.api::<Pod>(&key.namespace);
        let tracked = pods.iter().filter(|pod| pods::is_tracked(pod));
        let writes = tracked.map(|pod| {
            let api = &api;
            async move { self.update(key, api, pod, &pods::untracked(pod)).await.map(drop) }
        });
        let errors = join_all(writes).await.into_iter().filter_map(Result::err).collect();
        Error::several(errors).map_or(Ok(()), Err)
    }

    /// Nobody counts the pods of a Job that is gone: they need not wait for it.
    async fn release_strays(&self, key: &ObjectKey, job: Option<&Job>) -> Result<(), Error> {
        let uid = job.and_then(|job| job.metadata.uid.as_deref());
        let mut strays = self.context.caches.pods.in_namespace(&key.namespace);
        strays.retain(|pod| {
            pods::is_tracked(pod)
                && match owner::controller_of_kind::<Job, _>(pod.as_ref()) {
                    Some(owner) => owner.name == key.name && Some(owner.uid.as_str()) != uid,
                    None => {
                        job.is_none()
                            && owner::controller_of(pod.as_ref()).is_none()
                            && job_name(pod) == Some(key.name.as_str())
                    }
                }
        });
        self.untrack(key, &strays).await
    }

    fn tell(&self, job: &Job, news: &News) {
        let (severity, reason, message) = match news {
            News::Suspended => (Severity::Normal, "Suspended", "Job suspended"),
            News::Resumed => (Severity::Normal, "Resumed", "Job resumed"),
            News::Ended(ending) if ending.success => (Severity::Normal, "Completed", "Job completed"),
            News::Ended(ending) => {
                (Severity::Warning, failure_reason(&ending.reason), ending.message.as_str())
            }
        };
        self.context.record(ControllerName::Job, job, severity, reason, message.to_owned());
    }
}

/// The reasons a Job fails for, as Events know them.
fn failure_reason(reason: &str) -> &'static str {
    let known = [
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "FailedIndexes",
        "MaxFailedIndexesExceeded",
        "PodFailurePolicy",
    ];
    known.into_iter().find(|known| *known == reason).unwrap_or("Failed")
}

impl Controller for JobController {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.sync(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.jobs);
        for pod in self.context.caches.pods.all().iter().filter(|pod| pods::is_tracked(pod)) {
            enqueue_owner(&self.queue, pod);
        }
    }
}

/// A Job may name another controller than this one.
fn is_managed_elsewhere(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != "kubernetes.io/job-controller")
}

fn selector(job: &Job) -> Result<Selector, Error> {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.clone());
    match selector {
        Some(selector) => owner::selector(job, &selector),
        None => Ok(Selector::Nothing),
    }
}

fn job_name(pod: &Pod) -> Option<&str> {
    let labels = pod::labels(pod);
    labels.get(JOB_NAME).or_else(|| labels.get(LEGACY_JOB_NAME)).map(String::as_str)
}

fn enqueue_owner(queue: &ControllerQueue, pod: &Pod) {
    let name = match owner::controller_of(pod) {
        Some(_) => owner::controller_of_kind::<Job, _>(pod).map(|owner| owner.name.as_str()),
        None => job_name(pod).filter(|_| pods::is_tracked(pod)),
    };
    if let Some(name) = name {
        queue.add(ObjectKey::new(pod.metadata.namespace.clone().unwrap_or_default(), name));
    }
}

/// Asks for a run of the Job that owns or owned the pod, or of all that might adopt it.
fn enqueue_for_pod(queue: &ControllerQueue, caches: &Caches, change: &Change<Pod>) {
    change.sides().for_each(|pod| enqueue_owner(queue, pod));
    pod_owner::enqueue_adopters(queue, &caches.jobs, selector, change);
}
