//! Desired pod and observed world → the next actions.
//!
//! Pure. Order of life: volumes ∥ network ∥ image of what starts next → init containers one by one, sidecars among
//! them → main containers in the order of the spec, each when the one before it was started → restarts with backoff.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::Instant;

use super::action::{Action, StopReason, TerminationReason};
use super::backoff::BackoffPolicy;
use super::observed::{ContainerObserved, Observed, ProbeKind, Stage, Work};
use super::stop;
use crate::pod::{self, ContainerKind, ContainerSpec};

/// What is to be done now. Actions under way are not repeated; [`Action::WakeAt`] names the next moment that matters.
pub fn plan(pod: &Pod, observed: &Observed, now: Instant) -> Vec<Action> {
    let mut actions = match &observed.stage {
        Stage::Syncing => match termination(pod, observed, now) {
            Some(reason) => vec![Action::Terminate(reason)],
            None => plan_syncing(pod, observed, now),
        },
        Stage::Terminating(_) => stop::plan_terminating(pod, observed, now),
        Stage::Terminated(_) => plan_terminated(pod, observed, now),
    };
    let first = actions.iter().filter_map(wake_time).min();
    actions.retain(|action| wake_time(action).is_none());
    actions.extend(first.map(Action::WakeAt));
    actions
}

fn wake_time(action: &Action) -> Option<Instant> {
    match action {
        Action::WakeAt(at) => Some(*at),
        _ => None,
    }
}

fn termination(pod: &Pod, observed: &Observed, now: Instant) -> Option<TerminationReason> {
    if observed.gone {
        return Some(TerminationReason::Gone);
    }
    if pod::is_deleting(pod) {
        return Some(TerminationReason::Deleted);
    }
    if deadline(pod, observed).is_some_and(|at| at <= now) {
        return Some(TerminationReason::DeadlineExceeded);
    }
    is_complete(pod, observed).then_some(TerminationReason::Completed)
}

fn deadline(pod: &Pod, observed: &Observed) -> Option<Instant> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    Some(observed.active_since + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// All main containers ended for good, or an init container did that was not to fail.
pub(crate) fn is_complete(pod: &Pod, observed: &Observed) -> bool {
    let ended = |spec: ContainerSpec<'_>| {
        observed
            .container(&spec.container.name)
            .and_then(ContainerObserved::exit)
            .filter(|exit| !pod::restarts(pod, spec, exit.code))
    };
    let mut mains = pod::containers(pod).filter(|c| c.kind == ContainerKind::Main).peekable();
    if mains.peek().is_some() && mains.all(|c| ended(c).is_some()) {
        return true;
    }
    !mains_began(pod, observed)
        && pod::containers(pod)
            .filter(|c| c.kind == ContainerKind::Init)
            .any(|c| ended(c).is_some_and(|exit| exit.code != 0))
}

/// A main container has run: initialisation is over for good.
pub(crate) fn mains_began(pod: &Pod, observed: &Observed) -> bool {
    pod::containers(pod)
        .filter(|c| c.kind == ContainerKind::Main)
        .any(|c| observed.container(&c.container.name).is_some_and(|c| !c.runs.is_empty()))
}

/// Running and past its startup probe.
pub(crate) fn is_started(spec: ContainerSpec<'_>, seen: &ContainerObserved) -> bool {
    seen.running().is_some()
        && seen.starting.is_none()
        && (spec.container.startup_probe.is_none() || seen.probes.startup == Some(true))
}

fn plan_syncing(pod: &Pod, observed: &Observed, now: Instant) -> Vec<Action> {
    let mut actions = Vec::new();
    actions.extend(deadline(pod, observed).map(Action::WakeAt));
    actions.extend(attempt(&observed.volumes, Action::MountVolumes, now));
    actions.extend(attempt(&observed.network, Action::AttachNetwork, now));
    let none = ContainerObserved::default();
    let ephemeral = pod::ephemeral(pod);
    for spec in pod::with_ephemeral(pod, &ephemeral) {
        let seen = observed.container(&spec.container.name).unwrap_or(&none);
        actions.extend(old_runs(spec, seen));
        actions.extend(stop_if_unwell(pod, spec, seen));
        actions.extend(stop::plan_stop(spec, seen, now, true));
    }
    plan_starts(pod, &ephemeral, observed, now, &mut actions);
    actions
}

/// Begins work that is to do, or again when its time has come.
pub(crate) fn attempt<T>(work: &Work<T>, action: Action, now: Instant) -> Option<Action> {
    match work {
        Work::Todo => Some(action),
        Work::Failed(failure) if failure.retry_at <= now => Some(action),
        Work::Failed(failure) => Some(Action::WakeAt(failure.retry_at)),
        Work::Doing | Work::Done(_) => None,
    }
}

/// Of ended runs the current and the one before it are kept.
fn old_runs(spec: ContainerSpec<'_>, seen: &ContainerObserved) -> Vec<Action> {
    let kept = 2;
    let old = seen.runs.len().saturating_sub(kept);
    seen.runs
        .keys()
        .take(old)
        .filter(|attempt| !seen.removing.contains(attempt))
        .map(|attempt| Action::Remove { container: spec.container.name.clone(), attempt: *attempt })
        .collect()
}

fn stop_if_unwell(pod: &Pod, spec: ContainerSpec<'_>, seen: &ContainerObserved) -> Option<Action> {
    let run = seen.running()?;
    if seen.stop.is_some() || seen.starting.is_some() {
        return None;
    }
    let failed = |kind: ProbeKind, result: Option<bool>| {
        let probe = match kind {
            ProbeKind::Startup => spec.container.startup_probe.as_ref(),
            ProbeKind::Liveness => spec.container.liveness_probe.as_ref(),
            ProbeKind::Readiness => None,
        }?;
        (result == Some(false)).then_some(probe.termination_grace_period_seconds)
    };
    let (reason, grace) = if let Some(grace) = failed(ProbeKind::Startup, seen.probes.startup) {
        (StopReason::StartupFailed, grace)
    } else if let Some(grace) = failed(ProbeKind::Liveness, seen.probes.liveness) {
        (StopReason::LivenessFailed, grace)
    } else if !run.spec_hash.is_empty() && run.spec_hash != pod::spec_hash(spec.container) {
        (StopReason::SpecChanged, None)
    } else {
        return None;
    };
    let container = spec.container.name.clone();
    Some(Action::Stop { container, reason, grace: pod::container_grace_period(pod, grace) })
}

/// Containers that may start now, in order.
fn startable<'a>(pod: &'a Pod, ephemeral: &'a [Container], observed: &Observed) -> Vec<ContainerSpec<'a>> {
    let none = ContainerObserved::default();
    let seen = |spec: &ContainerSpec<'_>| observed.container(&spec.container.name).unwrap_or(&none);
    let began = mains_began(pod, observed);
    let mut initialising = false;
    let mut out = Vec::new();
    for spec in pod::with_ephemeral(pod, ephemeral) {
        let container = seen(&spec);
        match spec.kind {
            ContainerKind::Init if began || initialising => {}
            ContainerKind::Init => {
                if container.exit().is_none_or(|exit| exit.code != 0) {
                    initialising = true;
                    out.push(spec);
                }
            }
            // A sidecar that ran comes back whatever stage its pod is in; a new one waits for its turn.
            ContainerKind::Sidecar if initialising && container.runs.is_empty() => {}
            ContainerKind::Sidecar => {
                out.push(spec);
                initialising |= !began && !is_started(spec, container);
            }
            ContainerKind::Main if initialising => {}
            ContainerKind::Ephemeral if container.known_restarts > 0 && container.runs.is_empty() => {}
            ContainerKind::Main | ContainerKind::Ephemeral => out.push(spec),
        }
    }
    out.retain(|spec| {
        let container = seen(spec);
        container.running().is_none()
            && container.exit().is_none_or(|exit| pod::restarts(pod, *spec, exit.code))
    });
    out
}

fn plan_starts(
    pod: &Pod,
    ephemeral: &[Container],
    observed: &Observed,
    now: Instant,
    actions: &mut Vec<Action>,
) {
    if observed.containers.values().any(|c| c.starting.is_some()) {
        // One at a time: a postStart hook of the first holds the second back.
        return;
    }
    let (debug, ordered): (Vec<_>, Vec<_>) = startable(pod, ephemeral, observed)
        .into_iter()
        .partition(|spec| spec.kind == ContainerKind::Ephemeral);
    // Whoever debugs a pod does not wait for its init containers.
    if !start_first(&ordered, observed, now, actions) {
        start_first(&debug, observed, now, actions);
    }
}

/// Starts the first of `list` that can; true when one does. What it waits for is begun.
fn start_first(
    list: &[ContainerSpec<'_>],
    observed: &Observed,
    now: Instant,
    actions: &mut Vec<Action>,
) -> bool {
    let placed = observed.volumes.done().is_some() && observed.network.done().is_some();
    let none = ContainerObserved::default();
    for spec in list {
        let seen = observed.container(&spec.container.name).unwrap_or(&none);
        let container = spec.container.name.clone();
        if let Some(until) = not_before(seen).filter(|until| *until > now) {
            actions.push(Action::WakeAt(until));
            actions.extend(reason_turns(seen, now));
            continue;
        }
        match &seen.image {
            Work::Done(_) if placed => {
                actions.push(Action::Start { container, attempt: seen.next_attempt() });
                return true;
            }
            // Its turn has come but it cannot start yet: the ones after it wait, so that order holds.
            Work::Done(_) | Work::Doing => return false,
            image @ (Work::Todo | Work::Failed(_)) => {
                actions.extend(attempt(image, Action::EnsureImage { container }, now));
                actions.extend(reason_turns(seen, now));
                if matches!(image, Work::Todo) {
                    return false;
                }
            }
        }
    }
    false
}

/// A failed start or an exit keeps the container back until then.
fn not_before(seen: &ContainerObserved) -> Option<Instant> {
    let exit = seen.exit().map(|exit| seen.backoff.until(exit.at, BackoffPolicy::CRASH));
    let failure = seen.start_failure.as_ref().map(|f| f.retry_at);
    exit.max(failure)
}

/// The moment when the status exchanges a fresh failure's reason for that of its backoff.
fn reason_turns(seen: &ContainerObserved, now: Instant) -> Option<Action> {
    let failure = seen.start_failure.as_ref().or(seen.image.failure())?;
    let turns = failure.at + super::observed::FRESH_FAILURE;
    (turns > now).then_some(Action::WakeAt(turns))
}

fn plan_terminated(pod: &Pod, observed: &Observed, now: Instant) -> Vec<Action> {
    if observed.release.done().is_none() {
        return attempt(&observed.release, Action::Release, now).into_iter().collect();
    }
    if observed.gone {
        return attempt(&observed.forget, Action::Forget, now).into_iter().collect();
    }
    if pod::is_deleting(pod) {
        return attempt(&observed.api_delete, Action::DeleteFromApi, now).into_iter().collect();
    }
    Vec::new()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
