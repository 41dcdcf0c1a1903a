//! What a CronJob does now.
//!
//! In: the CronJob, its schedule, its Jobs, the time. Out: the Job that is due, the Jobs to remove, when to look again.
//! Pure.

use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::cron::Schedule;

use crate::job::outcome::{condition, finished_at, is_finished};
use crate::owner::controller_reference;

/// Annotation: when the Job was due.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// So many missed times are a sign of a clock that jumped, and worth an Event.
const MANY: usize = 100;
/// Steps taken at most to find the last time that was missed; past that the CronJob waits for the next.
const MOST_STEPS: usize = 10_000;

/// The time that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) at: Timestamp,
    /// Too many times went by without a Job.
    pub(crate) many_missed: bool,
}

/// The last time that passed and has had no Job yet.
pub(crate) fn due(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<Due> {
    let created = cron.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0);
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref()).map(|time| time.0);
    let mut earliest = last.unwrap_or(created);
    if let Some(deadline) = cron.spec.starting_deadline_seconds {
        let limit = now.checked_sub(SignedDuration::from_secs(deadline)).unwrap_or(Timestamp::MIN);
        earliest = earliest.max(limit);
    }
    // After a long pause only the end of it is walked through.
    let mut found = None;
    let mut missed = 0;
    let mut at = earliest;
    while let Some(next) = schedule.next_after(at, zone).filter(|next| *next <= now) {
        missed += 1;
        found = Some(next);
        at = next;
        if missed == MOST_STEPS {
            at = now.checked_sub(SignedDuration::from_hours(24)).unwrap_or(now).max(at);
        }
        if missed > 2 * MOST_STEPS {
            break;
        }
    }
    found.map(|at| Due { at, many_missed: missed > MANY })
}

/// It is too late for the time that is due.
pub(crate) fn is_too_late(cron: &CronJob, due: Timestamp, now: Timestamp) -> bool {
    let deadline = cron.spec.starting_deadline_seconds;
    deadline.is_some_and(|seconds| now.duration_since(due) > SignedDuration::from_secs(seconds))
}

/// What to do about Jobs that still run when the next is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Concurrency {
    Allow,
    Forbid,
    Replace,
}

pub(crate) fn concurrency(cron: &CronJob) -> Concurrency {
    match cron.spec.concurrency_policy.as_deref() {
        Some("Forbid") => Concurrency::Forbid,
        Some("Replace") => Concurrency::Replace,
        _ => Concurrency::Allow,
    }
}

/// The Job of one time; its name says which, so that the same time never has two.
pub(crate) fn job(cron: &CronJob, due: Timestamp, zone: &TimeZone) -> Job {
    let name = cron.metadata.name.as_deref().unwrap_or_default();
    let template = cron.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let local = due.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    annotations.insert(SCHEDULED.to_owned(), local.replace("+00:00", "Z"));
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}", due.as_second().div_euclid(60))),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// Finished Jobs beyond the limits, the oldest first.
pub(crate) fn surplus(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let spec = &cron.spec;
    let finished = jobs.iter().filter(|job| is_finished(job) && job.metadata.deletion_timestamp.is_none());
    let (succeeded, failed): (Vec<_>, Vec<_>) =
        finished.cloned().partition(|job| condition(job, "Complete").is_some());
    let mut surplus = oldest_beyond(succeeded, spec.successful_jobs_history_limit.unwrap_or(3));
    surplus.extend(oldest_beyond(failed, spec.failed_jobs_history_limit.unwrap_or(1)));
    surplus
}

fn oldest_beyond(mut jobs: Vec<Arc<Job>>, limit: i32) -> Vec<Arc<Job>> {
    let keep = usize::try_from(limit).unwrap_or(0);
    jobs.sort_by_cached_key(|job| {
        let started = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        (started, job.metadata.name.clone())
    });
    jobs.truncate(jobs.len().saturating_sub(keep));
    jobs
}

/// When the last of these Jobs succeeded.
pub(crate) fn last_success(jobs: &[Arc<Job>]) -> Option<Timestamp> {
    let succeeded = jobs.iter().filter(|job| condition(job, "Complete").is_some());
    succeeded.filter_map(|job| finished_at(job)).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cron(spec: &Value, last: Option<&str>) -> CronJob {
        let mut cron = json!({
            "metadata": {"name": "c", "uid": "u", "creationTimestamp": "2026-01-01T00:00:30Z"},
            "spec": {"schedule": "*/10 * * * *", "jobTemplate": {"spec": {"template": {}}}},
            "status": {"lastScheduleTime": last},
        });
        for (field, value) in spec.as_object().unwrap() {
            cron["spec"][field] = value.clone();
        }
        serde_json::from_value(cron).unwrap()
    }

    fn due_at(cron: &CronJob, now: &str) -> Option<(String, bool)> {
        let schedule = Schedule::parse(&cron.spec.schedule).unwrap();
        let due = due(cron, &schedule, &TimeZone::UTC, now.parse().unwrap())?;
        Some((due.at.to_string(), due.many_missed))
    }

    #[test]
    fn last_missed_time_is_due() {
        let fresh = cron(&json!({}), None);
        assert_eq!(due_at(&fresh, "2026-01-01T00:09:59Z"), None);
        assert_eq!(due_at(&fresh, "2026-01-01T00:10:00Z"), Some(("2026-01-01T00:10:00Z".to_owned(), false)));
        let ran = cron(&json!({}), Some("2026-01-01T00:10:00Z"));
        assert_eq!(due_at(&ran, "2026-01-01T00:19:00Z"), None);
        assert_eq!(due_at(&ran, "2026-01-01T00:45:00Z"), Some(("2026-01-01T00:40:00Z".to_owned(), false)));
        assert_eq!(due_at(&ran, "2026-01-03T00:01:00Z"), Some(("2026-01-03T00:00:00Z".to_owned(), true)));
        let every_minute = cron(&json!({"schedule": "* * * * *"}), None);
        let (found, many) = due_at(&every_minute, "2027-01-01T00:00:10Z").unwrap();
        assert_eq!((found.as_str(), many), ("2027-01-01T00:00:00Z", true));
    }

    #[test]
    fn deadline_limits_how_late_a_job_may_start() {
        let strict = cron(&json!({"startingDeadlineSeconds": 60}), Some("2026-01-01T00:10:00Z"));
        assert_eq!(due_at(&strict, "2026-01-01T00:25:00Z"), None, "that time is over");
        let due: Timestamp = "2026-01-01T00:20:00Z".parse().unwrap();
        assert!(!is_too_late(&strict, due, "2026-01-01T00:20:59Z".parse().unwrap()));
        assert!(is_too_late(&strict, due, "2026-01-01T00:21:01Z".parse().unwrap()));
    }

    #[test]
    fn job_is_named_after_its_time() {
        let made = job(&cron(&json!({}), None), "2026-01-01T00:10:00Z".parse().unwrap(), &TimeZone::UTC);
        assert_eq!(made.metadata.name.as_deref(), Some("c-29453770"));
        assert_eq!(made.metadata.annotations.unwrap()[SCHEDULED], "2026-01-01T00:10:00Z");
    }

    #[test]
    fn history_keeps_the_newest_of_each_kind() {
        let job = |name: &str, end: &str, minute: u32| -> Arc<Job> {
            Arc::new(
                serde_json::from_value(json!({
                    "metadata": {"name": name},
                    "status": {
                        "startTime": format!("2026-01-01T00:{minute:02}:00Z"),
                        "conditions": [{"type": end, "status": "True"}],
                    },
                }))
                .unwrap(),
            )
        };
        let jobs = [
            job("s3", "Complete", 3),
            job("s1", "Complete", 1),
            job("f2", "Failed", 2),
            job("f1", "Failed", 1),
            job("runs", "Suspended", 0),
        ];
        let names = |spec: Value| -> Vec<String> {
            surplus(&cron(&spec, None), &jobs).iter().map(|job| job.metadata.name.clone().unwrap()).collect()
        };
        assert_eq!(names(json!({})), ["f1"]);
        assert_eq!(names(json!({"successfulJobsHistoryLimit": 1})), ["s1", "f1"]);
        assert_eq!(names(json!({"successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 0})).len(), 4);
    }
}
