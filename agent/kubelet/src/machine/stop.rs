//! Stopping containers: hook, signal, kill at the end of the grace; sidecars after the others, last one first.
//!
//! Pure. In: the observed stops. Out: the next step of each.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::action::{Action, StopReason, TerminationReason};
use super::observed::{ContainerObserved, Observed, Stage, StopStep};
use crate::pod::{self, ContainerKind, ContainerSpec};

/// What a process has at least between its signal and its end, also when a hook used up the grace.
const MINIMUM_AFTER_HOOK: Duration = Duration::from_secs(2);
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
    let grace = pod::grace_period(pod);
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
                grace,
            }),
            Some(stop) if stop.deadline > now + grace => actions
                .push(Action::HurryStop { container: spec.container.name.clone(), deadline: now + grace }),
            Some(_) => actions.extend(plan_stop(spec, container, now)),
        }
        true
    };
    let mut others_run = false;
    for spec in pod::containers(pod).filter(|c| c.kind != ContainerKind::Sidecar) {
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
    let busy = observed.volumes.is_doing() || observed.network.is_doing();
    if !waiting && !others_run && !busy {
        actions.push(Action::Terminated);
    }
    actions
}

fn stronger(reason: &TerminationReason, pod: &Pod, observed: &Observed) -> Option<TerminationReason> {
    match reason {
        TerminationReason::Gone => None,
        _ if observed.gone => Some(TerminationReason::Gone),
        TerminationReason::Deleted => None,
        _ if pod::is_deleting(pod) => Some(TerminationReason::Deleted),
        TerminationReason::Completed | TerminationReason::DeadlineExceeded => None,
    }
}

/// The next step of a container's stop.
pub(super) fn plan_stop(spec: ContainerSpec<'_>, seen: &ContainerObserved, now: Instant) -> Option<Action> {
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
    deadline.max(now + MINIMUM_AFTER_HOOK)
}
