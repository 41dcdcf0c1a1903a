//! API priority and fairness.
//!
//! In: objects of the group `flowcontrol.apiserver.k8s.io`. Out: their cells.

use serde_json::Value;

use super::view::{NONE, View, plain, text_in};
use super::{AGE, Column, Layout, NAME, string};

const SCHEMA: &[Column] = &[
    NAME,
    string("PriorityLevel", "The level the requests go to."),
    string("MatchingPrecedence", "Which schema is tried first."),
    string("DistinguisherMethod", "How requests are told apart."),
    AGE,
    string("MissingPL", "Whether the level it names is missing."),
];

const LEVEL: &[Column] = &[
    NAME,
    string("Type", "Whether the level is limited."),
    string("NominalConcurrencyShares", "The level's share of the server."),
    string("Queues", "How many queues the level has."),
    string("HandSize", "How many queues a flow is dealt."),
    string("QueueLengthLimit", "How many requests wait in a queue."),
    AGE,
];

pub(super) fn layout(kind: &str) -> Option<Layout> {
    Some(match kind {
        "FlowSchema" => Layout { columns: SCHEMA, cells: schema },
        "PriorityLevelConfiguration" => Layout { columns: LEVEL, cells: level },
        _ => return None,
    })
}

fn schema(view: &View<'_>) -> Vec<Value> {
    let dangling =
        view.list("/status/conditions").iter().find(|condition| text_in(condition, "type") == "Dangling");
    vec![
        view.name(),
        view.text_or("/spec/priorityLevelConfiguration/name", NONE).into(),
        view.number_cell("/spec/matchingPrecedence"),
        view.text_or("/spec/distinguisherMethod/type", NONE).into(),
        view.age(),
        dangling.map_or("?", |condition| text_in(condition, "status")).into(),
    ]
}

fn level(view: &View<'_>) -> Vec<Value> {
    let queuing = |field: &str| -> Value {
        match plain(view.at(&format!("/spec/limited/limitResponse/queuing/{field}"))).as_str() {
            "" => NONE.into(),
            text => text.into(),
        }
    };
    let shares = plain(view.at("/spec/limited/nominalConcurrencyShares"));
    vec![
        view.name(),
        view.cell("/spec/type"),
        if shares.is_empty() { NONE.into() } else { shares.into() },
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        view.age(),
    ]
}
