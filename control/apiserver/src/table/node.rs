//! Nodes: readiness, roles, version, addresses.
//!
//! In: a Node. Out: its cells.

use std::collections::BTreeSet;

use serde_json::Value;
use xebec_api::wellknown::labels;

use super::view::{NONE, UNKNOWN, View, text_in};
use super::{AGE, Column, Layout, NAME, string, wide};

const COLUMNS: &[Column] = &[
    NAME,
    string("Status", "Whether the node is ready and takes pods."),
    string("Roles", "The roles the node's labels give it."),
    AGE,
    string("Version", "The version of the node's kubelet."),
    wide("Internal-IP", "The node's address inside of the cluster."),
    wide("External-IP", "The node's address from outside."),
    wide("OS-Image", "The operating system."),
    wide("Kernel-Version", "The kernel's release."),
    wide("Container-Runtime", "The container runtime and its version."),
];

pub(super) const LAYOUT: Layout = Layout { columns: COLUMNS, cells };

fn cells(view: &View<'_>) -> Vec<Value> {
    vec![
        view.name(),
        status(view).into(),
        roles(view).into(),
        view.age(),
        view.cell("/status/nodeInfo/kubeletVersion"),
        address(view, "InternalIP").into(),
        address(view, "ExternalIP").into(),
        view.text_or("/status/nodeInfo/osImage", UNKNOWN).into(),
        view.text_or("/status/nodeInfo/kernelVersion", UNKNOWN).into(),
        view.text_or("/status/nodeInfo/containerRuntimeVersion", UNKNOWN).into(),
    ]
}

fn status(view: &View<'_>) -> String {
    let conditions = view.list("/status/conditions");
    let ready = conditions.iter().rfind(|condition| text_in(condition, "type") == "Ready");
    let word = match ready.map(|condition| text_in(condition, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if view.flag("/spec/unschedulable") { format!("{word},SchedulingDisabled") } else { word.to_owned() }
}

fn roles(view: &View<'_>) -> String {
    let labels = view.at("/metadata/labels").and_then(Value::as_object);
    let role = |(key, value): (&String, &Value)| match key.strip_prefix(labels::NODE_ROLE_PREFIX) {
        Some(role) => Some(role.to_owned()),
        None if key == labels::NODE_ROLE => value.as_str().map(str::to_owned),
        None => None,
    };
    let roles: BTreeSet<String> =
        labels.into_iter().flatten().filter_map(role).filter(|r| !r.is_empty()).collect();
    if roles.is_empty() { NONE.to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn address<'a>(view: &View<'a>, kind: &str) -> &'a str {
    let found = view.list("/status/addresses").iter().find(|address| text_in(address, "type") == kind);
    found.map_or(NONE, |address| text_in(address, "address"))
}
