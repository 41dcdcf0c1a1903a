//! Defaults of a pod spec wherever one stands: in a pod or in a template.
//!
//! In: the fields of a spec, or of what holds a template. Out: the same, filled.

use serde_json::json;

use super::fill::{Fields, empty, object, objects, round_resources, text, unset};
use super::{container, volume};

/// Fills the `template` of a workload.
pub(super) fn template(holder: &mut Fields) {
    if let Some(template) = object(holder, "template")
        && let Some(spec) = object(template, "spec")
    {
        pod_spec(spec);
    }
}

pub(super) fn pod_spec(spec: &mut Fields) {
    service_account(spec);
    empty(spec, "dnsPolicy", "ClusterFirst");
    empty(spec, "restartPolicy", "Always");
    unset(spec, "securityContext", json!({}));
    unset(spec, "terminationGracePeriodSeconds", 30);
    empty(spec, "schedulerName", "default-scheduler");
    objects(spec, "volumes").for_each(volume::volume);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        objects(spec, list).for_each(container::container);
    }
    if let Some(resources) = object(spec, "resources") {
        round_resources(resources, "limits");
        round_resources(resources, "requests");
    }
    round_resources(spec, "overhead");
}

/// The account's old field mirrors the new one.
fn service_account(spec: &mut Fields) {
    let mut name = text(spec, "serviceAccountName").to_owned();
    if name.is_empty() {
        text(spec, "serviceAccount").clone_into(&mut name);
    }
    if name.is_empty() {
        spec.remove("serviceAccount");
    } else {
        for field in ["serviceAccount", "serviceAccountName"] {
            spec.insert(field.to_owned(), name.clone().into());
        }
    }
}
