//! Stopping containers: hook, signal, kill at the end of the grace; sidecars after the others, last one first.
//!
//! Pure. In: the observed stops. Out: the next step of each.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::action::{Action, StopReason, TerminationReason};
use super::observed::{ContainerObserved, Observed, Stage, StopStep, Work};
use crate::pod::{self, ContainerKind, ContainerSpec};

/// What a process has at least between its signal and its end, also when a hook or others used up the grace.
const MINIMUM_GRACE: Duration = Duration::from_secs(2);
/// Deleted pods wait at most this long for Services to turn away from them.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// A kill that shows no effect is repeated.
pub const KILL_AGAIN: Duration = Duration::from_secs(10);

pub(super) fn plan_terminating(pod: &Pod, observed: &Observed, now: Instant) -> Vec<Action> {
    let mut actions = Vec::new();
    // A completed pod that is deleted meanwhile, or a deleted one that vanishes: the reason follows.
    if let Stage::Terminating(reason) = &observed.stage
        && let Some(stronger) = stronger(reason, pod, observed)
    {
        return vec![Action::Terminate(stronger)];
    }
    let whole = pod::grace_period(pod);
    let spent = observed.ending_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    // What stops later, as sidecars do, has what the others left of the grace.
    let rest = whole.saturating_sub(spent).max(whole.min(MINIMUM_GRACE));
    let may_signal = !must_drain(pod, observed);
    let none = ContainerObserved::default();
    let seen = |spec: &ContainerSpec<'_>| observed.container(&spec.container.name).unwrap_or(&none);
    let mut waiting = false;
    let mut stop = |spec: ContainerSpec<'_>, actions: &mut Vec<Action>| {
        let container = seen(&spec);
        if container.image.is_doing() {
            actions.push(Action::AbortPull { container: spec.container.name.clone() });
        }
        if container.starting.is_some() {
            // It shows itself as running or ended in a moment.
            waiting = true;
            return true;
        }
        if container.running().is_none() {
            return false;
        }
        waiting = true;
        match &container.stop {
            None => actions.push(Action::Stop {
                container: spec.container.name.clone(),
                reason: StopReason::PodEnds,
                grace: rest,
            }),
            Some(stop) if stop.deadline > now + whole => actions
                .push(Action::HurryStop { container: spec.container.name.clone(), deadline: now + whole }),
            Some(_) => actions.extend(plan_stop(spec, container, now, may_signal)),
        }
        true
    };
    let mut others_run = false;
    let ephemeral = pod::ephemeral(pod);
    for spec in pod::with_ephemeral(pod, &ephemeral).filter(|c| c.kind != ContainerKind::Sidecar) {
        others_run |= stop(spec, &mut actions);
    }
    for spec in pod::containers(pod).rev().filter(|c| c.kind == ContainerKind::Sidecar) {
        if others_run {
            if observed.container(&spec.container.name).is_some_and(|c| c.running().is_some()) {
                break;
            }
            continue;
        }
        others_run |= stop(spec, &mut actions);
    }
    if waiting && !may_signal && matches!(observed.drain, Work::Todo) {
        actions.push(Action::Drain);
    }
    let busy = observed.volumes.is_doing() || observed.network.is_doing();
    if !waiting && !others_run && !busy {
        actions.push(Action::Terminated);
    }
    actions
}

/// A process closes its listener at its signal: before that, Services must have turned away from it. Hooks need not
/// wait. Who forces a deletion does not want to wait either, and nobody reads the slices for a pod that is gone.
fn must_drain(pod: &Pod, observed: &Observed) -> bool {
    observed.stage == Stage::Terminating(TerminationReason::Deleted)
        && observed.drain.done().is_none()
        && pod::grace_period(pod) > DRAIN_LIMIT
}

fn stronger(reason: &TerminationReason, pod: &Pod, observed: &Observed) -> Option<TerminationReason> {
    match reason {
        TerminationReason::Gone => None,
        _ if observed.gone => Some(TerminationReason::Gone),
        TerminationReason::Deleted => None,
        _ if pod::is_deleting(pod) => Some(TerminationReason::Deleted),
        TerminationReason::Completed | TerminationReason::DeadlineExceeded | TerminationReason::Rejected => {
            None
        }
    }
}

/// The next step of a container's stop. Without `may_signal` it goes no further than its hook.
pub(super) fn plan_stop(
    spec: ContainerSpec<'_>,
    seen: &ContainerObserved,
    now: Instant,
    may_signal: bool,
) -> Option<Action> {
    let stop = seen.stop.as_ref()?;
    let run = seen.running()?;
    let container = spec.container.name.clone();
    let attempt = run.attempt;
    let overdue = stop.deadline <= now;
    let kill = || Action::Signal { container: container.clone(), attempt, kill: true };
    match stop.step {
        StopStep::Asked if has_pre_stop(spec) && !overdue => {
            Some(Action::PreStop { container, attempt, deadline: stop.deadline })
        }
        // The end of the drain wakes the machine.
        StopStep::Asked | StopStep::ReadyToSignal if !may_signal && !overdue => None,
        StopStep::Asked | StopStep::ReadyToSignal => Some(Action::Signal { container, attempt, kill: false }),
        StopStep::PreStop => None,
        StopStep::Signalled if overdue => Some(kill()),
        StopStep::Signalled => Some(Action::WakeAt(stop.deadline)),
        StopStep::Killed { again_at } if again_at <= now => Some(kill()),
        StopStep::Killed { again_at } => Some(Action::WakeAt(again_at)),
    }
}

fn has_pre_stop(spec: ContainerSpec<'_>) -> bool {
    spec.container.lifecycle.as_ref().is_some_and(|l| l.pre_stop.is_some())
}

/// When the kill comes after a hook that ended at `now`.
pub fn deadline_after_hook(deadline: Instant, now: Instant) -> Instant {
    deadline.max(now + MINIMUM_GRACE)
}
