//! Deletes Jobs that finished long enough ago.
//!
//! In: Jobs with `ttlSecondsAfterFinished`. Out: deletions, which take the pods along.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::error::{Error, is_conflict, is_not_found};
use crate::job::outcome::finished_at;
use crate::key::{ControllerName, ObjectKey};

/// The controller. Its keys are Jobs.
pub(crate) struct TtlAfterFinished {
    context: Context,
    queue: ControllerQueue,
}

impl TtlAfterFinished {
    pub(crate) fn new(context: &Context, informers: &mut Informers) -> Self {
        let queue = context.queue_of(ControllerName::TtlAfterFinished);
        informers.jobs.on_change({
            let queue = queue.clone();
            move |change| {
                if let Some(job) = change.new.as_ref().filter(|job| expires_at(job).is_some()) {
                    queue.add(ObjectKey::of(job.as_ref()));
                }
            }
        });
        Self { context: context.clone(), queue }
    }

    async fn look(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(job) = self.context.caches.jobs.get(key) else {
            return Ok(Outcome::Done);
        };
        let Some(left) = time_left(&job, Timestamp::now()) else {
            return Ok(Outcome::Done);
        };
        if left.is_positive() {
            return Ok(Outcome::After(Duration::try_from(left).unwrap_or_default()));
        }
        self.expire(key, &job).await
    }

    /// Deletes the Job, unless it was given more time and the cache does not know yet.
    async fn expire(&self, key: &ObjectKey, job: &Job) -> Result<Outcome, Error> {
        let api: Api<Job> = self.context.api(&key.namespace);
        let live = api.get_opt(&key.name).await.map_err(|e| Error::api(format!("get Job {key}"), e))?;
        let Some(live) = live.filter(|live| live.metadata.uid == job.metadata.uid) else {
            return Ok(Outcome::Done);
        };
        if time_left(&live, Timestamp::now()).is_none_or(|left| left.is_positive()) {
            return Ok(Outcome::Done);
        }
        let preconditions =
            Preconditions { uid: live.metadata.uid, resource_version: live.metadata.resource_version };
        let params = DeleteParams::foreground().preconditions(preconditions);
        match api.delete(&key.name, &params).await {
            Err(error) if is_conflict(&error) => Ok(Outcome::After(Duration::from_secs(1))),
            Err(error) if !is_not_found(&error) => Err(Error::api(format!("delete Job {key}"), error)),
            _ => Ok(Outcome::Done),
        }
    }
}

impl Controller for TtlAfterFinished {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.look(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.jobs);
    }
}

/// When the Job's time is over; `None` while it runs, when it leaves already, or when it is to stay.
fn expires_at(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let stays = job.metadata.deletion_timestamp.is_none();
    let finished = finished_at(job).filter(|_| stays)?;
    Some(finished.checked_add(SignedDuration::from_secs(ttl.max(0).into())).unwrap_or(Timestamp::MAX))
}

fn time_left(job: &Job, now: Timestamp) -> Option<SignedDuration> {
    Some(expires_at(job)?.duration_since(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn time_runs_from_the_end_of_the_job() {
        let job = |ttl: Option<i32>, status: &str, deleting: bool| -> Job {
            serde_json::from_value(json!({
                "metadata": {"deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z")},
                "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
                "status": {"conditions": [
                    {"type": "Failed", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"},
                ]},
            }))
            .unwrap()
        };
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let left = |job: Job| time_left(&job, now).map(|left| left.as_secs());
        assert_eq!(left(job(Some(30), "True", false)), Some(20));
        assert_eq!(left(job(Some(0), "True", false)), Some(-10));
        assert_eq!(left(job(None, "True", false)), None);
        assert_eq!(left(job(Some(30), "False", false)), None);
        assert_eq!(left(job(Some(30), "True", true)), None);
    }
}
