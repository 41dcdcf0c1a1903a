//! Claims of storage, on their own and in templates.
//!
//! In: the spec of a claim. Out: what is wrong with it, in `Errors`.

use serde_json::Value;
use xebec_api::names;

use super::field::{Errors, Field};
use super::{resources, rules, selector};

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub(super) fn claim_spec(spec: &Field<'_>, errors: &mut Errors) {
    let modes = spec.child("accessModes");
    if modes.is_empty() {
        errors.required(&modes, "at least 1 access mode is required");
    }
    let single = modes.items().any(|mode| mode.text() == "ReadWriteOncePod");
    if single && modes.len() > 1 {
        errors.forbidden(&modes, "may not use ReadWriteOncePod with other access modes");
    }
    selector::label_selector(&spec.child("selector"), errors);
    for mode in modes.items() {
        if !MODES.contains(&mode.text()) {
            errors.not_supported(&modes.with(mode.value()), MODES);
        }
    }
    let requirements = spec.child("resources");
    let requests = requirements.child("requests");
    let storage = requests.key("storage");
    if storage.is_set() {
        resources::positive(&storage, errors);
    } else {
        errors.required(&requirements.key("storage"), "");
    }
    rules::optional_name(&spec.child("storageClassName"), names::dns1123_subdomain, errors);
    rules::optional_one_of(&spec.child("volumeMode"), &["Block", "Filesystem"], errors);
}

/// A claim is a contract: once made, only more storage can be asked for.
pub(super) fn claim_update(object: &Field<'_>, old: &Value, errors: &mut Errors) {
    let spec = object.child("spec");
    let bound = old.pointer("/status/phase").and_then(Value::as_str) == Some("Bound");
    let fixed = |spec: &Value, named: bool| {
        let mut spec = spec.clone();
        if let Some(fields) = spec.as_object_mut() {
            if bound {
                fields.remove("resources");
            }
            fields.remove("volumeAttributesClassName");
            // The binder names the volume, once.
            if !named {
                fields.remove("volumeName");
            }
        }
        spec
    };
    let former = old.get("spec").unwrap_or(&Value::Null);
    let named = former.get("volumeName").is_some();
    if fixed(spec.value(), named) != fixed(former, named) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName \
                      for bound claims";
        errors.forbidden(&spec, detail);
    }
}
