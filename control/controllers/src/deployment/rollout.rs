//! One step of a rollout: which ReplicaSet grows, which shrinks.
//!
//! In: the workbench. Out: sizes of the ReplicaSets. Each step changes sizes in one direction and waits for the world to
//! follow, so that surge and unavailability hold at every moment. Pure.

use xebec_api::wellknown::annotations::{DESIRED_REPLICAS, MAX_REPLICAS};

use crate::deployment::fenceposts::{self, max_surge, max_unavailable};
use crate::deployment::work::{Slot, Work, available, noted, replicas, status_replicas};

/// How large the new ReplicaSet may be now.
pub(crate) fn new_size(work: &Work, new: Slot) -> i32 {
    let wanted = fenceposts::replicas(&work.deployment);
    if !fenceposts::is_rolling(&work.deployment) {
        return wanted;
    }
    let (size, total) = (replicas(work.set(new)), work.total(replicas));
    let most = wanted + max_surge(&work.deployment);
    if total >= most {
        return size;
    }
    size + (most - total).min(wanted - size)
}

/// A rolling step: grow the new, else shrink the old. Says whether anything changed.
pub(crate) fn roll(work: &mut Work) -> bool {
    grow_new(work) || shrink_old(work)
}

/// A recreate step: the old go first, the new come when the old are gone. Says whether the old still shrink or run.
pub(crate) fn shrink_for_recreate(work: &mut Work) -> bool {
    let active = work.active_old();
    for slot in &active {
        work.scale(*slot, 0);
    }
    !active.is_empty()
}

/// Old pods are still there, whatever the ReplicaSets say.
pub(crate) fn old_run(work: &Work, runs: impl Fn(&str) -> bool) -> bool {
    work.old().into_iter().any(|slot| {
        let set = work.set(slot);
        status_replicas(set) > 0 || set.metadata.uid.as_deref().is_some_and(&runs)
    })
}

pub(crate) fn grow_new(work: &mut Work) -> bool {
    let Some(new) = work.new else {
        return false;
    };
    let (size, wanted) = (replicas(work.set(new)), fenceposts::replicas(&work.deployment));
    let to = if size > wanted { wanted } else { new_size(work, new) };
    work.scale(new, to)
}

fn shrink_old(work: &mut Work) -> bool {
    let Some(new) = work.new else {
        return false;
    };
    if work.active_old().is_empty() {
        return false;
    }
    let least = fenceposts::replicas(&work.deployment) - max_unavailable(&work.deployment);
    let new_unavailable = replicas(work.set(new)) - available(work.set(new));
    let budget = work.total(replicas) - least - new_unavailable;
    if budget <= 0 {
        return false;
    }
    // Pods that do not serve anyway go first, so that they block nothing.
    let mut cleaned = 0;
    for slot in work.active_old() {
        let (size, serving) = (replicas(work.set(slot)), available(work.set(slot)));
        let count = (budget - cleaned).min(size - serving);
        if count > 0 {
            work.scale(slot, size - count);
            cleaned += count;
        }
    }
    // A ReplicaSet that was just made smaller still reports the pods it is about to delete.
    let mut spare = work.total(|set| available(set).min(replicas(set))) - least;
    let mut shrunk = false;
    for slot in work.active_old() {
        let size = replicas(work.set(slot));
        let count = spare.min(size);
        if count <= 0 {
            break;
        }
        work.scale(slot, size - count);
        spare -= count;
        shrunk = true;
    }
    shrunk || cleaned > 0
}

/// The Deployment's own size changed since its ReplicaSets were last scaled.
pub(crate) fn is_resized(work: &Work) -> bool {
    let wanted = fenceposts::replicas(&work.deployment);
    work.pieces
        .iter()
        .filter(|piece| replicas(&piece.desired) > 0)
        .any(|piece| noted::<i32>(&piece.desired, DESIRED_REPLICAS).is_some_and(|noted| noted != wanted))
}

/// Follows a change of the Deployment's size: one ReplicaSet takes it all; in the middle of a rollout each takes its
/// share, so that the mix of versions stays.
pub(crate) fn resize(work: &mut Work) {
    let wanted = fenceposts::replicas(&work.deployment);
    if let Some(only) = only_active(work) {
        if replicas(work.set(only)) != wanted {
            work.scale(only, wanted);
        }
        return;
    }
    if is_saturated(work) {
        for slot in work.active_old() {
            work.scale(slot, 0);
        }
        return;
    }
    if fenceposts::is_rolling(&work.deployment) {
        resize_in_proportion(work);
    }
}

fn active(work: &Work) -> Vec<Slot> {
    (0..work.pieces.len()).filter(|slot| replicas(work.set(*slot)) > 0).collect()
}

/// The only active ReplicaSet; with none active, the new or else the latest.
fn only_active(work: &Work) -> Option<Slot> {
    match active(work).as_slice() {
        [] => work.new.or_else(|| work.old().last().copied()),
        [only] => Some(*only),
        _ => None,
    }
}

/// The new ReplicaSet has all the pods it needs and they serve.
fn is_saturated(work: &Work) -> bool {
    let wanted = fenceposts::replicas(&work.deployment);
    work.new.map(|slot| work.set(slot)).is_some_and(|set| {
        noted::<i32>(set, DESIRED_REPLICAS) == Some(wanted)
            && replicas(set) == wanted
            && available(set) == wanted
    })
}

fn resize_in_proportion(work: &mut Work) {
    let mut slots = active(work);
    let total: i32 = slots.iter().map(|slot| replicas(work.set(*slot))).sum();
    let wanted = fenceposts::replicas(&work.deployment);
    let most = if wanted > 0 { wanted + max_surge(&work.deployment) } else { 0 };
    let to_add = most - total;
    // Larger first; of equals, growth favours the newer and shrinking the older.
    slots.sort_by(|a, b| {
        let size = replicas(work.set(*b)).cmp(&replicas(work.set(*a)));
        size.then_with(|| if to_add > 0 { b.cmp(a) } else { a.cmp(b) })
    });
    let mut added = 0;
    let mut sizes = Vec::new();
    for slot in slots {
        let share = if to_add == 0 { 0 } else { share(work, slot, to_add, added) };
        sizes.push((slot, replicas(work.set(slot)) + share));
        added += share;
    }
    if let Some((_, first)) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (slot, size) in sizes {
        work.resize(slot, size);
    }
}

/// One ReplicaSet's part of `to_add`, of which `added` is given out already.
fn share(work: &Work, slot: Slot, to_add: i32, added: i32) -> i32 {
    let set = work.set(slot);
    let size = replicas(set);
    if size == 0 || to_add == added {
        return 0;
    }
    let wanted = fenceposts::replicas(&work.deployment);
    let fraction = if wanted == 0 {
        -size
    } else {
        let most = wanted + max_surge(&work.deployment);
        let deployed = work.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        let before = noted::<i32>(set, MAX_REPLICAS).filter(|noted| *noted != 0).unwrap_or(deployed);
        if before == 0 {
            0
        } else {
            // Sizes are far below 2^53.
            (f64::from(size) * f64::from(most) / f64::from(before)).round() as i32 - size
        }
    };
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}
