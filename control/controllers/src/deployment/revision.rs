//! The new ReplicaSet and the history of those before it.
//!
//! In: the workbench. Out: the new ReplicaSet found or made, its revision, surplus history marked for deletion. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::wellknown::annotations::{
    DESIRED_REPLICAS, LAST_APPLIED, MAX_REPLICAS, REVISION, REVISION_HISTORY,
};
use xebec_api::wellknown::conditions::{DEPLOYMENT_PROGRESSING, TRUE};
use xebec_api::wellknown::labels::POD_TEMPLATE_HASH;
use xebec_api::wellknown::reasons::workload::{FOUND_NEW_REPLICA_SET, NEW_REPLICA_SET, SCALING_REPLICA_SET};

use crate::deployment::conditions::{self, condition};
use crate::deployment::progress::has_deadline;
use crate::deployment::rollout::new_size;
use crate::deployment::template::template_hash;
use crate::deployment::work::{Piece, Told, Work, noted, replicas, status_replicas};
use crate::owner::controller_reference;

/// The list of a ReplicaSet's former revisions is cut to this length.
const HISTORY_LENGTH: usize = 2000;

/// Brings the new ReplicaSet's notes and the Deployment's revision up to date; makes the ReplicaSet if `create`.
pub(crate) fn sync_new(work: &mut Work, create: bool) {
    let revision =
        work.old().iter().filter_map(|slot| noted::<i64>(work.set(*slot), REVISION)).max().unwrap_or(0) + 1;
    let Some(slot) = work.new else {
        if create {
            make(work, revision);
        }
        return;
    };
    let deployment = work.deployment.clone();
    let set = work.set_mut(slot);
    note_deployment(&deployment, set, revision, true);
    set.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
    let name = set.metadata.name.clone().unwrap_or_default();
    note_revision(work, slot);
    if has_deadline(&work.deployment) && conditions::get(work.conditions(), DEPLOYMENT_PROGRESSING).is_none()
    {
        let message = format!("Found new replica set {name:?}");
        let found = condition(DEPLOYMENT_PROGRESSING, TRUE, FOUND_NEW_REPLICA_SET, message, work.now);
        conditions::set(work.conditions_mut(), found);
    }
}

fn make(work: &mut Work, revision: i64) {
    let deployment = work.deployment.clone();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&deployment.spec.template, collisions);
    let mut set = replica_set(&deployment, &hash);
    note_deployment(&deployment, &mut set, revision, false);
    let name = set.metadata.name.clone().unwrap_or_default();
    work.pieces.push(Piece { current: None, desired: set, delete: false, events: Vec::new() });
    let slot = work.pieces.len() - 1;
    work.new = Some(slot);
    let size = new_size(work, slot);
    work.set_mut(slot).spec.replicas = Some(size);
    work.note_size(slot);
    note_revision(work, slot);
    if size > 0 {
        let message = format!("Scaled up replica set {name} from 0 to {size}");
        work.pieces[slot].events.push(Told { reason: SCALING_REPLICA_SET, message });
    }
    if has_deadline(&deployment) {
        let message = format!("Created new replica set {name:?}");
        let created = condition(DEPLOYMENT_PROGRESSING, TRUE, NEW_REPLICA_SET, message, work.now);
        conditions::set(work.conditions_mut(), created);
    }
}

fn replica_set(deployment: &Deployment, hash: &str) -> ReplicaSet {
    let label = || (POD_TEMPLATE_HASH.to_owned(), hash.to_owned());
    let mut template = deployment.spec.template.clone();
    template.metadata.get_or_insert_default().labels.get_or_insert_default().extend([label()]);
    let mut selector = deployment.spec.selector.clone();
    selector.match_labels.get_or_insert_default().extend([label()]);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default())),
            namespace: deployment.metadata.namespace.clone(),
            labels: template.metadata.as_ref().and_then(|meta| meta.labels.clone()),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: deployment.spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    }
}

/// Copies the Deployment's annotations and numbers the revision. A ReplicaSet that is taken into use again gets a new
/// number and remembers the old one.
fn note_deployment(deployment: &Deployment, set: &mut ReplicaSet, revision: i64, exists: bool) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if is_copied(key) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let former = annotations.get(REVISION).cloned();
    let newer = former
        .as_deref()
        .and_then(|former| former.parse::<i64>().ok())
        .is_none_or(|former| former < revision);
    if newer {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(former) = former.filter(|_| exists) {
            remember(annotations, &former);
        }
    }
}

fn is_copied(annotation: &str) -> bool {
    const OWN: [&str; 5] = [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS];
    !OWN.contains(&annotation)
}

fn remember(annotations: &mut BTreeMap<String, String>, former: &str) {
    let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
    if !history.is_empty() {
        history.push(',');
    }
    history.push_str(former);
    while history.len() > HISTORY_LENGTH
        && let Some(comma) = history.find(',')
    {
        history.drain(..=comma);
    }
}

/// The Deployment carries its new ReplicaSet's revision: `kubectl rollout` reads it.
fn note_revision(work: &mut Work, slot: usize) {
    let revision = work.set(slot).metadata.annotations.as_ref().and_then(|a| a.get(REVISION)).cloned();
    if let Some(revision) = revision {
        work.deployment.metadata.annotations.get_or_insert_default().insert(REVISION.to_owned(), revision);
    }
}

/// Marks the oldest of the unused ReplicaSets beyond `revisionHistoryLimit` for deletion.
pub(crate) fn clean_up(work: &mut Work) {
    let limit = match work.deployment.spec.revision_history_limit {
        Some(i32::MAX) | None => return,
        Some(limit) => usize::try_from(limit).unwrap_or(0),
    };
    let mut history: Vec<usize> = work.old();
    history.retain(|slot| work.set(*slot).metadata.deletion_timestamp.is_none());
    let surplus = history.len().saturating_sub(limit);
    history.sort_by_key(|slot| noted::<i64>(work.set(*slot), REVISION).unwrap_or(0));
    for slot in history.into_iter().take(surplus) {
        let set = work.set(slot);
        let observed = set.status.as_ref().and_then(|status| status.observed_generation);
        let unused = status_replicas(set) == 0 && replicas(set) == 0 && set.metadata.generation <= observed;
        if unused && work.pieces[slot].current.is_some() {
            work.pieces[slot].delete = true;
        }
    }
}
