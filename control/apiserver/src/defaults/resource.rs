//! Defaults of dynamic resource claims.
//!
//! In: the fields of an object. Out: the same, filled.

use super::fill::{Fields, empty, object, objects, text};

pub(super) fn claim(claim: &mut Fields) {
    let devices = object(claim, "spec").and_then(|spec| object(spec, "devices"));
    let Some(devices) = devices else { return };
    for request in objects(devices, "requests") {
        if let Some(exactly) = object(request, "exactly") {
            device_request(exactly);
        }
        objects(request, "firstAvailable").for_each(device_request);
    }
}

pub(super) fn claim_template(template: &mut Fields) {
    if let Some(spec) = object(template, "spec") {
        claim(spec);
    }
}

fn device_request(request: &mut Fields) {
    empty(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        empty(request, "count", 1);
    }
    for toleration in objects(request, "tolerations") {
        empty(toleration, "operator", "Equal");
    }
}
