//! The replicating workloads and their disruption budgets.
//!
//! In: objects of the group `apps`, replication controllers, disruption budgets. Out: their cells.

use serde_json::Value;

use super::view::{View, plain, text_in};
use super::{AGE, CONTAINERS, Column, IMAGES, Layout, NAME, SELECTOR, integer, string};

const READY: Column = string("Ready", "How many of the wanted pods are ready.");
const DESIRED: Column = integer("Desired", "How many pods are wanted.");
const CURRENT: Column = integer("Current", "How many pods there are.");
const READY_COUNT: Column = integer("Ready", "How many pods are ready.");

pub(super) fn layout(kind: &str) -> Option<Layout> {
    Some(match kind {
        "Deployment" => Layout { columns: DEPLOYMENT, cells: deployment },
        "ReplicaSet" => Layout { columns: REPLICA_SET, cells: replica_set },
        "DaemonSet" => Layout { columns: DAEMON_SET, cells: daemon_set },
        "StatefulSet" => Layout { columns: STATEFUL_SET, cells: stateful_set },
        "ControllerRevision" => Layout { columns: REVISION, cells: revision },
        _ => return None,
    })
}

pub(super) fn disruption_budget(kind: &str) -> Option<Layout> {
    (kind == "PodDisruptionBudget").then_some(Layout { columns: BUDGET, cells: budget })
}

pub(super) const REPLICATION_CONTROLLER: Layout =
    Layout { columns: REPLICA_SET, cells: replication_controller };

const DEPLOYMENT: &[Column] = &[
    NAME,
    READY,
    string("Up-to-date", "How many pods follow the current template."),
    string("Available", "How many pods have been ready for long enough."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const REPLICA_SET: &[Column] = &[NAME, DESIRED, CURRENT, READY_COUNT, AGE, CONTAINERS, IMAGES, SELECTOR];

const DAEMON_SET: &[Column] = &[
    NAME,
    DESIRED,
    CURRENT,
    READY_COUNT,
    integer("Up-to-date", "How many nodes run a pod of the current template."),
    integer("Available", "How many nodes run an available pod."),
    string("Node Selector", "The labels of the nodes it runs on."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const STATEFUL_SET: &[Column] = &[NAME, READY, AGE, CONTAINERS, IMAGES];

const REVISION: &[Column] = &[
    NAME,
    string("Controller", "The object whose history this is."),
    string("Revision", "The number of the revision."),
    AGE,
];

const BUDGET: &[Column] = &[
    NAME,
    string("Min Available", "How many pods must stay available."),
    string("Max Unavailable", "How many pods may be unavailable."),
    integer("Allowed Disruptions", "How many pods may be disrupted now."),
    AGE,
];

fn deployment(view: &View<'_>) -> Vec<Value> {
    let [names, images] = view.containers("/spec/template/spec/containers");
    vec![
        view.name(),
        ready_of(view),
        view.number_cell("/status/updatedReplicas"),
        view.number_cell("/status/availableReplicas"),
        view.age(),
        names,
        images,
        view.selector("/spec/selector"),
    ]
}

fn replica_set(view: &View<'_>) -> Vec<Value> {
    replicas(view, view.selector("/spec/selector"))
}

fn replication_controller(view: &View<'_>) -> Vec<Value> {
    replicas(view, view.labels("/spec/selector"))
}

fn replicas(view: &View<'_>, selector: Value) -> Vec<Value> {
    let [names, images] = view.containers("/spec/template/spec/containers");
    vec![
        view.name(),
        view.number_cell("/spec/replicas"),
        view.number_cell("/status/replicas"),
        view.number_cell("/status/readyReplicas"),
        view.age(),
        names,
        images,
        selector,
    ]
}

fn daemon_set(view: &View<'_>) -> Vec<Value> {
    let [names, images] = view.containers("/spec/template/spec/containers");
    vec![
        view.name(),
        view.number_cell("/status/desiredNumberScheduled"),
        view.number_cell("/status/currentNumberScheduled"),
        view.number_cell("/status/numberReady"),
        view.number_cell("/status/updatedNumberScheduled"),
        view.number_cell("/status/numberAvailable"),
        view.labels("/spec/template/spec/nodeSelector"),
        view.age(),
        names,
        images,
        view.selector("/spec/selector"),
    ]
}

fn stateful_set(view: &View<'_>) -> Vec<Value> {
    let [names, images] = view.containers("/spec/template/spec/containers");
    vec![view.name(), ready_of(view), view.age(), names, images]
}

fn ready_of(view: &View<'_>) -> Value {
    format!("{}/{}", view.number("/status/readyReplicas"), view.number("/spec/replicas")).into()
}

fn revision(view: &View<'_>) -> Vec<Value> {
    let owners = view.list("/metadata/ownerReferences");
    let controller =
        owners.iter().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true));
    let controller = controller.map_or_else(
        || super::view::NONE.to_owned(),
        |owner| {
            let version = text_in(owner, "apiVersion");
            let (kind, name) = (text_in(owner, "kind").to_lowercase(), text_in(owner, "name"));
            match version.split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{name}"),
                None => format!("{kind}/{name}"),
            }
        },
    );
    vec![view.name(), controller.into(), view.number_cell("/revision"), view.age()]
}

fn budget(view: &View<'_>) -> Vec<Value> {
    let bound = |path| match plain(view.at(path)).as_str() {
        "" => Value::from("N/A"),
        text => text.into(),
    };
    vec![
        view.name(),
        bound("/spec/minAvailable"),
        bound("/spec/maxUnavailable"),
        view.number_cell("/status/disruptionsAllowed"),
        view.age(),
    ]
}
