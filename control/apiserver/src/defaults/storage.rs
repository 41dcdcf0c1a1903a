//! Defaults of volumes, claims, storage classes and CSI drivers.
//!
//! In: the fields of an object. Out: the same, filled.

use serde_json::json;

use super::fill::{Fields, empty, ensure, object, round_resources, unset};
use super::volume;

pub(super) fn persistent_volume(persistent: &mut Fields) {
    if let Some(spec) = ensure(persistent, "spec") {
        empty(spec, "persistentVolumeReclaimPolicy", "Retain");
        unset(spec, "volumeMode", "Filesystem");
        round_resources(spec, "capacity");
        volume::network_source(spec);
    }
    if let Some(status) = ensure(persistent, "status") {
        empty(status, "phase", "Pending");
    }
}

pub(super) fn claim(claim: &mut Fields) {
    if let Some(spec) = ensure(claim, "spec") {
        claim_spec(spec);
    }
    if let Some(status) = ensure(claim, "status") {
        empty(status, "phase", "Pending");
    }
}

pub(super) fn claim_spec(spec: &mut Fields) {
    unset(spec, "volumeMode", "Filesystem");
    if let Some(resources) = object(spec, "resources") {
        round_resources(resources, "requests");
        round_resources(resources, "limits");
    }
}

pub(super) fn storage_class(class: &mut Fields) {
    unset(class, "reclaimPolicy", "Delete");
    unset(class, "volumeBindingMode", "Immediate");
}

pub(super) fn csi_driver(driver: &mut Fields) {
    let Some(spec) = ensure(driver, "spec") else { return };
    unset(spec, "attachRequired", true);
    unset(spec, "podInfoOnMount", false);
    unset(spec, "storageCapacity", false);
    unset(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    unset(spec, "volumeLifecycleModes", json!(["Persistent"]));
    unset(spec, "requiresRepublish", false);
    unset(spec, "seLinuxMount", false);
}
