//! How far a rollout got, and what the Deployment's status says about it.
//!
//! In: the workbench. Out: status and conditions; when to look whether the rollout is stuck. Pure.

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use xebec_api::wellknown::conditions::{
    DEPLOYMENT_AVAILABLE, DEPLOYMENT_PROGRESSING, FALSE, REPLICA_FAILURE, TRUE, UNKNOWN,
};
use xebec_api::wellknown::reasons::workload::{
    DEPLOYMENT_PAUSED, DEPLOYMENT_RESUMED, MINIMUM_REPLICAS_AVAILABLE, MINIMUM_REPLICAS_UNAVAILABLE,
    NEW_REPLICA_SET_AVAILABLE, PROGRESS_DEADLINE_EXCEEDED, REPLICA_SET_UPDATED,
};

use crate::deployment::conditions::{self, condition};
use crate::deployment::fenceposts::{self, max_unavailable};
use crate::deployment::work::{Work, available, ready, replicas, status_replicas};

pub(crate) fn has_deadline(deployment: &Deployment) -> bool {
    deployment.spec.progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX)
}

/// Notes that the Deployment was paused or resumed: the deadline does not run meanwhile.
pub(crate) fn note_pause(work: &mut Work) {
    if !has_deadline(&work.deployment) {
        return;
    }
    let reason = conditions::get(work.conditions(), DEPLOYMENT_PROGRESSING).and_then(|c| c.reason.clone());
    if reason.as_deref() == Some(PROGRESS_DEADLINE_EXCEEDED) {
        return;
    }
    let noted = reason.as_deref() == Some(DEPLOYMENT_PAUSED);
    let paused = work.deployment.spec.paused == Some(true);
    let (reason, message) = match (paused, noted) {
        (true, false) => (DEPLOYMENT_PAUSED, "Deployment is paused"),
        (false, true) => (DEPLOYMENT_RESUMED, "Deployment is resumed"),
        _ => return,
    };
    let noted = condition(DEPLOYMENT_PROGRESSING, UNKNOWN, reason, message, work.now);
    conditions::set(work.conditions_mut(), noted);
}

/// The counts, and whether the Deployment is available. Conditions about progress stay as they are.
pub(crate) fn status(work: &Work) -> DeploymentStatus {
    let current = work.deployment.status.clone().unwrap_or_default();
    let available = work.total(available);
    let wanted = fenceposts::replicas(&work.deployment);
    let enough = available >= wanted - max_unavailable(&work.deployment);
    let verdict = if enough {
        condition(
            DEPLOYMENT_AVAILABLE,
            TRUE,
            MINIMUM_REPLICAS_AVAILABLE,
            "Deployment has minimum availability.",
            work.now,
        )
    } else {
        condition(
            DEPLOYMENT_AVAILABLE,
            FALSE,
            MINIMUM_REPLICAS_UNAVAILABLE,
            "Deployment does not have minimum availability.",
            work.now,
        )
    };
    let mut conditions = current.conditions.unwrap_or_default();
    conditions::set(&mut conditions, verdict);
    let terminating = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.terminating_replicas);
    DeploymentStatus {
        observed_generation: work.deployment.metadata.generation,
        replicas: Some(work.total(status_replicas)),
        updated_replicas: Some(work.new.map_or(0, |slot| status_replicas(work.set(slot)))),
        ready_replicas: Some(work.total(ready)),
        available_replicas: Some(available),
        unavailable_replicas: Some((work.total(replicas) - available).max(0)),
        terminating_replicas: work.pieces.iter().map(|piece| terminating(&piece.desired)).sum(),
        collision_count: current.collision_count,
        conditions: Some(conditions),
    }
}

/// The status of a Deployment that is rolling out, with the verdict on its progress.
pub(crate) fn rollout_status(work: &Work) -> DeploymentStatus {
    let mut status = status(work);
    let mut conditions = status.conditions.take().unwrap_or_default();
    if has_deadline(&work.deployment) {
        judge(work, &status, &mut conditions);
    } else {
        conditions::remove(&mut conditions, DEPLOYMENT_PROGRESSING);
    }
    match failure(work) {
        Some(failure) => conditions::set(&mut conditions, failure),
        None => conditions::remove(&mut conditions, REPLICA_FAILURE),
    }
    status.conditions = Some(conditions);
    status
}

fn judge(work: &Work, status: &DeploymentStatus, conditions: &mut conditions::Conditions) {
    let current = conditions::get(conditions, DEPLOYMENT_PROGRESSING).cloned();
    let reason = current.as_ref().and_then(|condition| condition.reason.as_deref());
    if status.replicas == status.updated_replicas && reason == Some(NEW_REPLICA_SET_AVAILABLE) {
        // Complete and told so: a later loss of pods is no matter of the rollout's.
        return;
    }
    let new = work.new.map(|slot| work.set(slot).metadata.name.clone().unwrap_or_default());
    let subject = new.map_or_else(
        || format!("Deployment {:?}", work.deployment.metadata.name.as_deref().unwrap_or_default()),
        |name| format!("ReplicaSet {name:?}"),
    );
    if is_complete(&work.deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        let done = condition(DEPLOYMENT_PROGRESSING, TRUE, NEW_REPLICA_SET_AVAILABLE, message, work.now);
        conditions::set(conditions, done);
    } else if is_progressing(&work.deployment, status) {
        let message = format!("{subject} is progressing.");
        let mut progress = condition(DEPLOYMENT_PROGRESSING, TRUE, REPLICA_SET_UPDATED, message, work.now);
        if let Some(current) = current.filter(|current| current.status.as_deref() == Some(TRUE)) {
            progress.last_transition_time = current.last_transition_time;
        }
        // Removed first: the time of the last progress counts, also when status and reason stay.
        conditions::remove(conditions, DEPLOYMENT_PROGRESSING);
        conditions.push(progress);
    } else if is_timed_out(work, current.as_ref()) {
        let message = format!("{subject} has timed out progressing.");
        let stuck = condition(DEPLOYMENT_PROGRESSING, FALSE, PROGRESS_DEADLINE_EXCEEDED, message, work.now);
        conditions::set(conditions, stuck);
    }
}

/// Every pod is new and serves, and nothing old is left.
pub(crate) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(fenceposts::replicas(deployment));
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn is_progressing(deployment: &Deployment, new: &DeploymentStatus) -> bool {
    let old = deployment.status.clone().unwrap_or_default();
    let outdated =
        |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    new.updated_replicas.unwrap_or(0) > old.updated_replicas.unwrap_or(0)
        || outdated(new) < outdated(&old)
        || new.ready_replicas.unwrap_or(0) > old.ready_replicas.unwrap_or(0)
        || new.available_replicas.unwrap_or(0) > old.available_replicas.unwrap_or(0)
}

fn is_timed_out(work: &Work, progressing: Option<&DeploymentCondition>) -> bool {
    let Some(progressing) = progressing else {
        return false;
    };
    match progressing.reason.as_deref() {
        Some(NEW_REPLICA_SET_AVAILABLE) => false,
        Some(PROGRESS_DEADLINE_EXCEEDED) => true,
        _ => time_left(work, progressing).is_some_and(|left| left.is_negative()),
    }
}

/// Time until the deadline passes.
fn time_left(work: &Work, progressing: &DeploymentCondition) -> Option<SignedDuration> {
    let seconds = work.deployment.spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)?;
    let since = progressing.last_update_time.as_ref()?.0;
    Some(SignedDuration::from_secs(seconds.into()) - work.now.duration_since(since))
}

/// When to look again whether the rollout is stuck; nothing else would wake the controller then.
pub(crate) fn next_check(work: &Work, status: &DeploymentStatus) -> Option<SignedDuration> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let progressing = conditions::get(conditions, DEPLOYMENT_PROGRESSING)?;
    let over = is_complete(&work.deployment, status)
        || matches!(
            progressing.reason.as_deref(),
            Some(PROGRESS_DEADLINE_EXCEEDED | DEPLOYMENT_PAUSED | NEW_REPLICA_SET_AVAILABLE)
        );
    if over {
        return None;
    }
    let left = time_left(work, progressing)?;
    Some(left.max(SignedDuration::ZERO) + SignedDuration::from_secs(1))
}

/// What keeps a ReplicaSet from its pods: the new one's trouble first.
fn failure(work: &Work) -> Option<DeploymentCondition> {
    let slots = work.new.into_iter().chain(work.old());
    let mut troubles = slots.filter_map(|slot| {
        let conditions = work.set(slot).status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE))
    });
    let trouble = troubles.next()?;
    Some(DeploymentCondition {
        type_: trouble.type_.clone(),
        status: trouble.status.clone(),
        reason: trouble.reason.clone(),
        message: trouble.message.clone(),
        last_update_time: trouble.last_transition_time.clone(),
        last_transition_time: trouble.last_transition_time.clone(),
    })
}
