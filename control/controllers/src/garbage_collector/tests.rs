//! Tables of the graph and of the verdicts.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;
use serde_json::{Value, json};
use uuid::Uuid;

use super::graph::{Graph, Waits};
use super::verdict::{Dependent, Owner, Verdict, judge, owner_state};
use crate::inventory::Kind;
use crate::inventory::fixtures::kind as kind_of;

fn uid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn reference(owner: u128) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner.to_string(), "uid": uid(owner).to_string()})
}

fn meta(number: u128, owners: &[u128], deleting: bool, finalizers: &[&str]) -> ObjectMeta {
    serde_json::from_value(json!({
        "namespace": "a", "name": number.to_string(), "uid": uid(number).to_string(),
        "ownerReferences": owners.iter().map(|owner| reference(*owner)).collect::<Vec<_>>(),
        "finalizers": finalizers,
        "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z"),
    }))
    .unwrap()
}

fn maps() -> Arc<Kind> {
    Arc::new(kind_of("v1", "ConfigMap", "configmaps", true))
}

fn sorted(mut uids: Vec<Uuid>) -> Vec<u128> {
    uids.sort();
    uids.dedup();
    uids.into_iter().map(|uid| uid.as_u128()).collect()
}

#[test]
fn dependent_is_suspect_until_its_owner_is_seen_and_when_it_goes() {
    let (mut graph, kind) = (Graph::default(), maps());
    assert_eq!(sorted(graph.present(&kind, &meta(2, &[1], false, &[]))), [2], "the owner may not exist");
    assert!(graph.present(&kind, &meta(1, &[], false, &[])).is_empty());
    assert!(graph.present(&kind, &meta(3, &[1], false, &[])).is_empty(), "its owner is there");
    assert!(graph.suspects().is_empty());
    assert_eq!(sorted(graph.gone(&uid(1))), [2, 3]);
}

#[test]
fn list_that_omits_an_owner_puts_its_dependents_in_question() {
    let (mut graph, kind) = (Graph::default(), maps());
    let other = Arc::new(kind_of("v1", "Secret", "secrets", true));
    graph.present(&other, &meta(9, &[], false, &[]));
    for meta in [meta(1, &[], false, &[]), meta(2, &[1], false, &[]), meta(3, &[9], false, &[])] {
        graph.present(&kind, &meta);
    }
    graph.list_begins(&kind);
    for meta in [meta(2, &[1], false, &[]), meta(3, &[9], false, &[])] {
        graph.present(&kind, &meta);
    }
    assert_eq!(sorted(graph.list_ends(&kind)), [2], "another kind's list says nothing about 9");
}

#[test]
fn owner_that_waits_is_looked_at_with_its_dependents_and_when_they_change() {
    let (mut graph, kind) = (Graph::default(), maps());
    graph.present(&kind, &meta(1, &[], false, &[]));
    graph.present(&kind, &meta(2, &[1], false, &[]));
    let waiting = meta(1, &[], true, &["foregroundDeletion"]);
    assert_eq!(sorted(graph.present(&kind, &waiting)), [1, 2]);
    assert!(graph.present(&kind, &waiting).is_empty(), "nothing new");
    assert_eq!(sorted(graph.suspects()), [1, 2]);
    assert_eq!(sorted(graph.present(&kind, &meta(3, &[1], false, &[]))), [3], "a late dependent");
    assert_eq!(sorted(graph.present(&kind, &meta(2, &[], false, &[]))), [1], "a dependent lost its owner");
    assert_eq!(sorted(graph.gone(&uid(3))), [1], "the last dependent went");
}

#[test]
fn reference_with_a_uid_nobody_could_have_is_suspect() {
    let (mut graph, kind) = (Graph::default(), maps());
    let mut meta = meta(2, &[1], false, &[]);
    meta.owner_references.as_mut().unwrap()[0].uid = "made-up".to_owned();
    assert_eq!(sorted(graph.present(&kind, &meta)), [2]);
}

#[test]
fn kind_that_is_not_served_any_more_deletes_nothing() {
    let (mut graph, kind) = (Graph::default(), maps());
    let custom = Arc::new(kind_of("example.com/v1", "Widget", "widgets", true));
    graph.present(&custom, &meta(1, &[], false, &[]));
    graph.present(&kind, &meta(2, &[1], false, &[]));
    graph.forget_kind(&custom);
    assert!(graph.node(&uid(2)).is_some());
}

#[test]
fn waits_follow_deletion_and_finalizers() {
    assert_eq!(Waits::of(&meta(1, &[], false, &["orphan"])), None);
    assert_eq!(Waits::of(&meta(1, &[], true, &["orphan"])), Some(Waits::Orphan));
    assert_eq!(Waits::of(&meta(1, &[], true, &["foregroundDeletion"])), Some(Waits::Foreground));
    assert_eq!(Waits::of(&meta(1, &[], true, &["example.com/x"])), None);
}

#[test]
fn owner_counts_by_uid_not_by_name() {
    let owner: OwnerReference = serde_json::from_value(reference(1)).unwrap();
    assert_eq!(owner_state(&owner, None), Owner::Absent);
    assert_eq!(owner_state(&owner, Some(&meta(7, &[], false, &[]))), Owner::Absent);
    assert_eq!(owner_state(&owner, Some(&meta(1, &[], false, &[]))), Owner::Solid);
    assert_eq!(owner_state(&owner, Some(&meta(1, &[], true, &["foregroundDeletion"]))), Owner::Waiting);
    assert_eq!(owner_state(&owner, Some(&meta(1, &[], true, &["example.com/x"]))), Owner::Solid);
}

#[test]
fn verdict_follows_the_owners() {
    use Owner::{Absent, Solid, Waiting};
    let delete = |propagation| Verdict::Delete { propagation, unblock: false };
    let keep = |owner| Verdict::KeepOwners(vec![serde_json::from_value(reference(owner)).unwrap()]);
    let cases: [(&[Owner], &[&str], Verdict); 8] = [
        (&[], &[], Verdict::Leave),
        (&[Solid], &[], Verdict::Leave),
        (&[Solid, Absent], &[], keep(0)),
        (&[Waiting, Solid], &[], keep(1)),
        (&[Absent], &[], delete(PropagationPolicy::Background)),
        (&[Waiting, Absent], &[], delete(PropagationPolicy::Background)),
        (&[Absent], &["orphan"], delete(PropagationPolicy::Orphan)),
        (&[Absent], &["foregroundDeletion"], delete(PropagationPolicy::Foreground)),
    ];
    for (states, finalizers, expected) in cases {
        let numbers: Vec<u128> = (0..).take(states.len()).collect();
        let meta = meta(9, &numbers, false, finalizers);
        let references = meta.owner_references.clone().unwrap_or_default();
        let owners: Vec<(OwnerReference, Owner)> =
            references.into_iter().zip(states.iter().copied()).collect();
        assert_eq!(judge(&meta, &owners, &[]), expected, "{states:?} {finalizers:?}");
    }
    let deleting = meta(9, &[0], true, &[]);
    let owners = vec![(serde_json::from_value(reference(0)).unwrap(), Absent)];
    assert_eq!(judge(&deleting, &owners, &[]), Verdict::Leave, "it goes already");
}

#[test]
fn cycle_of_waiting_objects_is_opened() {
    let meta = meta(2, &[1], false, &[]);
    let owners = vec![(serde_json::from_value(reference(1)).unwrap(), Owner::Waiting)];
    let judged = |waits_foreground| judge(&meta, &owners, &[Dependent { waits_foreground }]);
    let foreground = |unblock| Verdict::Delete { propagation: PropagationPolicy::Foreground, unblock };
    assert_eq!(judged(false), foreground(false), "its dependents go first");
    assert_eq!(judged(true), foreground(true), "its dependent waits for it: a cycle");
}
