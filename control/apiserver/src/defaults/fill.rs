//! Filling JSON objects.
//!
//! In: the fields of an object and a value. Out: the fields, the value set where it was not.
//!
//! Two notions of "not set", as upstream's types have them: `unset` for fields that keep an explicit zero, `empty` for
//! fields whose zero means absent.

use serde_json::{Map, Value};
use xebec_api::quantity::{Format, Quantity};

pub(super) type Fields = Map<String, Value>;

/// Sets a field that is absent.
pub(super) fn unset(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    if !fields.contains_key(name) {
        fields.insert(name.to_owned(), value.into());
    }
}

/// Sets a field that is absent, an empty string or zero.
pub(super) fn empty(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    if fields.get(name).is_none_or(is_zero) {
        fields.insert(name.to_owned(), value.into());
    }
}

/// The object in a field, if there is one.
pub(super) fn object<'a>(fields: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    fields.get_mut(name).and_then(Value::as_object_mut)
}

/// The object in a field, made when absent; `None` when the field holds something else.
pub(super) fn ensure<'a>(fields: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    fields.entry(name).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

/// The objects in a list field.
pub(super) fn objects<'a>(fields: &'a mut Fields, name: &str) -> impl Iterator<Item = &'a mut Fields> {
    let list = fields.get_mut(name).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// The text of a field; empty when it has none.
pub(super) fn text<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Rounds the amounts of a resource list up to thousandths.
pub(super) fn round_resources(fields: &mut Fields, name: &str) {
    const MILLI: i128 = 1_000_000;
    for amount in object(fields, name).into_iter().flat_map(Map::values_mut) {
        let Some(Ok(quantity)) = amount.as_str().map(Quantity::parse) else { continue };
        let nanos = quantity.nanos();
        if nanos % MILLI != 0 {
            let rounded = (nanos / MILLI + nanos.signum()) * MILLI;
            let format: Format = quantity.format();
            *amount = Quantity::from_nanos(rounded, format).to_string().into();
        }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}
