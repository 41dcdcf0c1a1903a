//! `metav1.Table`: the columns and cells that `kubectl get` shows.
//!
//! In: a kind, objects of it, the time. Out: a Table. Cells hold the wide columns too, as upstream sends them: clients
//! choose by priority.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::kinds::Gvk;

mod admission;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod core;
mod event;
mod flow;
mod human;
mod networking;
mod node;
mod pod;
mod rbac;
mod resource;
mod service;
mod storage;
mod view;

pub use human::duration as human_duration;
use view::View;

/// What a row carries besides its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// The metadata as a `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

/// A column's definition.
#[derive(Clone, Copy, Debug)]
struct Column {
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    description: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    priority: i32,
}

/// How a kind is shown.
struct Layout {
    columns: &'static [Column],
    cells: fn(&View<'_>) -> Vec<Value>,
}

const NAME: Column =
    Column { format: "name", ..string("Name", "The object's name, unique among its kind in its namespace.") };
const AGE: Column = string("Age", "How long ago the object was created.");
const CONTAINERS: Column = wide("Containers", "The names of the template's containers.");
const IMAGES: Column = wide("Images", "The images of the template's containers.");
const SELECTOR: Column = wide("Selector", "The labels of the pods it stands for.");

const GENERIC: Layout = Layout {
    columns: &[
        NAME,
        Column {
            name: "Created At",
            kind: "date",
            format: "",
            description: "When the object was created.",
            priority: 0,
        },
    ],
    cells: |view| vec![view.cell("/metadata/name"), view.cell("/metadata/creationTimestamp")],
};

/// Renders objects of one kind as a Table; the caller adds the metadata of the list.
pub fn render(gvk: &Gvk, items: &[Value], now: Timestamp, include: Include) -> Value {
    let layout = layout(gvk);
    let rows: Vec<Value> = items.iter().map(|object| row(gvk, &layout, object, now, include)).collect();
    let columns: Vec<Value> = layout.columns.iter().map(Column::definition).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// The same for columns that are not known here.
pub(crate) fn render_rows(
    columns: &Value,
    items: &[Value],
    include: Include,
    cells: impl Fn(&Value) -> Vec<Value>,
) -> Value {
    let rows: Vec<Value> = items
        .iter()
        .map(|object| json!({ "cells": cells(object), "object": include.show(object) }))
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": columns, "rows": rows,
    })
}

fn row(gvk: &Gvk, layout: &Layout, object: &Value, now: Timestamp, include: Include) -> Value {
    let view = View { object, now };
    let mut row = json!({"cells": (layout.cells)(&view), "object": include.show(object)});
    if (&*gvk.group, &*gvk.kind) == ("", "Pod")
        && let Some(condition) = pod::completed(&view)
    {
        row["conditions"] = json!([condition]);
    }
    row
}

fn layout(gvk: &Gvk) -> Layout {
    let kind = &*gvk.kind;
    let known = match &*gvk.group {
        "" => core::layout(kind),
        "apps" => apps::layout(kind),
        "batch" => batch::layout(kind),
        "autoscaling" => autoscaling::layout(kind),
        "policy" => apps::disruption_budget(kind),
        "discovery.k8s.io" | "networking.k8s.io" => networking::layout(kind),
        "events.k8s.io" => (kind == "Event").then_some(event::LAYOUT),
        "storage.k8s.io" => storage::layout(kind),
        "rbac.authorization.k8s.io" => rbac::layout(kind),
        "admissionregistration.k8s.io" | "apiregistration.k8s.io" => admission::layout(kind),
        "flowcontrol.apiserver.k8s.io" => flow::layout(kind),
        "certificates.k8s.io" => certificates::layout(kind),
        "coordination.k8s.io" | "scheduling.k8s.io" | "node.k8s.io" => core::cluster_layout(kind),
        "resource.k8s.io" => resource::layout(kind),
        _ => None,
    };
    known.unwrap_or(GENERIC)
}

const fn string(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 0 }
}

const fn integer(name: &'static str, description: &'static str) -> Column {
    Column { kind: "integer", ..string(name, description) }
}

const fn boolean(name: &'static str, description: &'static str) -> Column {
    Column { kind: "boolean", ..string(name, description) }
}

const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { priority: 1, ..string(name, description) }
}

// === impl Include ===

impl Include {
    fn show(self, object: &Value) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Metadata => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new())),
            }),
            Self::Object => object.clone(),
        }
    }
}

// === impl Column ===

impl Column {
    fn definition(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }
}

#[cfg(test)]
mod tests;
