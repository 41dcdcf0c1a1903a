//! Starts a Job whenever a schedule says so.
//!
//! In: CronJobs, their Jobs. Out: Jobs created and removed, status, Events.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, PostParams, Preconditions};
use xebec_api::cron::Schedule;

use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::cron_job::plan::Concurrency;
use crate::error::{Error, is_already_exists, is_conflict, is_not_found, namespace_is_terminating};
use crate::job::outcome::{condition, is_finished};
use crate::key::{ControllerName, ObjectKey};
use crate::owner;
use crate::patch::{self, Half};
use crate::recorder::{Severity, reference};

/// The look after a time that is due comes a moment later, so that it is past by every clock concerned.
const MARGIN: Duration = Duration::from_millis(100);

/// The controller. Its keys are CronJobs.
pub(crate) struct CronJobController {
    context: Context,
    queue: ControllerQueue,
}

/// When the CronJob is due.
struct Calendar {
    schedule: Schedule,
    zone: TimeZone,
}

impl CronJobController {
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> Self {
        let queue = context.queue_of(ControllerName::CronJob);
        informers.cron_jobs.on_change({
            let queue = queue.clone();
            move |change| {
                if let Some(cron) = &change.new {
                    queue.add(ObjectKey::of(cron.as_ref()));
                }
            }
        });
        informers.jobs.on_change({
            let queue = queue.clone();
            move |change| {
                for job in change.sides() {
                    if let Some(owner) = owner::controller_of_kind::<CronJob, _>(job.as_ref()) {
                        let namespace = job.metadata.namespace.clone().unwrap_or_default();
                        queue.add(ObjectKey::new(namespace, &owner.name));
                    }
                }
            }
        });
        Self { context: context.clone(), queue }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let caches = &self.context.caches;
        let Some(cron) = caches.cron_jobs.get(key) else {
            return Ok(Outcome::Done);
        };
        let jobs = caches.jobs.controlled_by(cron.metadata.uid.as_deref().unwrap_or_default());
        for job in plan::surplus(&cron, &jobs) {
            self.delete(key, &cron, &job).await?;
        }
        let mut status = cron.status.clone().unwrap_or_default();
        self.follow(key, &cron, &jobs, &mut status).await?;
        let suspended = cron.spec.suspend == Some(true);
        if cron.metadata.deletion_timestamp.is_some() || suspended {
            self.write(key, &cron, status).await?;
            return Ok(Outcome::Done);
        }
        let Some(calendar) = self.calendar(&cron) else {
            self.write(key, &cron, status).await?;
            return Ok(Outcome::Done);
        };
        let now = Timestamp::now();
        let started = self.start(key, &cron, &calendar, &jobs, &mut status, now).await;
        self.write(key, &cron, status).await?;
        started?;
        let next = calendar.schedule.next_after(now, &calendar.zone);
        let wait = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
        Ok(Outcome::after(wait.map(|wait| wait + MARGIN)))
    }

    /// Brings the list of running Jobs up to date.
    async fn follow(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) -> Result<(), Error> {
        let mut active = status.active.take().unwrap_or_default();
        for job in jobs {
            let name = job.metadata.name.as_deref().unwrap_or_default();
            let listed = active.iter().any(|known| known.uid == job.metadata.uid);
            if !listed && !is_finished(job) {
                let message = format!("Saw a job that the controller did not create or forgot: {name}");
                self.event(cron, Severity::Warning, "UnexpectedJob", message);
            } else if listed && is_finished(job) {
                let end = if condition(job, "Complete").is_some() { "Complete" } else { "Failed" };
                let message = format!("Saw completed job: {name}, condition: {end}");
                self.event(cron, Severity::Normal, "SawCompletedJob", message);
                active.retain(|known| known.uid != job.metadata.uid);
            }
        }
        for known in active.clone() {
            if !jobs.iter().any(|job| job.metadata.uid == known.uid) && !self.exists(key, &known).await? {
                let name = known.name.as_deref().unwrap_or_default();
                let message = format!("Active job went missing: {name}");
                self.event(cron, Severity::Normal, "MissingJob", message);
                active.retain(|other| other.uid != known.uid);
            }
        }
        status.active = Some(active).filter(|active| !active.is_empty());
        let known = status.last_successful_time.as_ref().map(|time| time.0);
        status.last_successful_time = known.max(plan::last_success(jobs)).map(Time);
        Ok(())
    }

    /// The cache may not show yet what was just created: the API knows.
    async fn exists(&self, key: &ObjectKey, job: &ObjectReference) -> Result<bool, Error> {
        let name = job.name.as_deref().unwrap_or_default();
        let found = self.context.api::<Job>(&key.namespace).get_opt(name).await;
        let found = found.map_err(|error| Error::api(format!("get Job {}/{name}", key.namespace), error))?;
        Ok(found.is_some_and(|found| found.metadata.uid == job.uid))
    }

    /// `None` when the CronJob can never be due, which its author is told.
    fn calendar(&self, cron: &CronJob) -> Option<Calendar> {
        let spec = &cron.spec;
        let zone = match spec.time_zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => match TimeZone::get(name) {
                Ok(zone) => zone,
                Err(error) => {
                    let message = format!("invalid timeZone: {name:?}: {error}");
                    self.event(cron, Severity::Warning, "UnknownTimeZone", message);
                    return None;
                }
            },
        };
        match Schedule::parse(&spec.schedule) {
            Ok(schedule) => Some(Calendar { schedule, zone }),
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                self.event(cron, Severity::Warning, "UnparseableSchedule", message);
                None
            }
        }
    }

    /// Starts the Job that is due, if one is.
    async fn start(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        calendar: &Calendar,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
        now: Timestamp,
    ) -> Result<(), Error> {
        let Some(due) = plan::due(cron, &calendar.schedule, &calendar.zone, now) else {
            return Ok(());
        };
        if due.many_missed {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check \
                           clock skew";
            self.event(cron, Severity::Warning, "TooManyMissedTimes", message.to_owned());
        }
        if plan::is_too_late(cron, due.at, now) {
            let message = format!("Missed scheduled time to start a job: {}", due.at);
            self.event(cron, Severity::Warning, "MissSchedule", message);
            return Ok(());
        }
        let job = plan::job(cron, due.at, &calendar.zone);
        if status.active.iter().flatten().any(|known| known.name == job.metadata.name) {
            return Ok(());
        }
        let running: Vec<&Arc<Job>> = jobs.iter().filter(|job| !is_finished(job)).collect();
        match plan::concurrency(cron) {
            Concurrency::Forbid if !running.is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.event(cron, Severity::Normal, "JobAlreadyActive", message.to_owned());
                return Ok(());
            }
            Concurrency::Replace => {
                for job in running {
                    self.delete(key, cron, job).await?;
                    status
                        .active
                        .iter_mut()
                        .for_each(|all| all.retain(|known| known.uid != job.metadata.uid));
                }
            }
            Concurrency::Forbid | Concurrency::Allow => {}
        }
        if let Some(created) = self.create(key, cron, &job).await? {
            status.active.get_or_insert_default().push(created);
        }
        status.last_schedule_time = Some(Time(due.at));
        Ok(())
    }

    /// The Job as the status lists it; `None` when it was made before and is over, is somebody else's (that time counts as
    /// done, as upstream has it), or cannot be made any more.
    async fn create(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        job: &Job,
    ) -> Result<Option<ObjectReference>, Error> {
        let api = self.context.api::<Job>(&key.namespace);
        let name = job.metadata.name.clone().unwrap_or_default();
        match api.create(&PostParams::default(), job).await {
            Ok(created) => {
                self.event(cron, Severity::Normal, "SuccessfulCreate", format!("Created job {name}"));
                Ok(Some(reference(&created)))
            }
            Err(error) if namespace_is_terminating(&error) => Ok(None),
            // Made by a run whose status was not written any more, or somebody else's.
            Err(error) if is_already_exists(&error) => {
                let found = api.get(&name).await.map_err(|e| Error::api(format!("get Job {name}"), e))?;
                let ours = owner::controller_of(&found).map(|owner| owner.uid.as_str());
                if ours != cron.metadata.uid.as_deref() {
                    let message = format!("Error creating job: {name} exists and belongs to another");
                    self.event(cron, Severity::Warning, "FailedCreate", message);
                    return Ok(None);
                }
                Ok((!is_finished(&found)).then(|| reference(&found)))
            }
            Err(error) => {
                self.event(cron, Severity::Warning, "FailedCreate", format!("Error creating job: {error}"));
                Err(Error::api(format!("create a Job of CronJob {key}"), error))
            }
        }
    }

    async fn delete(&self, key: &ObjectKey, cron: &CronJob, job: &Job) -> Result<(), Error> {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams::background()
            .preconditions(Preconditions { uid: job.metadata.uid.clone(), resource_version: None });
        match self.context.api::<Job>(&key.namespace).delete(name, &params).await {
            Ok(_) => {
                self.event(cron, Severity::Normal, "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) => {
                self.event(cron, Severity::Warning, "FailedDelete", format!("Deleted job: {error}"));
                Err(Error::api(format!("delete Job {}/{name}", key.namespace), error))
            }
        }
    }

    async fn write(&self, key: &ObjectKey, cron: &Arc<CronJob>, status: CronJobStatus) -> Result<(), Error> {
        let mut desired = (**cron).clone();
        desired.status = Some(status);
        match patch::update(&self.context.api(&key.namespace), Half::Status, cron.as_ref(), &desired).await {
            Err(error) if error.is_not_found() => Ok(()),
            written => written.map(drop),
        }
    }

    fn event(&self, cron: &CronJob, severity: Severity, reason: &'static str, message: String) {
        self.context.record(ControllerName::CronJob, cron, severity, reason, message);
    }
}

impl Controller for CronJobController {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.sync(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.cron_jobs);
    }
}
