//! The revisions of a pod template, kept as ControllerRevisions so that a workload can go back to one.
//!
//! In: an owner, its template, its revisions. Out: the revision that is the template's, those to write and to drop.
//! Pure. Each holds a patch that `kubectl rollout undo` applies to the owner as it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Resource;
use serde_json::{Value, json};
use xebec_api::wellknown::labels::CONTROLLER_REVISION_HASH;

use crate::deployment::template::{same_template, template_hash};
use crate::owner::controller_reference;

/// Revisions an owner keeps unless it says otherwise.
const DEFAULT_LIMIT: i32 = 10;

/// What to do about an owner's revisions.
#[derive(Debug)]
pub(crate) struct History {
    /// The template's own.
    pub(crate) current: ControllerRevision,
    /// `current` is not in the API like this; the revision it replaces, if there is one.
    pub(crate) write: Option<Option<Arc<ControllerRevision>>>,
}

/// Finds or makes the revision of `template`.
pub(crate) fn history<O: Resource<DynamicType = ()>>(
    owner: &O,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
    known: &[Arc<ControllerRevision>],
) -> History {
    let latest = known.iter().map(|revision| number(revision)).max().unwrap_or(0);
    let same =
        known.iter().filter(|revision| holds(revision, template)).max_by_key(|revision| number(revision));
    match same {
        Some(found) if number(found) == latest => History { current: (**found).clone(), write: None },
        // Back to an older template: it becomes the newest revision.
        Some(found) => {
            let current = ControllerRevision { revision: Some(latest + 1), ..(**found).clone() };
            History { current, write: Some(Some(found.clone())) }
        }
        None => History { current: make(owner, template, collisions, latest + 1), write: Some(None) },
    }
}

/// The hash that pods of this revision carry.
pub(crate) fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(CONTROLLER_REVISION_HASH)).map_or("", String::as_str)
}

pub(crate) fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

/// The template a revision holds.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The oldest revisions beyond the limit that no pod is of.
pub(crate) fn surplus(
    known: &[Arc<ControllerRevision>],
    live: &BTreeSet<String>,
    limit: Option<i32>,
) -> Vec<Arc<ControllerRevision>> {
    let limit = usize::try_from(limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(0);
    let is_live = |revision: &ControllerRevision| {
        live.contains(hash_of(revision))
            || revision.metadata.name.as_ref().is_some_and(|name| live.contains(name))
    };
    let mut dead: Vec<_> = known.iter().filter(|revision| !is_live(revision)).cloned().collect();
    dead.sort_by_key(|revision| number(revision));
    dead.truncate(dead.len().saturating_sub(limit));
    dead
}

fn holds(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    template_of(revision).is_some_and(|held| same_template(&held, template))
}

fn make<O: Resource<DynamicType = ()>>(
    owner: &O,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
    number: i64,
) -> ControllerRevision {
    let hash = template_hash(template, collisions);
    let name = owner.meta().name.as_deref().unwrap_or_default();
    let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(CONTROLLER_REVISION_HASH.to_owned(), hash.clone());
    let mut held = serde_json::to_value(template).unwrap_or(Value::Null);
    if let Some(fields) = held.as_object_mut() {
        // The whole template, not what differs from it.
        fields.insert("$patch".to_owned(), "replace".into());
    }
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: RawExtension(json!({"spec": {"template": held}})),
        revision: Some(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::DaemonSet;

    fn owner() -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "uid": "u"},
            "spec": {"selector": {}, "template": {}},
        }))
        .unwrap()
    }

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({
            "metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": image}]},
        }))
        .unwrap()
    }

    #[test]
    fn revisions_count_up_and_an_old_template_takes_the_next_number() {
        let first = history(&owner(), &template("1"), None, &[]);
        assert_eq!((number(&first.current), first.write.is_some()), (1, true));
        assert_eq!(first.current.data.0["spec"]["template"]["$patch"], "replace");
        let mut known = vec![Arc::new(first.current)];
        assert!(history(&owner(), &template("1"), None, &known).write.is_none());
        let second = history(&owner(), &template("2"), None, &known);
        assert_eq!(number(&second.current), 2);
        assert_ne!(hash_of(&second.current), hash_of(&known[0]));
        known.push(Arc::new(second.current));
        let back = history(&owner(), &template("1"), None, &known);
        assert_eq!(number(&back.current), 3);
        assert_eq!(back.current.metadata.name, known[0].metadata.name);
    }

    #[test]
    fn surplus_spares_what_pods_run_and_the_limit() {
        let mut known = Vec::new();
        for image in ["1", "2", "3", "4"] {
            let next = history(&owner(), &template(image), None, &known);
            known.push(Arc::new(next.current));
        }
        let live = BTreeSet::from([hash_of(&known[3]).to_owned(), hash_of(&known[0]).to_owned()]);
        let numbers =
            |limit| surplus(&known, &live, Some(limit)).iter().map(|r| number(r)).collect::<Vec<_>>();
        assert_eq!(numbers(1), [2]);
        assert_eq!(numbers(0), [2, 3]);
        assert!(numbers(2).is_empty());
    }
}
