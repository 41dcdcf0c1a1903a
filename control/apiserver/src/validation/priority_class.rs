//! PriorityClasses.
//!
//! In: a PriorityClass, and its former state. Out: what is wrong with it, in `Errors`.

use serde_json::Value;

use super::field::{Errors, Field};
use super::rules;

const HIGHEST_PRIORITY: i64 = 1_000_000_000;

pub(super) fn priority_class(object: &Field<'_>, errors: &mut Errors) {
    let (metadata, value) = (object.child("metadata"), object.child("value"));
    let name = metadata.child("name");
    let system = matches!(name.text(), "system-node-critical" | "system-cluster-critical");
    if name.text().starts_with("system-") && !system {
        let detail = "priority class names with 'system-' prefix are reserved for system use only. \
                      error: the priority class name is not a known system class";
        errors.forbidden(&name, detail);
    }
    if !system && value.int().unwrap_or_default() > HIGHEST_PRIORITY {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_PRIORITY}");
        errors.forbidden(&value, detail);
    }
    let policy = object.child("preemptionPolicy");
    rules::optional_one_of(&policy, &["PreemptLowerPriority", "Never"], errors);
}

pub(super) fn update(object: &Field<'_>, old: &Value, errors: &mut Errors) {
    let value = object.child("value");
    if value.int().unwrap_or_default() != old.get("value").and_then(Value::as_i64).unwrap_or_default() {
        errors.forbidden(&value, "may not be changed in an update.");
    }
    let former = old.get("preemptionPolicy").unwrap_or(&Value::Null);
    rules::immutable(&object.child("preemptionPolicy"), former, errors);
}
