//! What becomes of an object, given its owners and dependents.
//!
//! In: the object's metadata, the state of each owner, its dependents. Out: one [`Verdict`]. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;
use xebec_api::wellknown::finalizers::{FOREGROUND_DELETION, ORPHAN};

use crate::garbage_collector::graph::Waits;

/// What the API says about an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It exists and does not take its dependents with it.
    Solid,
    /// It waits until its dependents are gone.
    Waiting,
    /// No object of that name has that UID.
    Absent,
}

/// A dependent, as far as its owner's fate depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dependent {
    /// It waits for dependents of its own.
    pub(crate) waits_foreground: bool,
}

/// What to do with an object.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing.
    Leave,
    /// Some owners are gone but not all: these remain.
    KeepOwners(Vec<OwnerReference>),
    /// No owner is left.
    Delete {
        propagation: PropagationPolicy,
        /// The object waits for an owner that waits for it: it must not block that owner.
        unblock: bool,
    },
}

/// Judges an object that is not being deleted.
pub(crate) fn judge(
    meta: &ObjectMeta,
    owners: &[(OwnerReference, Owner)],
    dependents: &[Dependent],
) -> Verdict {
    let any = |state: Owner| owners.iter().any(|(_, known)| *known == state);
    if meta.deletion_timestamp.is_some() || owners.is_empty() {
        return Verdict::Leave;
    }
    if any(Owner::Solid) {
        if !any(Owner::Absent) && !any(Owner::Waiting) {
            return Verdict::Leave;
        }
        let solid = owners.iter().filter(|(_, state)| *state == Owner::Solid);
        return Verdict::KeepOwners(solid.map(|(owner, _)| owner.clone()).collect());
    }
    if any(Owner::Waiting) && !dependents.is_empty() {
        let unblock = dependents.iter().any(|dependent| dependent.waits_foreground);
        return Verdict::Delete { propagation: PropagationPolicy::Foreground, unblock };
    }
    let has = |name: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == name);
    // Whoever deleted it before said what becomes of its dependents.
    let propagation = if has(ORPHAN) {
        PropagationPolicy::Orphan
    } else if has(FOREGROUND_DELETION) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    Verdict::Delete { propagation, unblock: false }
}

/// What the owner `meta` describes is to those that name it as `owner`.
pub(crate) fn owner_state(owner: &OwnerReference, meta: Option<&ObjectMeta>) -> Owner {
    match meta {
        Some(meta) if meta.uid.as_deref() != Some(owner.uid.as_str()) => Owner::Absent,
        Some(meta) if Waits::of(meta) == Some(Waits::Foreground) => Owner::Waiting,
        Some(_) => Owner::Solid,
        None => Owner::Absent,
    }
}
