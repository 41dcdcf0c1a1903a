//! The directives of a patch that concern one object, and taking directives out of what becomes part of the object.
//!
//! In: patches. Out: patches and objects without them.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::go_text::go_map;
use super::{Directive, PatchError};

pub(super) const MARKER: &str = "$patch";
pub(super) const REPLACE: &str = "replace";
pub(super) const DELETE: &str = "delete";
pub(super) const MERGE: &str = "merge";
pub(super) const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
pub(super) const SET_ORDER: &str = "$setElementOrder/";
const RETAIN_KEYS: &str = "$retainKeys";

pub(super) fn unknown(directive: &Value, patch: &Map<String, Value>) -> PatchError {
    let directive = directive.as_str().map_or_else(|| directive.to_string(), str::to_owned);
    PatchError::Mismatch(format!("unknown patch type: {directive} in map: {}", go_map(patch)))
}

/// Drops the fields of the object that `$retainKeys` does not name. All fields of the patch must be named.
pub(super) fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else { return Err(PatchError::Format(Directive::RetainKeys)) };
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let named = |name: &str| keys.contains(name);
    let stray = patch.iter().any(|(name, value)| {
        let directive = name.starts_with(DELETE_FROM_LIST) || name.starts_with(SET_ORDER);
        !value.is_null() && !directive && !named(name)
    });
    if stray {
        return Err(PatchError::Format(Directive::RetainKeys));
    }
    original.retain(|name, _| named(name));
    Ok(())
}

/// A new value as it goes into the object: without nulls and directives. `None` when it is a directive itself.
pub(super) fn plain(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(MARKER) => None,
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Some(Value::Object(kept.filter_map(|(name, value)| Some((name, plain(value)?))).collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(plain).collect())),
        scalar => Some(scalar),
    }
}
