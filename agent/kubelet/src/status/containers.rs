//! `containerStatuses`, `initContainerStatuses` and `ephemeralContainerStatuses`.
//!
//! Pure. In: what is observed of each container. Out: its state, last state, readiness and restart count.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    Pod, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Now, StatusContext};
use crate::machine::observed::{ContainerObserved, FRESH_FAILURE, Failure, Observed, Run, RunState, Stage};
use crate::pod::{self, ContainerKind, ContainerSpec, PodRef};

/// Statuses in the order of the spec; `None` where the spec has no such containers.
#[derive(Debug, Default)]
pub(super) struct ContainerStatuses {
    pub(super) init: Option<Vec<ContainerStatus>>,
    pub(super) main: Option<Vec<ContainerStatus>>,
    pub(super) ephemeral: Option<Vec<ContainerStatus>>,
}

impl ContainerStatuses {
    pub(super) fn of(&self, name: &str) -> Option<&ContainerStatus> {
        self.main.iter().chain(self.init.iter()).flatten().find(|s| s.name == name)
    }

    /// Nothing runs any more: what has not said how it ended is written off.
    pub(super) fn end_all(&mut self, now: Now) {
        // Others than main ones whose turn never came keep waiting.
        let main = self.main.iter_mut().flatten().map(|s| (s, true));
        let others = self.init.iter_mut().chain(self.ephemeral.iter_mut()).flatten().map(|s| (s, false));
        for (status, main) in main.chain(others) {
            let state = status.state.take().unwrap_or_default();
            let never_ran = state.waiting.is_some() && status.container_id.is_none();
            status.state = Some(if state.terminated.is_some() || (never_ran && !main) {
                state
            } else if let Some(last) =
                status.last_state.clone().filter(|l| l.terminated.is_some() && state.running.is_none())
            {
                last
            } else {
                terminated(ContainerStateTerminated {
                    exit_code: 137,
                    reason: Some("ContainerStatusUnknown".to_owned()),
                    message: Some(
                        "The container could not be located when the pod was terminated".to_owned(),
                    ),
                    finished_at: state.running.is_some().then_some(Time(now.wall)),
                    ..ContainerStateTerminated::default()
                })
            });
            status.ready = status.ready && !main;
            status.started = Some(false);
        }
    }
}

pub(super) fn generate(
    pod: &Pod,
    observed: &Observed,
    previous: &PodStatus,
    context: &StatusContext,
    now: Now,
) -> ContainerStatuses {
    let has_init = pod::containers(pod).any(|c| c.kind != ContainerKind::Main);
    let ephemeral = pod::ephemeral(pod);
    let default_reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let none = ContainerObserved::default();
    let mut statuses = ContainerStatuses::default();
    for spec in pod::with_ephemeral(pod, &ephemeral) {
        let (list, before) = match spec.kind {
            ContainerKind::Main => (&mut statuses.main, &previous.container_statuses),
            ContainerKind::Ephemeral => (&mut statuses.ephemeral, &previous.ephemeral_container_statuses),
            ContainerKind::Init | ContainerKind::Sidecar => {
                (&mut statuses.init, &previous.init_container_statuses)
            }
        };
        let before = before.iter().flatten().find(|s| s.name == spec.container.name);
        let seen = observed.container(&spec.container.name).unwrap_or(&none);
        let status = match before {
            // Its records are gone and it will not run again: what was said last stays true.
            Some(before) if seen.runs.is_empty() && is_history(before, observed, spec.kind) => before.clone(),
            _ => one(pod, spec, seen, before, default_reason, context, now),
        };
        list.get_or_insert_default().push(status);
    }
    statuses
}

fn is_history(before: &ContainerStatus, observed: &Observed, kind: ContainerKind) -> bool {
    let terminated = before.state.as_ref().is_some_and(|s| s.terminated.is_some());
    let once = matches!(kind, ContainerKind::Init | ContainerKind::Ephemeral);
    terminated && (once || observed.stage != Stage::Syncing)
}

fn one(
    pod: &Pod,
    spec: ContainerSpec<'_>,
    seen: &ContainerObserved,
    before: Option<&ContainerStatus>,
    default_reason: &str,
    context: &StatusContext,
    now: Now,
) -> ContainerStatus {
    let container = spec.container;
    let run = seen.current();
    let mut state = run.map(state_of);
    let mut last_state = seen.previous().map(state_of);
    let started = crate::machine::is_started(spec, seen);
    let waits = waiting(pod, spec, seen, context, now);
    if seen.running().is_none() {
        match (waits, state.take()) {
            (Some(waiting), ended) => {
                last_state = ended.or(last_state);
                state = Some(waiting_state(waiting.0, waiting.1));
            }
            (None, ended) => state = ended,
        }
    }
    let last_state = last_state.or_else(|| {
        // After a reboot the API still knows how the run before ended.
        let before = before.filter(|_| seen.runs.len() < 2)?;
        let ended = before.state.as_ref().filter(|s| s.terminated.is_some() && run.is_none());
        ended.or(before.last_state.as_ref().filter(|s| s.terminated.is_some())).cloned()
    });
    let ready = match spec.kind {
        ContainerKind::Init => seen.exit().is_some_and(|exit| exit.code == 0),
        ContainerKind::Ephemeral => false,
        _ => started && (container.readiness_probe.is_none() || seen.probes.readiness == Some(true)),
    };
    let state = state.unwrap_or_else(|| waiting_state(default_reason.to_owned(), None));
    ContainerStatus {
        name: container.name.clone(),
        image: run
            .map(|run| run.image_name.clone())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| container.image.clone().unwrap_or_default()),
        image_id: run.map(|run| run.image_id.clone()).unwrap_or_default(),
        container_id: run.map(container_id).filter(|id| !id.is_empty()),
        ready,
        started: Some(match spec.kind {
            ContainerKind::Init | ContainerKind::Ephemeral => false,
            ContainerKind::Sidecar | ContainerKind::Main => started,
        }),
        restart_count: i32::try_from(seen.restart_count()).unwrap_or(i32::MAX),
        resources: container.resources.clone().filter(|_| state.running.is_some()),
        allocated_resources: container
            .resources
            .as_ref()
            .and_then(|r| r.requests.clone())
            .filter(|_| state.running.is_some()),
        volume_mounts: container.volume_mounts.as_ref().filter(|_| run.is_some()).map(|mounts| {
            mounts
                .iter()
                .map(|m| VolumeMountStatus {
                    name: m.name.clone(),
                    mount_path: m.mount_path.clone(),
                    read_only: m.read_only.filter(|r| *r),
                    recursive_read_only: m.read_only.filter(|r| *r).map(|_| "Disabled".to_owned()),
                    ..VolumeMountStatus::default()
                })
                .collect()
        }),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn container_id(run: &Run) -> String {
    if run.id.0.is_empty() { String::new() } else { format!("containerd://{}", run.id.0) }
}

fn waiting_state(reason: String, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason), message }),
        ..ContainerState::default()
    }
}

fn terminated(state: ContainerStateTerminated) -> ContainerState {
    ContainerState { terminated: Some(state), ..ContainerState::default() }
}

fn state_of(run: &Run) -> ContainerState {
    match &run.state {
        RunState::Running { started_at } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*started_at)) }),
            ..ContainerState::default()
        },
        RunState::Exited(exit) => terminated(ContainerStateTerminated {
            container_id: Some(container_id(run)).filter(|id| !id.is_empty()),
            exit_code: exit.code,
            signal: exit.signal.filter(|s| *s != 0),
            reason: Some(exit.reason.clone()),
            message: Some(exit.message.clone()).filter(|m| !m.is_empty()),
            started_at: exit.started_at.map(Time),
            finished_at: exit.finished_at.map(Time),
        }),
    }
}

/// Reason and message of a container that is to run and does not.
fn waiting(
    pod: &Pod,
    spec: ContainerSpec<'_>,
    seen: &ContainerObserved,
    context: &StatusContext,
    now: Now,
) -> Option<(String, Option<String>)> {
    let fresh = |failure: &Failure| now.mono < failure.at + FRESH_FAILURE;
    if let Some(failure) = seen.image.failure() {
        // ErrImageNeverPull is a fact, not a try that is backed off.
        if fresh(failure) || failure.reason == "ErrImageNeverPull" {
            return Some((failure.reason.to_owned(), Some(failure.message.clone())));
        }
        let image = spec.container.image.as_deref().unwrap_or_default();
        let message = format!("Back-off pulling image \"{image}\": {}: {}", failure.reason, failure.message);
        return Some(("ImagePullBackOff".to_owned(), Some(message)));
    }
    if let Some(failure) = &seen.start_failure
        && (fresh(failure) || seen.exit().is_none())
    {
        return Some((failure.reason.to_owned(), Some(failure.message.clone())));
    }
    let exit = seen.exit().filter(|exit| pod::restarts(pod, spec, exit.code))?;
    let until = seen.backoff.until(exit.at, context.crash_backoff);
    if until <= now.mono {
        return None;
    }
    let delay = go_duration(seen.backoff.delay()?);
    let message = format!(
        "back-off {delay} restarting failed container={} pod={}",
        spec.container.name,
        PodRef::of(pod)
    );
    Some(("CrashLoopBackOff".to_owned(), Some(message)))
}

/// `1m20s`, as Go prints it.
fn go_duration(duration: std::time::Duration) -> String {
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
    if minutes == 0 { format!("{seconds}s") } else { format!("{minutes}m{seconds}s") }
}
