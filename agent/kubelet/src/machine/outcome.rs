//! How actions change what is observed: when they begin, and when they end.
//!
//! Pure. In: the action begun or its [`Outcome`]. Out: the next [`Observed`].

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use xebec_network::types::PodNetwork;
use xebec_runtime::types::Image;

use super::action::{Action, StopReason};
use super::backoff::BackoffPolicy;
use super::observed::{
    ContainerObserved, Exit, Observed, ProbeResults, Run, RunState, Stage, Stop, StopStep, Work, fail,
};
use super::stop::{KILL_AGAIN, deadline_after_hook};

/// What came of an action.
#[derive(Debug)]
pub enum Outcome {
    Volumes(Result<(), Trouble>),
    Network(Result<PodNetwork, Trouble>),
    Image { container: String, result: Result<Image, Trouble> },
    Started { container: String, attempt: u32, result: Result<Run, StartFailure> },
    Drained,
    PreStopEnded { container: String, attempt: u32 },
    Signalled { container: String, attempt: u32, sent: bool },
    Removed { container: String, attempt: u32, removed: bool },
    Released(Result<(), Trouble>),
    DeletedFromApi(Result<(), Trouble>),
    Forgotten(Result<(), Trouble>),
}

/// A failure in the status's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub reason: &'static str,
    pub message: String,
    /// See [`super::observed::Failure::heals_by_change`].
    pub heals_by_change: bool,
}

impl Trouble {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), heals_by_change: false }
    }
}

/// Why a container did not start.
#[derive(Debug)]
pub enum StartFailure {
    /// Nothing was made: the same attempt is tried again.
    NotMade(Trouble),
    /// It was made and did not start: that counts as a run that failed.
    NotStarted { run: Run, trouble: Trouble },
    /// It runs, its postStart hook failed: it is stopped.
    PostStart { run: Run, trouble: Trouble, grace: Duration },
}

impl Observed {
    /// Marks `action` as under way.
    pub fn begin(&mut self, action: &Action, now: Instant) {
        match action {
            Action::Terminate(reason) => {
                self.stage = Stage::Terminating(reason.clone());
                self.ending_since.get_or_insert(now);
            }
            Action::Terminated => {
                if let Stage::Terminating(reason) = &self.stage {
                    self.stage = Stage::Terminated(reason.clone());
                }
            }
            Action::MountVolumes => self.volumes = Work::Doing,
            Action::AttachNetwork => self.network = Work::Doing,
            Action::EnsureImage { container } => self.container_mut(container).image = Work::Doing,
            Action::AbortPull { container } => self.container_mut(container).image = Work::Todo,
            Action::Start { container, attempt } => {
                let seen = self.container_mut(container);
                if let Some(exit) = seen.exit() {
                    seen.backoff = seen.backoff.advanced(exit.at, now, BackoffPolicy::CRASH);
                }
                seen.starting = Some(*attempt);
            }
            Action::Stop { container, reason, grace } => {
                let stop = Stop { reason: reason.clone(), deadline: now + *grace, step: StopStep::Asked };
                self.container_mut(container).stop = Some(stop);
            }
            Action::HurryStop { container, deadline } => {
                if let Some(stop) = &mut self.container_mut(container).stop {
                    stop.deadline = stop.deadline.min(*deadline);
                }
            }
            Action::Drain => self.drain = Work::Doing,
            Action::PreStop { container, .. } => self.step(container, StopStep::PreStop),
            Action::Signal { container, kill: false, .. } => self.step(container, StopStep::Signalled),
            Action::Signal { container, kill: true, .. } => {
                self.step(container, StopStep::Killed { again_at: now + KILL_AGAIN });
            }
            Action::Remove { container, attempt } => self.container_mut(container).removing.push(*attempt),
            Action::Release => self.release = Work::Doing,
            Action::DeleteFromApi => self.api_delete = Work::Doing,
            Action::Forget => self.forget = Work::Doing,
            Action::WakeAt(_) => {}
        }
    }

    fn step(&mut self, container: &str, step: StopStep) {
        if let Some(stop) = &mut self.container_mut(container).stop {
            stop.step = step;
        }
    }

    /// Takes in what came of an action.
    pub fn finish(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Volumes(result) => {
                self.volumes = settle(result, &mut self.volumes_backoff, BackoffPolicy::QUICK, now);
            }
            Outcome::Network(result) => {
                self.network = settle(result, &mut self.network_backoff, BackoffPolicy::QUICK, now);
            }
            Outcome::Image { container, result } => {
                let seen = self.container_mut(&container);
                // An aborted pull may still report.
                if seen.image.is_doing() {
                    seen.image = settle(result, &mut seen.image_backoff, BackoffPolicy::CRASH, now);
                }
            }
            Outcome::Started { container, attempt, result } => {
                self.container_mut(&container).started(attempt, result, now);
            }
            Outcome::Drained => self.drain = Work::Done(()),
            Outcome::PreStopEnded { container, attempt } => {
                let seen = self.container_mut(&container);
                let current = seen.current().is_some_and(|run| run.attempt == attempt);
                if let Some(stop) = seen.stop.as_mut().filter(|s| current && s.step == StopStep::PreStop) {
                    stop.step = StopStep::ReadyToSignal;
                    stop.deadline = deadline_after_hook(stop.deadline, now);
                }
            }
            Outcome::Signalled { container, attempt, sent } => {
                let seen = self.container_mut(&container);
                let current = seen.current().is_some_and(|run| run.attempt == attempt);
                // A signal that was not sent is followed by the kill in a moment, not at the end of the grace.
                if let Some(stop) = seen.stop.as_mut().filter(|_| current && !sent) {
                    let soon = now + Duration::from_secs(1);
                    match &mut stop.step {
                        StopStep::Killed { again_at } => *again_at = soon.min(*again_at),
                        StopStep::Signalled => stop.deadline = stop.deadline.min(soon),
                        StopStep::Asked | StopStep::PreStop | StopStep::ReadyToSignal => {}
                    }
                }
            }
            Outcome::Removed { container, attempt, removed } => {
                let seen = self.container_mut(&container);
                if removed {
                    seen.runs.remove(&attempt);
                    seen.removing.retain(|a| *a != attempt);
                }
            }
            Outcome::Released(result) => {
                self.release = settle(result, &mut self.release_backoff, BackoffPolicy::QUICK, now);
            }
            Outcome::DeletedFromApi(result) => {
                self.api_delete = settle(result, &mut self.release_backoff, BackoffPolicy::QUICK, now);
            }
            Outcome::Forgotten(result) => {
                self.forget = settle(result, &mut self.release_backoff, BackoffPolicy::QUICK, now);
            }
        }
    }
}

fn settle<T>(
    result: Result<T, Trouble>,
    backoff: &mut super::backoff::Backoff,
    policy: BackoffPolicy,
    now: Instant,
) -> Work<T> {
    match result {
        Ok(value) => Work::Done(value),
        Err(t) => Work::Failed(fail(backoff, policy, now, t.reason, t.message, t.heals_by_change)),
    }
}

impl ContainerObserved {
    fn started(&mut self, attempt: u32, result: Result<Run, StartFailure>, now: Instant) {
        if self.starting != Some(attempt) {
            return;
        }
        self.starting = None;
        self.start_failure = None;
        // The image is looked at again for the next run: its pull policy may ask for it.
        self.image = Work::Todo;
        match result {
            Ok(run) => {
                self.absorb(run);
            }
            Err(StartFailure::NotMade(t)) => {
                let retry_at = now + BackoffPolicy::CRASH.initial;
                self.start_failure = Some(super::observed::Failure {
                    reason: t.reason,
                    message: t.message,
                    at: now,
                    retry_at,
                    heals_by_change: t.heals_by_change,
                });
            }
            Err(StartFailure::NotStarted { run, trouble }) => {
                self.absorb(run);
                self.start_failure = Some(short_failure(trouble, now));
            }
            Err(StartFailure::PostStart { run, trouble, grace }) => {
                self.absorb(run);
                if self.running().is_some() {
                    self.stop = Some(Stop {
                        reason: StopReason::PostStartFailed,
                        deadline: now + grace,
                        step: StopStep::Asked,
                    });
                }
                self.start_failure = Some(short_failure(trouble, now));
            }
        }
    }

    /// A run exited: what belonged to it ends with it.
    pub fn settle_exit(&mut self) {
        if self.exit().is_some() {
            self.stop = None;
            self.probes = ProbeResults::default();
        }
    }
}

/// Worded for the status only; the crash backoff decides when the next run may begin.
fn short_failure(trouble: Trouble, now: Instant) -> super::observed::Failure {
    super::observed::Failure {
        reason: trouble.reason,
        message: trouble.message,
        at: now,
        retry_at: now,
        heals_by_change: false,
    }
}

/// The end of a run that was made and could not be started.
pub fn start_error(message: &str, wall: Timestamp, now: Instant) -> RunState {
    RunState::Exited(Exit {
        code: 128,
        signal: None,
        // It never began; upstream shows the beginning of time.
        started_at: Some(Timestamp::UNIX_EPOCH),
        finished_at: Some(wall),
        at: now,
        reason: "StartError".to_owned(),
        message: message.to_owned(),
    })
}
