//! How a Job ends, and the conditions that say so.
//!
//! In: a Job, its tally, the time. Out: the condition the Job is to end with, if it is; conditions as they are to be
//! written. Pure.
//!
//! ```text
//! FailureTarget ──► Failed          each once the last pod is gone and counted
//! SuccessCriteriaMet ──► Complete
//! ```

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use xebec_api::wellknown::conditions::{
    FALSE, JOB_COMPLETE, JOB_FAILED, JOB_FAILURE_TARGET, JOB_SUCCESS_CRITERIA_MET, JOB_SUSPENDED, TRUE,
};

use crate::job::indexes::Indexes;
use crate::job::tally::{Tally, is_indexed};
use crate::pod;

/// What is decided about the end of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) success: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Ending {
    fn failure(reason: &str, message: &str) -> Self {
        Self { success: false, reason: reason.to_owned(), message: message.to_owned() }
    }

    fn success(reason: &str, message: &str) -> Self {
        Self { success: true, reason: reason.to_owned(), message: message.to_owned() }
    }

    /// The condition while pods are still on their way out.
    pub(crate) fn target(&self) -> &'static str {
        if self.success { JOB_SUCCESS_CRITERIA_MET } else { JOB_FAILURE_TARGET }
    }

    /// The condition once none is.
    pub(crate) fn last(&self) -> &'static str {
        if self.success { JOB_COMPLETE } else { JOB_FAILED }
    }
}

pub(crate) fn condition<'a>(job: &'a Job, type_: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_ && condition.status == TRUE)
}

/// Complete or Failed, and since when.
pub(crate) fn finished_at(job: &Job) -> Option<Timestamp> {
    let last = condition(job, JOB_COMPLETE).or_else(|| condition(job, JOB_FAILED))?;
    Some(last.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0))
}

pub(crate) fn is_finished(job: &Job) -> bool {
    condition(job, JOB_COMPLETE).is_some() || condition(job, JOB_FAILED).is_some()
}

pub(crate) fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

/// How the Job ends, if that is decided, before or now. What was decided stays.
pub(crate) fn ending(job: &Job, spec: &JobSpec, tally: &Tally, now: Timestamp) -> Option<Ending> {
    for (type_, success) in [(JOB_SUCCESS_CRITERIA_MET, true), (JOB_FAILURE_TARGET, false)] {
        if let Some(decided) = condition(job, type_) {
            let reason = decided.reason.clone().unwrap_or_default();
            return Some(Ending { success, reason, message: decided.message.clone().unwrap_or_default() });
        }
    }
    if let Some(why) = &tally.fail_job {
        return Some(Ending::failure("PodFailurePolicy", why));
    }
    let limit = spec.backoff_limit.unwrap_or(6);
    if tally.all_failed() > limit || restarts_exceed(spec, tally, limit) {
        return Some(Ending::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    if deadline_in(job, spec, now).is_some_and(|left| !left.is_positive()) {
        let message = "Job was active longer than specified deadline";
        return Some(Ending::failure("DeadlineExceeded", message));
    }
    if is_indexed(spec) { of_indexes(spec, tally) } else { None }.or_else(|| completion(spec, tally))
}

/// With `OnFailure` the kubelet restarts containers in place: their restarts count instead of pods.
fn restarts_exceed(spec: &JobSpec, tally: &Tally, limit: i32) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let restarts: i32 = tally.active.iter().map(|pod| restarts(pod)).fold(0, i32::saturating_add);
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else {
        return 0;
    };
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers.map(|container| container.restart_count).fold(0, i32::saturating_add)
}

/// What is left until the Job has run for too long; `None`: nothing limits it.
pub(crate) fn deadline_in(job: &Job, spec: &JobSpec, now: Timestamp) -> Option<SignedDuration> {
    let seconds = spec.active_deadline_seconds.filter(|_| !is_suspended(spec))?;
    let started = job.status.as_ref()?.start_time.as_ref()?.0;
    Some(SignedDuration::from_secs(seconds) - now.duration_since(started))
}

fn of_indexes(spec: &JobSpec, tally: &Tally) -> Option<Ending> {
    let completions = spec.completions.unwrap_or(0);
    if spec.backoff_limit_per_index.is_some() {
        let failed = tally.failed_indexes.len();
        if spec.max_failed_indexes.is_some_and(|most| failed > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Ending::failure("MaxFailedIndexesExceeded", message));
        }
        if failed > 0 && failed.saturating_add(tally.completed_indexes.len()) >= completions {
            return Some(Ending::failure("FailedIndexes", "Job has failed indexes"));
        }
    }
    let rules = spec.success_policy.iter().flat_map(|policy| &policy.rules);
    for (number, rule) in rules.enumerate() {
        let wanted = rule.succeeded_indexes.as_deref().map(|text| Indexes::parse(text, completions));
        let there = wanted
            .as_ref()
            .map_or(tally.completed_indexes.len(), |wanted| tally.completed_indexes.common(wanted));
        let enough =
            rule.succeeded_count.unwrap_or_else(|| wanted.as_ref().map_or(completions, Indexes::len));
        if there >= enough {
            let message = format!("Matched rules at index {number}");
            return Some(Ending::success("SuccessPolicy", &message));
        }
    }
    None
}

/// Enough pods succeeded. Without a number one is enough, and the others decide for themselves when they end.
fn completion(spec: &JobSpec, tally: &Tally) -> Option<Ending> {
    let succeeded = tally.all_succeeded();
    let done = match spec.completions {
        None => succeeded > 0 && tally.active.is_empty(),
        Some(completions) => succeeded >= completions && tally.active.is_empty(),
    };
    done.then(|| Ending::success("CompletionsReached", "Reached expected number of succeeded pods"))
}

/// Sets a condition; says whether that changed its status.
pub(crate) fn set(
    conditions: &mut Vec<JobCondition>,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let known = conditions.iter_mut().find(|condition| condition.type_ == type_);
    if known.as_ref().is_some_and(|known| known.status == status) {
        return false;
    }
    let condition = JobCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match known {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
    true
}

/// Says in the conditions whether the Job is suspended; true when that is news.
pub(crate) fn set_suspended(conditions: &mut Vec<JobCondition>, suspended: bool, now: Timestamp) -> bool {
    if suspended {
        return set(conditions, JOB_SUSPENDED, TRUE, "JobSuspended", "Job suspended", now);
    }
    // A Job that never was suspended does not say that it is not.
    let was = conditions.iter().any(|condition| condition.type_ == JOB_SUSPENDED);
    was && set(conditions, JOB_SUSPENDED, FALSE, "JobResumed", "Job resumed", now)
}

/// Running and ready.
pub(crate) fn ready(tally: &Tally) -> usize {
    tally.active.iter().filter(|pod| pod::is_ready(pod)).count()
}
