//! Volumes, claims, storage classes and what CSI registers.
//!
//! In: objects of the group `storage.k8s.io`, volumes and claims. Out: their cells.

use serde_json::Value;
use xebec_api::wellknown::annotations;

use super::view::{NONE, UNSET, View, text_in};
use super::{AGE, Column, Layout, NAME, boolean, integer, string, wide};

const CAPACITY: Column = string("Capacity", "How much the volume holds.");
const MODES: Column = string("Access Modes", "How the volume may be mounted.");
const CLASS: Column = string("StorageClass", "The class the volume is of.");
const ATTRIBUTES_CLASS: Column = string("VolumeAttributesClass", "The class of attributes that can change.");
const VOLUME_MODE: Column = wide("VolumeMode", "Whether it is a file system or a block device.");

pub(super) const VOLUME: Layout = Layout {
    columns: const {
        &[
            NAME,
            CAPACITY,
            MODES,
            string("Reclaim Policy", "What happens to the volume when it is released."),
            string("Status", "Whether the volume is free, bound or released."),
            string("Claim", "The claim the volume is bound to."),
            CLASS,
            ATTRIBUTES_CLASS,
            string("Reason", "Why the volume is in this state."),
            AGE,
            VOLUME_MODE,
        ]
    },
    cells: volume,
};

pub(super) const CLAIM: Layout = Layout {
    columns: const {
        &[
            NAME,
            string("Status", "Whether the claim is bound."),
            string("Volume", "The volume the claim is bound to."),
            CAPACITY,
            MODES,
            CLASS,
            ATTRIBUTES_CLASS,
            AGE,
            VOLUME_MODE,
        ]
    },
    cells: claim,
};

pub(super) fn layout(kind: &str) -> Option<Layout> {
    Some(match kind {
        "StorageClass" => Layout { columns: STORAGE_CLASS, cells: storage_class },
        "VolumeAttributesClass" => Layout {
            columns: const { &[NAME, string("DriverName", "The driver of the class."), AGE] },
            cells: |view| vec![view.name(), view.cell("/driverName"), view.age()],
        },
        "VolumeAttachment" => Layout { columns: ATTACHMENT, cells: attachment },
        "CSINode" => Layout {
            columns: const { &[NAME, integer("Drivers", "How many drivers the node has."), AGE] },
            cells: |view| vec![view.name(), view.count("/spec/drivers").into(), view.age()],
        },
        "CSIDriver" => Layout { columns: DRIVER, cells: driver },
        "CSIStorageCapacity" => Layout {
            columns: const {
                &[
                    NAME,
                    string("StorageClassName", "The class the capacity is for."),
                    string("Capacity", "How much can be provisioned."),
                ]
            },
            cells: |view| {
                vec![view.name(), view.cell("/storageClassName"), view.text_or("/capacity", UNSET).into()]
            },
        },
        _ => return None,
    })
}

const STORAGE_CLASS: &[Column] = &[
    NAME,
    string("Provisioner", "Who makes volumes of the class."),
    string("ReclaimPolicy", "What happens to volumes of the class when they are released."),
    string("VolumeBindingMode", "When claims of the class are bound."),
    string("AllowVolumeExpansion", "Whether volumes of the class can grow."),
    AGE,
];

const ATTACHMENT: &[Column] = &[
    NAME,
    Column { format: "name", ..string("Attacher", "The driver that attaches.") },
    string("PV", "The volume."),
    string("Node", "The node."),
    boolean("Attached", "Whether the volume is attached to the node."),
    AGE,
];

const DRIVER: &[Column] = &[
    NAME,
    boolean("AttachRequired", "Whether volumes must be attached first."),
    boolean("PodInfoOnMount", "Whether the driver is told about the pod."),
    boolean("StorageCapacity", "Whether the driver publishes its capacity."),
    string("TokenRequests", "The audiences of tokens the driver is given."),
    boolean("RequiresRepublish", "Whether the driver is called again and again."),
    string("Modes", "The kinds of volumes the driver supports."),
    AGE,
];

fn volume(view: &View<'_>) -> Vec<Value> {
    let claim = match view.at("/spec/claimRef") {
        Some(claim) => format!("{}/{}", text_in(claim, "namespace"), text_in(claim, "name")),
        None => String::new(),
    };
    let capacity = view.at("/spec/capacity/storage").and_then(Value::as_str).unwrap_or("0");
    vec![
        view.name(),
        capacity.into(),
        modes(view, "/spec/accessModes").into(),
        view.cell("/spec/persistentVolumeReclaimPolicy"),
        phase(view),
        claim.into(),
        class(view).into(),
        view.text_or("/spec/volumeAttributesClassName", UNSET).into(),
        view.cell("/status/reason"),
        view.age(),
        view.text_or("/spec/volumeMode", UNSET).into(),
    ]
}

fn claim(view: &View<'_>) -> Vec<Value> {
    let bound = view.text("/spec/volumeName");
    let (capacity, modes) = if bound.is_empty() {
        (String::new(), String::new())
    } else {
        let capacity = view.at("/status/capacity/storage").and_then(Value::as_str).unwrap_or("0");
        (capacity.to_owned(), modes(view, "/status/accessModes"))
    };
    vec![
        view.name(),
        phase(view),
        bound.into(),
        capacity.into(),
        modes.into(),
        class(view).into(),
        view.text_or("/spec/volumeAttributesClassName", UNSET).into(),
        view.age(),
        view.text_or("/spec/volumeMode", UNSET).into(),
    ]
}

fn phase(view: &View<'_>) -> Value {
    if view.is_deleted() { "Terminating".into() } else { view.cell("/status/phase") }
}

/// The older annotation wins over the field.
fn class<'a>(view: &View<'a>) -> &'a str {
    let annotations = view.at("/metadata/annotations");
    match annotations.and_then(|all| all.get(annotations::BETA_STORAGE_CLASS)).and_then(Value::as_str) {
        Some(class) => class,
        None => view.text("/spec/storageClassName"),
    }
}

/// Modes in short, in upstream's order.
fn modes(view: &View<'_>, path: &str) -> String {
    let has = |mode: &str| view.list(path).iter().any(|listed| listed == mode);
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    short.into_iter().filter(|(mode, _)| has(mode)).map(|(_, short)| short).collect::<Vec<_>>().join(",")
}

fn storage_class(view: &View<'_>) -> Vec<Value> {
    let annotations = view.at("/metadata/annotations");
    let is_default = [annotations::DEFAULT_STORAGE_CLASS, annotations::BETA_DEFAULT_STORAGE_CLASS]
        .into_iter()
        .any(|key| annotations.is_some_and(|all| text_in(all, key) == "true"));
    let name = view.text("/metadata/name");
    let name = if is_default { format!("{name} (default)") } else { name.to_owned() };
    vec![
        name.into(),
        view.cell("/provisioner"),
        view.text_or("/reclaimPolicy", "Delete").into(),
        view.text_or("/volumeBindingMode", "Immediate").into(),
        view.flag("/allowVolumeExpansion").into(),
        view.age(),
    ]
}

fn attachment(view: &View<'_>) -> Vec<Value> {
    vec![
        view.name(),
        view.cell("/spec/attacher"),
        view.cell("/spec/source/persistentVolumeName"),
        view.cell("/spec/nodeName"),
        view.flag("/status/attached").into(),
        view.age(),
    ]
}

fn driver(view: &View<'_>) -> Vec<Value> {
    let flag = |path: &str, absent: bool| -> Value {
        view.at(path).and_then(Value::as_bool).unwrap_or(absent).into()
    };
    let modes: Vec<&str> = view.list("/spec/volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
    let modes = if modes.is_empty() { NONE.to_owned() } else { modes.join(",") };
    let audiences: Vec<&str> =
        view.list("/spec/tokenRequests").iter().map(|request| text_in(request, "audience")).collect();
    let tokens =
        if view.at("/spec/tokenRequests").is_none() { UNSET.to_owned() } else { audiences.join(",") };
    vec![
        view.name(),
        flag("/spec/attachRequired", true),
        flag("/spec/podInfoOnMount", false),
        flag("/spec/storageCapacity", false),
        tokens.into(),
        flag("/spec/requiresRepublish", false),
        modes.into(),
        view.age(),
    ]
}
