//! What a Deployment needs next.
//!
//! In: the Deployment, its ReplicaSets, whether pods of a ReplicaSet still run, the time. Out: [`Plan`]. Pure.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use crate::deployment::fenceposts;
use crate::deployment::progress::{self, is_complete};
use crate::deployment::revision::{clean_up, sync_new};
use crate::deployment::rollout;
use crate::deployment::work::{Piece, Work};

/// Writes that bring a Deployment one step further.
#[derive(Debug)]
pub(crate) struct Plan {
    /// ReplicaSets to create, change and delete; those without change among them.
    pub(crate) pieces: Vec<Piece>,
    /// The Deployment as it should be, status included.
    pub(crate) deployment: Deployment,
    /// When to look again though nothing changes.
    pub(crate) check_in: Option<SignedDuration>,
}

/// The next step. `runs` says whether pods of a ReplicaSet, by UID, are still there.
pub(crate) fn plan(
    deployment: &Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    runs: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Plan {
    let mut work = Work::new(deployment, sets, now);
    if deployment.metadata.deletion_timestamp.is_some() {
        // Its ReplicaSets are the garbage collector's now; the status goes on telling.
        return finish(&work, Status::Counts);
    }
    progress::note_pause(&mut work);
    let paused = deployment.spec.paused == Some(true);
    if paused || rollout::is_resized(&work) {
        sync_new(&mut work, false);
        rollout::resize(&mut work);
        if paused {
            clean_up(&mut work);
        }
        return finish(&work, Status::Counts);
    }
    if fenceposts::is_rolling(deployment) {
        sync_new(&mut work, true);
        if rollout::roll(&mut work) {
            return finish(&work, Status::Rollout);
        }
    } else {
        sync_new(&mut work, false);
        if rollout::shrink_for_recreate(&mut work) || rollout::old_run(&work, runs) {
            return finish(&work, Status::Rollout);
        }
        sync_new(&mut work, true);
        rollout::grow_new(&mut work);
    }
    if is_complete(deployment, &deployment.status.clone().unwrap_or_default()) {
        clean_up(&mut work);
    }
    finish(&work, Status::Rollout)
}

#[derive(Clone, Copy)]
enum Status {
    /// Counts and availability only.
    Counts,
    /// The verdict on the rollout's progress too.
    Rollout,
}

fn finish(work: &Work, kind: Status) -> Plan {
    let status = match kind {
        Status::Counts => progress::status(work),
        Status::Rollout => progress::rollout_status(work),
    };
    let check_in = match kind {
        Status::Counts => None,
        Status::Rollout => progress::next_check(work, &status),
    };
    let mut deployment = work.deployment.clone();
    deployment.status = Some(status);
    Plan { pieces: work.pieces.clone(), deployment, check_in }
}
