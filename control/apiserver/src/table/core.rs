//! The small kinds of the core group and of the groups with one kind.
//!
//! In: a kind's name. Out: how it is shown.

use serde_json::Value;

use super::view::{NONE, View, format_labels, text_in};
use super::{
    AGE, Column, Layout, NAME, apps, boolean, event, integer, networking, node, pod, service, storage, string,
};

pub(super) fn layout(kind: &str) -> Option<Layout> {
    Some(match kind {
        "Pod" => pod::LAYOUT,
        "Service" => service::LAYOUT,
        "Node" => node::LAYOUT,
        "Event" => event::LAYOUT,
        "Endpoints" => networking::ENDPOINTS,
        "PersistentVolume" => storage::VOLUME,
        "PersistentVolumeClaim" => storage::CLAIM,
        "ReplicationController" => apps::REPLICATION_CONTROLLER,
        "Namespace" => Layout {
            columns: const { &[NAME, string("Status", "Whether the namespace is in use or on its way out."), AGE] },
            cells: |view| vec![view.name(), view.cell("/status/phase"), view.age()],
        },
        "Secret" => Layout {
            columns: const {
                &[
                    NAME,
                    string("Type", "What the secret is for."),
                    string("Data", "How many entries the secret has."),
                    AGE,
                ]
            },
            cells: |view| vec![view.name(), view.cell("/type"), view.count("/data").into(), view.age()],
        },
        "ConfigMap" => Layout {
            columns: const { &[NAME, string("Data", "How many entries the map has."), AGE] },
            cells: |view| {
                let entries = view.count("/data") + view.count("/binaryData");
                vec![view.name(), entries.into(), view.age()]
            },
        },
        "ServiceAccount" => Layout {
            columns: const { &[NAME, string("Secrets", "How many secrets pods of the account may use."), AGE] },
            cells: |view| vec![view.name(), view.count("/secrets").into(), view.age()],
        },
        "PodTemplate" => Layout { columns: POD_TEMPLATE, cells: pod_template },
        "ResourceQuota" => Layout { columns: QUOTA, cells: quota },
        "ComponentStatus" => Layout { columns: COMPONENT, cells: component },
        _ => return None,
    })
}

pub(super) fn cluster_layout(kind: &str) -> Option<Layout> {
    Some(match kind {
        "Lease" => Layout {
            columns: const { &[NAME, string("Holder", "Who holds the lease."), AGE] },
            cells: |view| vec![view.name(), view.cell("/spec/holderIdentity"), view.age()],
        },
        "PriorityClass" => Layout {
            columns: const {
                &[
                    NAME,
                    integer("Value", "The priority of the class's pods."),
                    boolean("Global-Default", "Whether pods without a class get this one."),
                    AGE,
                    string("PreemptionPolicy", "Whether the class's pods displace others."),
                ]
            },
            cells: |view| {
                vec![
                    view.name(),
                    view.number_cell("/value"),
                    view.flag("/globalDefault").into(),
                    view.age(),
                    view.cell("/preemptionPolicy"),
                ]
            },
        },
        "RuntimeClass" => Layout {
            columns: const { &[NAME, string("Handler", "The runtime's name for the class."), AGE] },
            cells: |view| vec![view.name(), view.cell("/handler"), view.age()],
        },
        _ => return None,
    })
}

const POD_TEMPLATE: &[Column] = &[
    NAME,
    string("Containers", "The names of the template's containers."),
    string("Images", "The images of the template's containers."),
    string("Pod Labels", "The labels of the template."),
];

const QUOTA: &[Column] = &[
    NAME,
    string("Request", "What is used and allowed of requests and objects."),
    string("Limit", "What is used and allowed of limits."),
    AGE,
];

const COMPONENT: &[Column] = &[
    NAME,
    string("Status", "Whether the component is healthy."),
    string("Message", "What the component says."),
    string("Error", "What went wrong when it was asked."),
];

fn pod_template(view: &View<'_>) -> Vec<Value> {
    let [names, images] = view.containers("/template/spec/containers");
    let labels = view.at("/template/metadata/labels").and_then(Value::as_object);
    vec![view.name(), names, images, labels.map_or_else(|| NONE.to_owned(), format_labels).into()]
}

fn quota(view: &View<'_>) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let mut hard: Vec<_> = view.at("/status/hard").and_then(Value::as_object).into_iter().flatten().collect();
    hard.sort_unstable_by_key(|(name, _)| *name);
    for (name, allowed) in hard {
        let used = view.at("/status/used").and_then(|used| used.get(name)).and_then(Value::as_str);
        let text = format!("{name}: {}/{}", used.unwrap_or("0"), allowed.as_str().unwrap_or_default());
        if name.starts_with("limits") { limits.push(text) } else { requests.push(text) }
    }
    vec![view.name(), requests.join(", ").into(), limits.join(", ").into(), view.age()]
}

fn component(view: &View<'_>) -> Vec<Value> {
    let healthy = view.list("/conditions").iter().find(|condition| text_in(condition, "type") == "Healthy");
    let Some(condition) = healthy else {
        return vec![view.name(), "Unknown".into(), "".into(), "".into()];
    };
    let status = if text_in(condition, "status") == "True" { "Healthy" } else { "Unhealthy" };
    vec![view.name(), status.into(), text_in(condition, "message").into(), text_in(condition, "error").into()]
}
