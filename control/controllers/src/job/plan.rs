//! The next steps of a Job.
//!
//! In: the Job, its pods, the time. Out: the status to write first, then the pods to let go of, to delete and to
//! create. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use xebec_api::wellknown::conditions::TRUE;

use crate::job::backoff;
use crate::job::failure_policy::{Verdict, judge};
use crate::job::indexes::Indexes;
use crate::job::outcome::{self, Ending};
use crate::job::pods::{Start, failures_before};
use crate::job::tally::{self, Tally, count, is_indexed, replaces_only_failed, tally, valid_index};
use crate::pod;
use crate::replicaset::rank::{Ranked, pods_to_delete};

/// Pods created or deleted in one run at most.
const BURST: usize = 500;

/// What is to be told in Events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Suspended,
    Resumed,
    Ended(Ending),
}

/// In the order of the fields.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) status: JobStatus,
    pub(crate) news: Vec<News>,
    /// Counted or not to be counted: their finalizer goes.
    pub(crate) untrack: Vec<Arc<Pod>>,
    /// Deleted without being counted.
    pub(crate) withdraw: Vec<Arc<Pod>>,
    /// Deleted because the Job ends.
    pub(crate) delete: Vec<Arc<Pod>>,
    pub(crate) create: Vec<Start>,
    /// When to look again though nothing changed.
    pub(crate) next: Option<SignedDuration>,
}

/// What one run goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) now: Timestamp,
    /// Wait after one failed pod.
    pub(crate) backoff: Duration,
    /// The cache shows all that was written for this Job: pods may be created and deleted.
    pub(crate) caught_up: bool,
}

pub(crate) fn plan(job: &Job, pods: &[Arc<Pod>], terms: Terms) -> Plan {
    let spec = tally::spec(job);
    let tally = tally(job, &spec, pods);
    let ending = outcome::ending(job, &spec, &tally, terms.now);
    let mut plan = Plan { untrack: tally.untrack.clone(), ..Plan::default() };
    plan.status = status(job, &spec, &tally);
    let suspended = outcome::is_suspended(&spec);
    if plan.status.start_time.is_none() && !suspended {
        plan.status.start_time = Some(Time(terms.now));
    }
    let mut conditions = plan.status.conditions.take().unwrap_or_default();
    match &ending {
        Some(ending) => {
            outcome::set(&mut conditions, ending.target(), TRUE, &ending.reason, &ending.message, terms.now);
            // A pod just created may not be seen yet: it is still to be ended.
            let over = terms.caught_up
                && tally.active.is_empty()
                && tally.terminating.is_empty()
                && tally.is_settled();
            if over {
                let last = ending.last();
                outcome::set(&mut conditions, last, TRUE, &ending.reason, &ending.message, terms.now);
                plan.status.completion_time = ending.success.then_some(Time(terms.now));
                plan.news.push(News::Ended(ending.clone()));
            }
            plan.delete = tally.active.clone();
        }
        None => {
            if outcome::set_suspended(&mut conditions, suspended, terms.now) {
                plan.news.push(if suspended { News::Suspended } else { News::Resumed });
                if !suspended {
                    // Time that went by while it was suspended does not count.
                    plan.status.start_time = Some(Time(terms.now));
                }
            }
            if terms.caught_up && job.metadata.deletion_timestamp.is_none() {
                manage(&spec, job, &tally, terms, &mut plan);
            }
            let started = Job { status: Some(plan.status.clone()), ..job.clone() };
            let deadline = outcome::deadline_in(&started, &spec, terms.now);
            plan.next = plan.next.into_iter().chain(deadline).min();
        }
    }
    plan.status.conditions = Some(conditions).filter(|conditions| !conditions.is_empty());
    plan
}

fn status(job: &Job, spec: &JobSpec, tally: &Tally) -> JobStatus {
    let text = |indexes: &Indexes| Some(indexes.to_string()).filter(|text| !text.is_empty());
    let known = job.status.clone().unwrap_or_default();
    let per_index = spec.backoff_limit_per_index.is_some();
    JobStatus {
        active: Some(count(tally.active.len())).filter(|count| *count > 0),
        ready: Some(count(outcome::ready(tally))),
        terminating: Some(count(tally.terminating.len())),
        succeeded: Some(tally.succeeded).filter(|count| *count > 0),
        failed: Some(tally.failed).filter(|count| *count > 0),
        completed_indexes: if is_indexed(spec) { text(&tally.completed_indexes) } else { None },
        failed_indexes: per_index.then(|| tally.failed_indexes.to_string()),
        uncounted_terminated_pods: Some(tally.uncounted()),
        ..known
    }
}

/// Brings the number of running pods to what is wanted.
fn manage(spec: &JobSpec, job: &Job, tally: &Tally, terms: Terms, plan: &mut Plan) {
    if outcome::is_suspended(spec) {
        plan.withdraw = tally.active.clone();
        return;
    }
    let active = count(tally.active.len());
    let parallelism = spec.parallelism.unwrap_or(1).max(0);
    let wanted = match spec.completions {
        // Once one succeeded, those that run decide for themselves when they end.
        None if tally.all_succeeded() > 0 => active,
        None => parallelism,
        Some(completions) => {
            let left =
                completions.saturating_sub(tally.all_succeeded()).saturating_sub(tally.failed_indexes.len());
            left.clamp(0, parallelism)
        }
    };
    plan.withdraw = surplus(spec, tally, usize::try_from(active - wanted).unwrap_or(0), terms.now);
    if !plan.withdraw.is_empty() {
        return;
    }
    let leaving = if replaces_only_failed(spec) { count(tally.terminating.len()) } else { 0 };
    let missing = usize::try_from(wanted - leaving - active).unwrap_or(0).min(BURST);
    if missing == 0 {
        return;
    }
    if spec.backoff_limit_per_index.is_none()
        && let Some(left) = backoff::left(&tally.ended, terms.backoff, terms.now)
    {
        plan.next = Some(left);
        return;
    }
    if is_indexed(spec) {
        start_indexes(spec, job, tally, missing, terms, plan);
    } else {
        plan.create = vec![Start::default(); missing];
    }
}

/// Pods of no index or of one that runs already, and then those missed least.
fn surplus(spec: &JobSpec, tally: &Tally, at_least: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let (mut superfluous, mut rest) = (Vec::new(), Vec::new());
    if is_indexed(spec) {
        let mut active = tally.active.clone();
        active.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let mut seen = BTreeSet::new();
        for pod in active {
            match valid_index(spec, &pod) {
                Some(index) if seen.insert(index) => rest.push(pod),
                _ => superfluous.push(pod),
            }
        }
    } else {
        rest.clone_from(&tally.active);
    }
    let more = at_least.saturating_sub(superfluous.len());
    let ranked = rest.into_iter().map(|pod| Ranked { pod, rank: 0 }).collect();
    superfluous.extend(pods_to_delete(ranked, more, now));
    superfluous.truncate(BURST);
    superfluous
}

/// The lowest indexes that neither ended nor run.
fn start_indexes(spec: &JobSpec, job: &Job, tally: &Tally, missing: usize, terms: Terms, plan: &mut Plan) {
    let mut taken: BTreeSet<i32> = tally.active.iter().filter_map(|pod| valid_index(spec, pod)).collect();
    if replaces_only_failed(spec) {
        taken.extend(tally.terminating.iter().filter_map(|pod| valid_index(spec, pod)));
    }
    let mut ended: BTreeMap<i32, Vec<Arc<Pod>>> = BTreeMap::new();
    if spec.backoff_limit_per_index.is_some() {
        for pod in &tally.ended {
            if let Some(index) = valid_index(spec, pod) {
                ended.entry(index).or_default().push(pod.clone());
            }
        }
    }
    let open = (0..spec.completions.unwrap_or(0)).filter(|index| {
        !taken.contains(index)
            && !tally.completed_indexes.contains(*index)
            && !tally.failed_indexes.contains(*index)
    });
    let mut next: Option<SignedDuration> = None;
    for index in open {
        if plan.create.len() == missing {
            break;
        }
        let before = ended.get(&index).map(Vec::as_slice).unwrap_or_default();
        if let Some(left) = backoff::left(before, terms.backoff, terms.now) {
            next = Some(next.map_or(left, |next| next.min(left)));
            continue;
        }
        let failures = spec.backoff_limit_per_index.map(|_| failures(job, before));
        plan.create.push(Start { index: Some(index), failures });
    }
    plan.next = plan.next.into_iter().chain(next).min();
}

/// Failures of an index including those of its last pod: those that counted, and those that were ignored.
fn failures(job: &Job, ended: &[Arc<Pod>]) -> (i32, i32) {
    let failed = ended.iter().filter(|pod| pod::phase(pod) != "Succeeded");
    let Some(last) = failed.max_by_key(|pod| backoff::ended_at(pod)) else {
        return (0, 0);
    };
    let (counted, ignored) = failures_before(last);
    if judge(job, last) == Verdict::Ignore {
        (counted, ignored.saturating_add(1))
    } else {
        (counted.saturating_add(1), ignored)
    }
}
