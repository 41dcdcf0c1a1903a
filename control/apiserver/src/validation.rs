//! Validation of objects: what upstream refuses with 422.
//!
//! In: a kind, an object, its former state. Out: what is wrong, field by field.

use serde_json::Value;

use crate::field_error::FieldError;
use crate::kinds::Gvk;

/// What is wrong with a new object.
pub fn validate_create(_gvk: &Gvk, _object: &Value) -> Vec<FieldError> {
    Vec::new()
}

/// What is wrong with a change.
pub fn validate_update(_gvk: &Gvk, _new: &Value, _old: &Value) -> Vec<FieldError> {
    Vec::new()
}
