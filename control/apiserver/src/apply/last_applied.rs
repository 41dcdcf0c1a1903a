//! From an object that kubectl applied by itself to one that it lets the server apply.
//!
//! In: the annotation in which kubectl keeps what it applied last. Out: the fields that are its own without a conflict,
//! whoever they are recorded for; the annotation again, in step with what is applied now, for clients that go back. Other
//! appliers than kubectl take no part in this.

use serde_json::Value;

use super::compare::compare;
use super::field_set::FieldSet;
use super::managers::{Operation, Who};
use super::shape;
use crate::meta;
use crate::schema::{Definition, Schema};

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
const MANAGER: &str = "kubectl";

/// What kubectl applied last and nobody has changed since.
pub(super) fn unchanged(schema: &Schema, definition: &Definition, live: &Value, who: &Who) -> FieldSet {
    let Some(last) = takes_part(who).then(|| read(live)).flatten() else { return FieldSet::default() };
    if meta::text(&last, &["apiVersion"]) != who.api_version {
        return FieldSet::default();
    }
    let mut fields = shape::fields_of(schema, definition, &last);
    let delta = compare(schema, definition, &last, live);
    for differs in [&delta.modified, &delta.added, &delta.removed] {
        fields.subtract(differs);
    }
    fields
}

/// Writes what is applied now into the annotation, where there is one.
pub(super) fn follow(object: &mut Value, config: &Value, who: &Who) {
    if !takes_part(who) || read(object).is_none() {
        return;
    }
    let mut config = config.clone();
    meta::set(&mut config, &["metadata", "annotations", ANNOTATION], None);
    let text = format!("{config}\n");
    meta::set(object, &["metadata", "annotations", ANNOTATION], Some(text.into()));
}

fn takes_part(who: &Who) -> bool {
    who.manager == MANAGER && who.operation == Operation::Apply && who.subresource.is_empty()
}

fn read(object: &Value) -> Option<Value> {
    serde_json::from_str(meta::text(object, &["metadata", "annotations", ANNOTATION])).ok()
}
