//! containerd's record of a container: its id, its labels, its runtime options.
//!
//! In: a [`ContainerKey`] and what belongs to it. Out: the record, and everything read back from it after a restart. Pure.
//! An image's labels never come here (CVE-2026-53488).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use containerd_client::services::v1::Container as Record;
use containerd_client::services::v1::container::Runtime;
use oci_spec::runtime::Spec;
use prost::Message;
use prost_types::Any;
use sha2::{Digest, Sha256};

use crate::error::RuntimeError;
use crate::types::{ContainerConfig, ContainerId, ContainerKey};

const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const ATTEMPT: &str = "xebec.dev/attempt";
const GENERATION: &str = "xebec.dev/generation";
/// On a record whose creation was cut off and begun again under another id. Nobody but its removal looks at it.
const SUPERSEDED: &str = "xebec.dev/superseded";
/// Marks what is ours among the containers of the namespace.
const MANAGED: &str = "xebec.dev/managed";
const IMAGE_ID: &str = "xebec.dev/image-id";
const CGROUP: &str = "xebec.dev/cgroup";
/// URI of the log sink: a task that must be made again logs to the same file.
const LOG: &str = "xebec.dev/log";
const TTY: &str = "xebec.dev/tty";
const STDIN: &str = "xebec.dev/stdin";
/// Before the names of the caller's own labels.
const EXTRA: &str = "xebec.dev/label/";
/// containerd's limit for a label's name and value together.
const LONGEST_LABEL: usize = 4096;

const RUNTIME: &str = "io.containerd.runc.v2";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
pub(crate) const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const OPTIONS_TYPE: &str = "containerd.runc.v1.Options";

/// Selects our containers in a list call.
pub(crate) fn filter() -> String {
    format!("labels.\"{MANAGED}\"==true")
}

/// Selects all generations of one container.
pub(crate) fn filter_of(key: &ContainerKey) -> String {
    let equal = |name: &str, value: &str| format!("labels.{name:?}=={value:?}");
    [
        equal(POD_UID, &key.pod_uid),
        equal(CONTAINER_NAME, &key.container),
        equal(ATTEMPT, &key.attempt.to_string()),
    ]
    .join(",")
}

/// The label of a record that another generation replaces.
pub(crate) fn superseded() -> (&'static str, String) {
    (SUPERSEDED, "true".to_owned())
}

/// `containerd.runc.v1.Options`: the client crate has the definition but not the type.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    #[prost(string, tag = "6")]
    binary_name: String,
    #[prost(string, tag = "7")]
    root: String,
    #[prost(bool, tag = "9")]
    systemd_cgroup: bool,
}

/// What is read back from a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) key: ContainerKey,
    /// How often the creation of this container was begun before.
    pub(crate) generation: u32,
    pub(crate) superseded: bool,
    pub(crate) pod_namespace: String,
    pub(crate) pod_name: String,
    pub(crate) image_id: String,
    pub(crate) cgroup: String,
    pub(crate) log: String,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Settings that all records share.
pub(crate) struct Template<'a> {
    pub(crate) snapshotter: &'a str,
    pub(crate) runc_root: &'a Path,
    pub(crate) runc_binary: Option<&'a Path>,
    pub(crate) generation: u32,
}

/// The id of a container: the same for the same key, on every node and after every restart. A creation that was cut off
/// is begun again as the next generation: containerd clears away what the first had begun by its id, on its own time.
pub(crate) fn id_of(key: &ContainerKey, generation: u32) -> ContainerId {
    let mut hash = Sha256::new();
    let numbers = [key.attempt.to_le_bytes(), generation.to_le_bytes()].concat();
    for part in [key.pod_uid.as_bytes(), key.container.as_bytes(), &numbers] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    ContainerId(hex::encode(&hash.finalize()[..16]))
}

/// The container's cgroup, below the hierarchy roots.
pub(crate) fn cgroup_of(config: &ContainerConfig, id: &ContainerId) -> String {
    format!("{}/{}", config.sandbox.cgroup_parent.trim_end_matches('/'), id.0)
}

/// # Errors
/// [`RuntimeError::Config`] when a label is too long.
pub(crate) fn build(
    config: &ContainerConfig,
    id: &ContainerId,
    spec: &Spec,
    log: &str,
    template: &Template<'_>,
) -> Result<Record, RuntimeError> {
    let mut labels: HashMap<String, String> = [
        (POD_NAME, config.pod_name.clone()),
        (POD_NAMESPACE, config.pod_namespace.clone()),
        (POD_UID, config.key.pod_uid.clone()),
        (CONTAINER_NAME, config.key.container.clone()),
        (ATTEMPT, config.key.attempt.to_string()),
        (GENERATION, template.generation.to_string()),
        (MANAGED, "true".to_owned()),
        (IMAGE_ID, config.image.id.clone()),
        (CGROUP, cgroup_of(config, id)),
        (LOG, log.to_owned()),
        (TTY, config.tty.to_string()),
        (STDIN, config.stdin.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    labels.extend(config.labels.iter().map(|(name, value)| (format!("{EXTRA}{name}"), value.clone())));
    if let Some((name, value)) = labels.iter().find(|(name, value)| name.len() + value.len() > LONGEST_LABEL)
    {
        let length = name.len() + value.len();
        return Err(RuntimeError::Config(format!(
            "label {name} is {length} bytes long, more than {LONGEST_LABEL}"
        )));
    }
    let spec = serde_json::to_vec(spec)
        .map_err(|e| RuntimeError::Config(format!("the specification cannot be written: {e}")))?;
    let options = RuncOptions {
        binary_name: template.runc_binary.map(|path| path.display().to_string()).unwrap_or_default(),
        root: template.runc_root.display().to_string(),
        systemd_cgroup: false,
    };
    let options = Any { type_url: OPTIONS_TYPE.into(), value: options.encode_to_vec() };
    let image = config.image.names.first().unwrap_or(&config.image.id).clone();
    Ok(Record {
        id: id.0.clone(),
        labels,
        image,
        runtime: Some(Runtime { name: RUNTIME.into(), options: Some(options) }),
        spec: Some(Any { type_url: SPEC_TYPE.into(), value: spec }),
        snapshotter: template.snapshotter.to_owned(),
        snapshot_key: id.0.clone(),
        ..Default::default()
    })
}

/// Who a record is; `None` when it is not one of ours.
pub(crate) fn identity(record: &Record) -> Option<Identity> {
    let label = |name: &str| record.labels.get(name).cloned();
    let extra = record
        .labels
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(EXTRA)?.to_owned(), value.clone())));
    label(MANAGED)?;
    Some(Identity {
        key: ContainerKey {
            pod_uid: label(POD_UID)?,
            container: label(CONTAINER_NAME)?,
            attempt: label(ATTEMPT)?.parse().ok()?,
        },
        generation: label(GENERATION)?.parse().ok()?,
        superseded: label(SUPERSEDED).is_some(),
        pod_namespace: label(POD_NAMESPACE)?,
        pod_name: label(POD_NAME)?,
        image_id: label(IMAGE_ID)?,
        cgroup: label(CGROUP)?,
        log: label(LOG)?,
        tty: label(TTY)? == "true",
        stdin: label(STDIN).is_some_and(|stdin| stdin == "true"),
        labels: extra.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::config;

    #[test]
    fn ids_are_short_stable_and_distinct() {
        let key = |uid: &str, container: &str, attempt| ContainerKey {
            pod_uid: uid.into(),
            container: container.into(),
            attempt,
        };
        let id = id_of(&key("uid-1", "main", 0), 0);
        assert_eq!(id, id_of(&key("uid-1", "main", 0), 0));
        assert_eq!(id.0.len(), 32);
        for other in [key("uid-1", "main", 1), key("uid-1m", "ain", 0), key("uid-2", "main", 0)] {
            assert_ne!(id, id_of(&other, 0));
        }
        assert_ne!(id, id_of(&key("uid-1", "main", 0), 1));
    }

    #[test]
    fn a_record_tells_who_it_is() {
        let mut config = config();
        config.labels.insert("hash".into(), "abc".into());
        config.tty = true;
        let id = id_of(&config.key, 2);
        let template = Template {
            snapshotter: "overlayfs",
            runc_root: Path::new("/run/x"),
            runc_binary: None,
            generation: 2,
        };
        let mut record =
            build(&config, &id, &Spec::default(), "binary:///sink?log-sink=x", &template).unwrap();
        let found = identity(&record).unwrap();
        assert_eq!(found.key, config.key);
        assert_eq!(found.labels, config.labels);
        assert_eq!(found.cgroup, format!("/kubepods/pod1/{}", id.0));
        assert!(found.tty);
        assert_eq!((found.generation, found.superseded), (2, false));
        assert_eq!(record.snapshot_key, id.0);
        let (name, value) = superseded();
        record.labels.insert(name.into(), value);
        assert!(identity(&record).unwrap().superseded);
        config.labels.insert("long".into(), "x".repeat(LONGEST_LABEL));
        assert!(build(&config, &id, &Spec::default(), "", &template).is_err());
    }

    #[test]
    fn foreign_containers_are_not_ours() {
        let mut record = Record::default();
        assert_eq!(identity(&record), None);
        record.labels.insert(POD_NAME.into(), "web".into());
        assert_eq!(identity(&record), None);
    }
}
