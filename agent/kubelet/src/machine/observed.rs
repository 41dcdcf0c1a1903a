//! What a worker knows of its pod's world, and how news changes it.
//!
//! In: outcomes of actions, states from the runtime, probe results. Out: the state the machine plans on.
//! News may come late or twice: a run's state never goes back (running → exited).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use xebec_network::types::PodNetwork;
use xebec_runtime::types::{ContainerId, Image};

use super::action::{StopReason, TerminationReason};
use super::backoff::{Backoff, BackoffPolicy};
use crate::admission::Rejection;

/// Where a pod is in its life.
///
/// ```text
/// Syncing ── deleted | gone | completed | deadline ──▶ Terminating ── nothing runs ──▶ Terminated
/// (not admitted) ─────────────────────────────────────────▲
///                                                                   release, last status, DELETE ──▶ (worker ends)
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Stage {
    #[default]
    Syncing,
    Terminating(TerminationReason),
    Terminated(TerminationReason),
}

/// Something that is done once and may fail.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Work<T> {
    #[default]
    Todo,
    Doing,
    Done(T),
    Failed(Failure),
}

impl<T> Work<T> {
    pub fn done(&self) -> Option<&T> {
        match self {
            Self::Done(value) => Some(value),
            _ => None,
        }
    }

    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    pub fn is_doing(&self) -> bool {
        matches!(self, Self::Doing)
    }
}

/// A try that failed, worded for the status, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
    pub at: Instant,
    pub retry_at: Instant,
    /// A changed ConfigMap or Secret may heal it: try again when one changes.
    pub heals_by_change: bool,
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub id: ContainerId,
    pub attempt: u32,
    pub image_id: String,
    pub image_name: String,
    /// Fingerprint of the container's spec at its creation.
    pub spec_hash: String,
    pub state: RunState,
}

/// A container that was made and never started is no run: the same attempt is made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    Running { started_at: Timestamp },
    Exited(Exit),
}

impl RunState {
    /// Whether `news` says more: an end after running, or that an end was an OOM kill (told apart from the end).
    fn yields_to(&self, news: &Self) -> bool {
        match (self, news) {
            (Self::Running { .. }, Self::Exited(_)) => true,
            (Self::Exited(known), Self::Exited(new)) => {
                new.reason == OOM_KILLED && known.reason != OOM_KILLED
            }
            (_, Self::Running { .. }) => false,
        }
    }
}

pub const OOM_KILLED: &str = "OOMKilled";

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: i32,
    pub signal: Option<i32>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// `finished_at` on the monotonic clock: backoff must not follow a clock that is set.
    pub at: Instant,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, …
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

/// Last settled result of each probe of the current run; `None` before its thresholds were reached once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeResults {
    pub startup: Option<bool>,
    pub liveness: Option<bool>,
    pub readiness: Option<bool>,
}

/// A stop that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub reason: StopReason,
    pub deadline: Instant,
    pub step: StopStep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopStep {
    Asked,
    PreStop,
    /// The hook ended or there is none.
    ReadyToSignal,
    Signalled,
    Killed {
        again_at: Instant,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerObserved {
    /// By attempt: the last is the current one, the others are kept for logs and `lastState`.
    pub runs: BTreeMap<u32, Run>,
    /// Restarts that the API remembers although no run is left of them.
    pub known_restarts: u32,
    pub image: Work<Image>,
    pub image_backoff: Backoff,
    /// This attempt is being created and started.
    pub starting: Option<u32>,
    pub start_failure: Option<Failure>,
    pub backoff: Backoff,
    pub probes: ProbeResults,
    pub stop: Option<Stop>,
    /// Runs that are being removed.
    pub removing: Vec<u32>,
}

impl ContainerObserved {
    pub fn current(&self) -> Option<&Run> {
        self.runs.last_key_value().map(|(_, run)| run)
    }

    pub fn previous(&self) -> Option<&Run> {
        self.runs.values().rev().nth(1)
    }

    pub fn running(&self) -> Option<&Run> {
        self.current().filter(|run| matches!(run.state, RunState::Running { .. }))
    }

    pub fn exit(&self) -> Option<&Exit> {
        match self.current()?.state {
            RunState::Exited(ref exit) => Some(exit),
            _ => None,
        }
    }

    pub fn next_attempt(&self) -> u32 {
        match self.current() {
            Some(run) => run.attempt + 1,
            None => self.known_restarts,
        }
    }

    pub fn restart_count(&self) -> u32 {
        self.current().map_or(self.known_restarts, |run| run.attempt)
    }

    /// News of a run from the runtime. True when it says something new.
    pub fn absorb(&mut self, news: Run) -> bool {
        match self.runs.get_mut(&news.attempt) {
            Some(known) if !known.state.yields_to(&news.state) => false,
            Some(known) => {
                known.state = news.state;
                true
            }
            None => {
                if self.current().is_none_or(|run| run.attempt < news.attempt) {
                    self.probes = ProbeResults::default();
                    self.stop = None;
                }
                self.runs.insert(news.attempt, news);
                true
            }
        }
    }
}

/// Everything a worker knows about its pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    pub stage: Stage,
    pub volumes: Work<()>,
    pub volumes_backoff: Backoff,
    pub network: Work<PodNetwork>,
    pub network_backoff: Backoff,
    pub containers: BTreeMap<String, ContainerObserved>,
    /// `status.startTime` on both clocks.
    pub start_time: Timestamp,
    pub active_since: Instant,
    /// The object is no longer in the API.
    pub gone: bool,
    /// Why the node did not admit it.
    pub rejection: Option<Rejection>,
    /// When the stage `Terminating` began.
    pub ending_since: Option<Instant>,
    /// No Service sends new connections here any more, or the wait for that was long enough.
    pub drain: Work<()>,
    pub release: Work<()>,
    pub release_backoff: Backoff,
    pub api_delete: Work<()>,
    pub forget: Work<()>,
}

impl Observed {
    pub fn new(start_time: Timestamp, active_since: Instant) -> Self {
        Self {
            stage: Stage::Syncing,
            volumes: Work::Todo,
            volumes_backoff: Backoff::default(),
            network: Work::Todo,
            network_backoff: Backoff::default(),
            containers: BTreeMap::new(),
            start_time,
            active_since,
            gone: false,
            rejection: None,
            ending_since: None,
            drain: Work::Todo,
            release: Work::Todo,
            release_backoff: Backoff::default(),
            api_delete: Work::Todo,
            forget: Work::Todo,
        }
    }

    pub fn container(&self, name: &str) -> Option<&ContainerObserved> {
        self.containers.get(name)
    }

    pub fn container_mut(&mut self, name: &str) -> &mut ContainerObserved {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// A ConfigMap or Secret changed: what failed for want of it may be tried again now.
    pub fn objects_changed(&mut self, now: Instant) {
        let failures = self.containers.values_mut().filter_map(|c| c.start_failure.as_mut()).chain(
            match &mut self.volumes {
                Work::Failed(failure) => Some(failure),
                _ => None,
            },
        );
        for failure in failures.filter(|f| f.heals_by_change) {
            failure.retry_at = now;
        }
    }
}

/// How long a fresh failure keeps its own reason before the status says that it is backed off.
pub const FRESH_FAILURE: Duration = Duration::from_secs(1);

/// Makes the failure of a try and moves its backoff on.
pub fn fail(
    backoff: &mut Backoff,
    policy: BackoffPolicy,
    now: Instant,
    reason: &'static str,
    message: String,
    heals_by_change: bool,
) -> Failure {
    *backoff = backoff.advanced(now, now, policy);
    Failure { reason, message, at: now, retry_at: backoff.until(now, policy), heals_by_change }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: RunState = RunState::Running { started_at: Timestamp::UNIX_EPOCH };

    fn run(attempt: u32, state: RunState) -> Run {
        Run {
            id: ContainerId(format!("id{attempt}")),
            attempt,
            image_id: String::new(),
            image_name: String::new(),
            spec_hash: String::new(),
            state,
        }
    }

    #[test]
    fn late_news_never_bring_a_run_back() {
        let mut c = ContainerObserved::default();
        let exit = |reason: &str| {
            RunState::Exited(Exit {
                code: 137,
                signal: None,
                started_at: None,
                finished_at: None,
                at: Instant::now(),
                reason: reason.into(),
                message: String::new(),
            })
        };
        assert!(c.absorb(run(0, RUNNING)));
        assert!(c.absorb(run(0, exit("Error"))));
        assert!(!c.absorb(run(0, RUNNING)));
        assert!(!c.absorb(run(0, exit("Error"))));
        assert!(c.absorb(run(0, exit("OOMKilled"))));
        assert!(!c.absorb(run(0, exit("Error"))));
        assert_eq!(c.exit().unwrap().reason, "OOMKilled");
    }

    #[test]
    fn a_new_run_begins_without_probe_results() {
        let mut c = ContainerObserved::default();
        c.absorb(run(0, RUNNING));
        c.probes.readiness = Some(true);
        c.absorb(run(1, RUNNING));
        assert_eq!(c.probes, ProbeResults::default());
        assert_eq!(c.restart_count(), 1);
    }
}
