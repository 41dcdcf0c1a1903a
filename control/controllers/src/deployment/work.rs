//! A Deployment and its ReplicaSets on the workbench: every step of a plan changes the copies here.
//!
//! In: the objects as they are. Out: the objects as they should be, with what to tell about it. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use xebec_api::wellknown::annotations::{DESIRED_REPLICAS, MAX_REPLICAS};
use xebec_api::wellknown::reasons::workload::SCALING_REPLICA_SET;

use crate::deployment::conditions::Conditions;
use crate::deployment::fenceposts;
use crate::deployment::template::same_template;

/// Index of a ReplicaSet on the workbench.
pub(crate) type Slot = usize;

/// One ReplicaSet, before and after.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// `None`: to be created.
    pub(crate) current: Option<Arc<ReplicaSet>>,
    pub(crate) desired: ReplicaSet,
    /// Surplus history: to be deleted.
    pub(crate) delete: bool,
    /// Told once the change is written.
    pub(crate) events: Vec<Told>,
}

/// An Event about the Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The workbench.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) deployment: Deployment,
    pub(crate) pieces: Vec<Piece>,
    /// The ReplicaSet whose template is the Deployment's.
    pub(crate) new: Option<Slot>,
    pub(crate) now: Timestamp,
}

impl Work {
    /// Lays the objects out, oldest ReplicaSet first.
    pub(crate) fn new(deployment: &Deployment, mut sets: Vec<Arc<ReplicaSet>>, now: Timestamp) -> Self {
        sets.sort_by(|a, b| created(a).cmp(&created(b)));
        let pieces: Vec<Piece> = sets
            .into_iter()
            .map(|set| Piece {
                desired: (*set).clone(),
                current: Some(set),
                delete: false,
                events: Vec::new(),
            })
            .collect();
        // Of several with the same template the oldest is the one: all controllers choose alike.
        let new = pieces.iter().position(|piece| {
            piece.desired.spec.template.as_ref().is_some_and(|t| same_template(t, &deployment.spec.template))
        });
        Self { deployment: deployment.clone(), pieces, new, now }
    }

    pub(crate) fn set(&self, slot: Slot) -> &ReplicaSet {
        &self.pieces[slot].desired
    }

    pub(crate) fn set_mut(&mut self, slot: Slot) -> &mut ReplicaSet {
        &mut self.pieces[slot].desired
    }

    /// All but the new one, oldest first.
    pub(crate) fn old(&self) -> Vec<Slot> {
        (0..self.pieces.len()).filter(|slot| Some(*slot) != self.new).collect()
    }

    /// Old ones that still want pods.
    pub(crate) fn active_old(&self) -> Vec<Slot> {
        self.old().into_iter().filter(|slot| replicas(self.set(*slot)) > 0).collect()
    }

    pub(crate) fn total(&self, count: impl Fn(&ReplicaSet) -> i32) -> i32 {
        self.pieces.iter().map(|piece| count(&piece.desired)).sum()
    }

    pub(crate) fn conditions(&self) -> &[k8s_openapi::api::apps::v1::DeploymentCondition] {
        self.deployment.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
    }

    pub(crate) fn conditions_mut(&mut self) -> &mut Conditions {
        self.deployment.status.get_or_insert_default().conditions.get_or_insert_default()
    }

    /// Sets a ReplicaSet's size and tells of it. Says whether the size changed.
    pub(crate) fn scale(&mut self, slot: Slot, to: i32) -> bool {
        if replicas(self.set(slot)) == to {
            return false;
        }
        self.resize(slot, to);
        true
    }

    /// The same, and brings the annotations that remember the Deployment's size along even where the size stays.
    pub(crate) fn resize(&mut self, slot: Slot, to: i32) {
        let from = replicas(self.set(slot));
        self.note_size(slot);
        if from == to {
            return;
        }
        let set = self.set_mut(slot);
        set.spec.replicas = Some(to);
        let name = set.metadata.name.clone().unwrap_or_default();
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
        self.pieces[slot].events.push(Told { reason: SCALING_REPLICA_SET, message });
    }

    /// Notes on a ReplicaSet the size the Deployment had when it was scaled: proportional scaling starts from there.
    pub(crate) fn note_size(&mut self, slot: Slot) {
        let wanted = fenceposts::replicas(&self.deployment);
        let most = wanted + fenceposts::max_surge(&self.deployment);
        let annotations = self.set_mut(slot).metadata.annotations.get_or_insert_default();
        annotations.insert(DESIRED_REPLICAS.to_owned(), wanted.to_string());
        annotations.insert(MAX_REPLICAS.to_owned(), most.to_string());
    }
}

pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

pub(crate) fn status_replicas(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

pub(crate) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

pub(crate) fn ready(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
}

/// A number kept in an annotation.
pub(crate) fn noted<N: std::str::FromStr>(set: &ReplicaSet, annotation: &str) -> Option<N> {
    set.metadata.annotations.as_ref()?.get(annotation)?.parse().ok()
}

/// Sorts by age, then name.
pub(crate) fn created(set: &ReplicaSet) -> (Option<Timestamp>, &str) {
    let time = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (time, set.metadata.name.as_deref().unwrap_or_default())
}
