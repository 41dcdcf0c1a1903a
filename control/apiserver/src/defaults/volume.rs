//! Defaults of the volumes of a pod, and of the sources they share with persistent volumes.
//!
//! In: the fields of a volume. Out: the same, filled.

use serde_json::json;

use super::fill::{Fields, empty, object, objects, unset};
use super::{container, storage};

/// rw-r--r--
const FILE_MODE: i32 = 0o644;

pub(super) fn volume(volume: &mut Fields) {
    // A volume without a source is an empty directory.
    if volume.keys().all(|name| name == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = object(volume, name) {
            unset(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = object(volume, "downwardAPI") {
        downward_items(source);
    }
    if let Some(source) = object(volume, "projected") {
        for projection in objects(source, "sources") {
            projected(projection);
        }
    }
    if let Some(image) = object(volume, "image") {
        let policy = container::pull_policy(super::fill::text(image, "reference"));
        empty(image, "pullPolicy", policy);
    }
    if let Some(template) =
        object(volume, "ephemeral").and_then(|source| object(source, "volumeClaimTemplate"))
        && let Some(spec) = object(template, "spec")
    {
        storage::claim_spec(spec);
    }
    network_source(volume);
}

/// Sources that persistent volumes have too.
pub(super) fn network_source(source: &mut Fields) {
    if let Some(path) = object(source, "hostPath") {
        unset(path, "type", "");
    }
    if let Some(rbd) = object(source, "rbd") {
        empty(rbd, "pool", "rbd");
        empty(rbd, "user", "admin");
        empty(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(iscsi) = object(source, "iscsi") {
        empty(iscsi, "iscsiInterface", "default");
    }
    if let Some(disk) = object(source, "azureDisk") {
        unset(disk, "cachingMode", "ReadWrite");
        unset(disk, "kind", "Shared");
        unset(disk, "fsType", "ext4");
        unset(disk, "readOnly", false);
    }
    if let Some(scale) = object(source, "scaleIO") {
        empty(scale, "storageMode", "ThinProvisioned");
        empty(scale, "fsType", "xfs");
    }
}

fn projected(projection: &mut Fields) {
    if let Some(token) = object(projection, "serviceAccountToken") {
        unset(token, "expirationSeconds", 3600);
    }
    if let Some(items) = object(projection, "downwardAPI") {
        downward_items(items);
    }
    if let Some(certificate) = object(projection, "podCertificate") {
        unset(certificate, "maxExpirationSeconds", 86_400);
    }
}

fn downward_items(source: &mut Fields) {
    for item in objects(source, "items") {
        if let Some(field) = object(item, "fieldRef") {
            empty(field, "apiVersion", "v1");
        }
        if let Some(resource) = object(item, "resourceFieldRef") {
            unset(resource, "divisor", "0");
        }
    }
}
