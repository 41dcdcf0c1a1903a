//! How far a Job has come: what its pods amount to, each counted exactly once.
//!
//! In: a Job's status, its pods. Out: the counters as they are to be written, the pods that then need not be kept. Pure.
//!
//! ```text
//! pod ends, has the finalizer ──► listed in uncountedTerminatedPods ──► finalizer taken off ──► counted, not listed
//! ```
//!
//! Each step is taken only when the one before is seen to be done, so that a kill between any two counts nothing
//! twice and forgets nothing. Indexed Jobs need no list for successes: a set of indexes cannot count twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobSpec, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use crate::job::failure_policy::{Verdict, judge};
use crate::job::indexes::Indexes;
use crate::job::pods::{failures_before, index_of, is_tracked};
use crate::pod;

/// What the pods of a Job amount to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Counted for good.
    pub(crate) succeeded: i32,
    pub(crate) failed: i32,
    /// Ended, and yet to be counted.
    pub(crate) uncounted_succeeded: BTreeSet<String>,
    pub(crate) uncounted_failed: BTreeSet<String>,
    /// Indexes by how they ended; empty for Jobs without.
    pub(crate) completed_indexes: Indexes,
    pub(crate) failed_indexes: Indexes,
    /// A rule of the failure policy gives the Job up, and why.
    pub(crate) fail_job: Option<String>,
    pub(crate) active: Vec<Arc<Pod>>,
    pub(crate) terminating: Vec<Arc<Pod>>,
    /// Ended, whether counted or not.
    pub(crate) ended: Vec<Arc<Pod>>,
    /// Their finalizer may go once the status is written.
    pub(crate) untrack: Vec<Arc<Pod>>,
}

/// How a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Success,
    Failure,
}

pub(crate) fn spec(job: &Job) -> JobSpec {
    job.spec.clone().unwrap_or_default()
}

pub(crate) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// A pod is replaced when it failed, not when it begins to leave.
pub(crate) fn replaces_only_failed(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed")
}

/// How the pod ended, if it did. A pod that leaves counts as failed, unless the Job waits for its last word.
pub(crate) fn end(spec: &JobSpec, pod: &Pod) -> Option<End> {
    let nobody_will_say_more = pod.metadata.deletion_grace_period_seconds == Some(0);
    match pod::phase(pod) {
        "Succeeded" => Some(End::Success),
        "Failed" => Some(End::Failure),
        _ if pod::is_terminating(pod) && (!replaces_only_failed(spec) || nobody_will_say_more) => {
            Some(End::Failure)
        }
        _ => None,
    }
}

/// Counts.
pub(crate) fn tally(job: &Job, spec: &JobSpec, pods: &[Arc<Pod>]) -> Tally {
    let status = job.status.clone().unwrap_or_default();
    let completions = spec.completions.unwrap_or(0);
    let indexes = |text: &Option<String>| Indexes::parse(text.as_deref().unwrap_or_default(), completions);
    let mut tally = Tally {
        succeeded: status.succeeded.unwrap_or(0),
        failed: status.failed.unwrap_or(0),
        completed_indexes: indexes(&status.completed_indexes),
        failed_indexes: indexes(&status.failed_indexes),
        ..Tally::default()
    };
    tally.settle(status.uncounted_terminated_pods.unwrap_or_default(), pods);
    for pod in pods {
        tally.see(job, spec, pod);
    }
    if is_indexed(spec) {
        tally.succeeded = tally.completed_indexes.len();
    }
    tally
}

impl Tally {
    /// Listed pods that lost their finalizer, or are gone, are counted.
    fn settle(&mut self, listed: UncountedTerminatedPods, pods: &[Arc<Pod>]) {
        let tracked: BTreeMap<&str, bool> =
            pods.iter().filter_map(|pod| Some((pod.metadata.uid.as_deref()?, is_tracked(pod)))).collect();
        let waits = |uid: &String| tracked.get(uid.as_str()).copied().unwrap_or(false);
        for uid in listed.succeeded.into_iter().flatten() {
            if waits(&uid) {
                self.uncounted_succeeded.insert(uid);
            } else {
                self.succeeded = self.succeeded.saturating_add(1);
            }
        }
        for uid in listed.failed.into_iter().flatten() {
            if waits(&uid) {
                self.uncounted_failed.insert(uid);
            } else {
                self.failed = self.failed.saturating_add(1);
            }
        }
    }

    fn see(&mut self, job: &Job, spec: &JobSpec, pod: &Arc<Pod>) {
        if pod::is_terminating(pod) && !pod::is_terminal(pod) {
            self.terminating.push(pod.clone());
        } else if pod::is_active(pod) {
            self.active.push(pod.clone());
        }
        let Some(end) = end(spec, pod) else {
            return;
        };
        self.ended.push(pod.clone());
        if end == End::Failure
            && let Verdict::FailJob(why) = judge(job, pod)
        {
            self.fail_job.get_or_insert(why);
        }
        if end == End::Success && is_indexed(spec) {
            // A set counts nothing twice, whoever let go of the pod.
            self.completed_indexes.extend(valid_index(spec, pod));
        }
        if !is_tracked(pod) {
            return;
        }
        self.untrack.push(pod.clone());
        match end {
            End::Success if is_indexed(spec) => {}
            End::Success => self.uncounted_succeeded.extend(pod.metadata.uid.clone()),
            End::Failure => self.failure(job, spec, pod),
        }
    }

    fn failure(&mut self, job: &Job, spec: &JobSpec, pod: &Pod) {
        let index = valid_index(spec, pod);
        if is_indexed(spec) && index.is_none() {
            return;
        }
        let verdict = judge(job, pod);
        if verdict == Verdict::Ignore {
            return;
        }
        self.uncounted_failed.extend(pod.metadata.uid.clone());
        if let (Some(limit), Some(index)) = (spec.backoff_limit_per_index, index) {
            let exhausted = failures_before(pod).0 >= limit;
            let given_up = verdict == Verdict::FailIndex;
            if (exhausted || given_up) && !self.completed_indexes.contains(index) {
                self.failed_indexes.insert(index);
            }
        }
    }

    /// Successes, counted or not.
    pub(crate) fn all_succeeded(&self) -> i32 {
        self.succeeded.saturating_add(count(self.uncounted_succeeded.len()))
    }

    /// Failures, counted or not.
    pub(crate) fn all_failed(&self) -> i32 {
        self.failed.saturating_add(count(self.uncounted_failed.len()))
    }

    /// Every pod that ended is counted for good.
    pub(crate) fn is_settled(&self) -> bool {
        self.uncounted_succeeded.is_empty() && self.uncounted_failed.is_empty() && self.untrack.is_empty()
    }

    pub(crate) fn uncounted(&self) -> UncountedTerminatedPods {
        let list =
            |uids: &BTreeSet<String>| (!uids.is_empty()).then(|| uids.iter().cloned().collect::<Vec<_>>());
        UncountedTerminatedPods {
            succeeded: list(&self.uncounted_succeeded),
            failed: list(&self.uncounted_failed),
        }
    }
}

/// The pod's index, if the Job has such an index.
pub(crate) fn valid_index(spec: &JobSpec, pod: &Pod) -> Option<i32> {
    let completions = spec.completions.filter(|_| is_indexed(spec))?;
    index_of(pod).filter(|index| *index < completions)
}

pub(crate) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
