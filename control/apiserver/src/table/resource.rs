//! Dynamic resource allocation.
//!
//! In: objects of the group `resource.k8s.io`. Out: their cells.

use serde_json::Value;

use super::view::{View, text_in};
use super::{AGE, Column, Layout, NAME, string};

const ONLY_AGE: &[Column] = &[NAME, AGE];

pub(super) fn layout(kind: &str) -> Option<Layout> {
    Some(match kind {
        "DeviceClass" | "ResourceClaimTemplate" => {
            Layout { columns: ONLY_AGE, cells: |view| vec![view.name(), view.age()] }
        }
        "ResourceClaim" => Layout {
            columns: const { &[NAME, string("State", "Whether the claim is allocated and reserved."), AGE] },
            cells: |view| vec![view.name(), state(view).into(), view.age()],
        },
        "ResourceSlice" => Layout {
            columns: const {
                &[
                    NAME,
                    string("Node", "The node the resources are at."),
                    string("Driver", "The driver that provides the resources."),
                    string("Pool", "The pool the resources belong to."),
                    AGE,
                ]
            },
            cells: |view| {
                vec![
                    view.name(),
                    view.text_or("/spec/nodeName", super::view::UNSET).into(),
                    view.cell("/spec/driver"),
                    view.cell("/spec/pool/name"),
                    view.age(),
                ]
            },
        },
        "DeviceTaintRule" => Layout {
            columns: const { &[NAME, string("Effect", "What the taint does to pods."), AGE] },
            cells: |view| {
                let effect = view.at("/spec/taint").map_or("", |taint| text_in(taint, "effect"));
                vec![view.name(), effect.into(), view.age()]
            },
        },
        _ => return None,
    })
}

fn state(view: &View<'_>) -> String {
    let mut states = Vec::new();
    if view.is_deleted() {
        states.push("deleted");
    }
    if view.at("/status/allocation").is_some_and(Value::is_object) {
        states.push("allocated");
    } else if states.is_empty() {
        states.push("pending");
    }
    if view.count("/status/reservedFor") > 0 {
        states.push("reserved");
    }
    states.join(",")
}
