//! Pods: how many containers are ready, what the pod is up to, how often it was restarted.
//!
//! In: a Pod. Out: its cells.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::view::{self, NONE, View, text_in};
use super::{AGE, Column, Layout, NAME, string, wide};

const COLUMNS: &[Column] = &[
    NAME,
    string("Ready", "How many of the pod's containers are ready."),
    string("Status", "What the pod's containers are up to, in a word."),
    string("Restarts", "How often the pod's containers were restarted, and when last."),
    AGE,
    wide("IP", "The pod's address."),
    wide("Node", "The node the pod runs on."),
    wide("Nominated Node", "The node the pod will be scheduled to once others have left it."),
    wide("Readiness Gates", "How many of the pod's readiness gates are open."),
];

pub(super) const LAYOUT: Layout = Layout { columns: COLUMNS, cells };

/// What the statuses of the containers add up to.
struct Summary {
    ready: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
    /// Init containers are still at work.
    initializing: bool,
}

fn cells(view: &View<'_>) -> Vec<Value> {
    let init = view.list("/spec/initContainers");
    let total =
        view.count("/spec/containers") + init.iter().filter(|container| is_sidecar(container)).count();
    let summary = summarize(view);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            let ago = super::human::duration(view::whole_seconds(last, view.now));
            format!("{} ({ago} ago)", summary.restarts)
        }
        _ => summary.restarts.to_string(),
    };
    let address = match view.text("/status/podIPs/0/ip") {
        "" => NONE,
        address => address,
    };
    vec![
        view.name(),
        format!("{}/{total}", summary.ready).into(),
        summary.reason.into(),
        restarts.into(),
        view.age(),
        address.into(),
        view.text_or("/spec/nodeName", NONE).into(),
        view.text_or("/status/nominatedNodeName", NONE).into(),
        readiness_gates(view).into(),
    ]
}

/// The row's condition when the pod is done.
pub(super) fn completed(view: &View<'_>) -> Option<Value> {
    let phase = view.text("/status/phase");
    let message = match phase {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": phase, "message": message}))
}

fn summarize(view: &View<'_>) -> Summary {
    let gated = view.list("/status/conditions").iter().any(|condition| {
        text_in(condition, "type") == "PodScheduled" && text_in(condition, "reason") == "SchedulingGated"
    });
    let phase = view.text("/status/phase");
    let reason = match view.text("/status/reason") {
        _ if gated => "SchedulingGated",
        "" => phase,
        reason => reason,
    };
    let mut summary =
        Summary { ready: 0, reason: reason.to_owned(), restarts: 0, last_restart: None, initializing: false };
    let sidecars = init_containers(view, &mut summary);
    if !summary.initializing || view.condition("Initialized") {
        (summary.restarts, summary.last_restart) = sidecars;
        containers(view, &mut summary);
    }
    if view.is_deleted() {
        if view.text("/status/reason") == "NodeLost" {
            "Unknown".clone_into(&mut summary.reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut summary.reason);
        }
    }
    summary
}

/// Walks the init containers up to the first that is not done; answers the restarts of the sidecars among them.
fn init_containers(view: &View<'_>, summary: &mut Summary) -> (i64, Option<Timestamp>) {
    let specs = view.list("/spec/initContainers");
    let (mut sidecar_restarts, mut sidecar_last) = (0, None);
    for (index, status) in view.list("/status/initContainerStatuses").iter().enumerate() {
        let name = text_in(status, "name");
        let sidecar = specs.iter().any(|spec| text_in(spec, "name") == name && is_sidecar(spec));
        let (restarts, last) = restarts(status);
        summary.restarts += restarts;
        summary.last_restart = summary.last_restart.max(last);
        if sidecar {
            sidecar_restarts += restarts;
            sidecar_last = sidecar_last.max(last);
        }
        let terminated = status.pointer("/state/terminated");
        let waiting = status.pointer("/state/waiting").map_or("", |waiting| text_in(waiting, "reason"));
        if terminated.is_some_and(|terminated| code(terminated, "exitCode") == 0) {
            continue;
        }
        if sidecar && is_true(status, "started") {
            summary.ready += usize::from(is_true(status, "ready"));
            continue;
        }
        summary.reason = match (terminated, waiting) {
            (Some(terminated), _) => format!("Init:{}", ended(terminated)),
            (None, "" | "PodInitializing") => format!("Init:{index}/{}", specs.len()),
            (None, reason) => format!("Init:{reason}"),
        };
        summary.initializing = true;
        break;
    }
    (sidecar_restarts, sidecar_last)
}

fn containers(view: &View<'_>, summary: &mut Summary) {
    let mut running = false;
    // Backwards: the first container has the last word.
    for status in view.list("/status/containerStatuses").iter().rev() {
        let (restarts, last) = restarts(status);
        summary.restarts += restarts;
        summary.last_restart = summary.last_restart.max(last);
        let waiting = status.pointer("/state/waiting").map_or("", |waiting| text_in(waiting, "reason"));
        if !waiting.is_empty() {
            waiting.clone_into(&mut summary.reason);
        } else if let Some(terminated) = status.pointer("/state/terminated") {
            summary.reason = ended(terminated);
        } else if is_true(status, "ready") && status.pointer("/state/running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        let word = if view.condition("Ready") { "Running" } else { "NotReady" };
        word.clone_into(&mut summary.reason);
    }
}

/// Why a container ended, in a word.
fn ended(terminated: &Value) -> String {
    match (text_in(terminated, "reason"), code(terminated, "signal")) {
        ("", 0) => format!("ExitCode:{}", code(terminated, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn restarts(status: &Value) -> (i64, Option<Timestamp>) {
    let last =
        status.pointer("/lastState/terminated").map_or("", |terminated| text_in(terminated, "finishedAt"));
    (code(status, "restartCount"), view::parse(last))
}

fn readiness_gates(view: &View<'_>) -> String {
    let gates = view.list("/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| view.condition(text_in(gate, "conditionType"))).count();
    format!("{open}/{}", gates.len())
}

fn is_sidecar(container: &Value) -> bool {
    text_in(container, "restartPolicy") == "Always"
}

fn is_true(value: &Value, field: &str) -> bool {
    value.get(field).and_then(Value::as_bool).unwrap_or_default()
}

fn code(value: &Value, field: &str) -> i64 {
    value.get(field).and_then(Value::as_i64).unwrap_or_default()
}
