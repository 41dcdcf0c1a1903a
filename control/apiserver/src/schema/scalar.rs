//! Scalars with a format of their own: times, quantities, numbers, base64.
//!
//! In: a JSON value. Out: the value in the form upstream stores, or upstream's sentence about it.

use jiff::Timestamp;
use serde_json::{Number, Value};
use xebec_api::quantity;

use super::base64_text;

/// What is wrong with a scalar. Types with a decoder of their own name no field, as upstream's do not.
pub(super) enum ScalarError {
    /// The JSON type does not fit; the field is added by the caller. Holds upstream's word for what was found.
    Mismatch(String),
    /// A whole sentence.
    Sentence(String),
}

/// Upstream's word for a JSON value.
pub(super) fn json_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

pub(super) fn integer(value: &Value, low: i64, high: i64) -> Result<(), ScalarError> {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(number) if (low..=high).contains(&number) => Ok(()),
            _ => Err(ScalarError::Mismatch(format!("number {number}"))),
        },
        other => Err(mismatch(other)),
    }
}

pub(super) fn mismatch(value: &Value) -> ScalarError {
    ScalarError::Mismatch(json_word(value).to_owned())
}

pub(super) fn quantity(value: &mut Value) -> Result<(), ScalarError> {
    let wrong = |error: quantity::QuantityError| ScalarError::Sentence(error.to_string());
    let text = match &*value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number_text(number),
        _ => return Err(wrong(quantity::QuantityError::Format)),
    };
    let canonical = quantity::canonical(&text).map_err(wrong)?;
    if value.as_str() != Some(canonical.as_ref()) {
        *value = canonical.into_owned().into();
    }
    Ok(())
}

/// The shortest text of a number: the JSON tree no longer has the one that was sent.
fn number_text(number: &Number) -> String {
    let text = number.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

pub(super) fn int_or_string(value: &Value) -> Result<(), ScalarError> {
    if value.is_string() {
        return Ok(());
    }
    integer(value, i32::MIN.into(), i32::MAX.into()).map_err(|error| match error {
        ScalarError::Mismatch(found) => {
            ScalarError::Sentence(format!("json: cannot unmarshal {found} into Go value of type int32"))
        }
        sentence @ ScalarError::Sentence(_) => sentence,
    })
}

/// How fine a time is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    Seconds,
    Micros,
}

pub(super) fn time(value: &mut Value, precision: Precision) -> Result<(), ScalarError> {
    let Value::String(text) = &*value else {
        let found = json_word(value);
        let sentence = format!("json: cannot unmarshal {found} into Go value of type string");
        return Err(ScalarError::Sentence(sentence));
    };
    let layout = match precision {
        Precision::Seconds => "2006-01-02T15:04:05Z07:00",
        Precision::Micros => "2006-01-02T15:04:05.000000Z07:00",
    };
    let Some(time) = rfc3339(text) else {
        let sentence = format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"");
        return Err(ScalarError::Sentence(sentence));
    };
    let canonical = match precision {
        Precision::Seconds => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Precision::Micros => {
            format!("{}.{:06}Z", time.strftime("%Y-%m-%dT%H:%M:%S"), time.subsec_nanosecond() / 1000)
        }
    };
    if canonical != *text {
        *value = canonical.into();
    }
    Ok(())
}

/// The library reads more than RFC 3339 allows, so the shape is checked first.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let shaped = text.len() >= 20
        && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
            .iter()
            .all(|&(place, byte)| text.as_bytes()[place] == byte);
    shaped.then(|| text.parse().ok()).flatten()
}

pub(super) fn bytes(value: &mut Value) -> Result<(), ScalarError> {
    let Value::String(text) = &*value else { return Err(mismatch(value)) };
    if let Some(canonical) = base64_text::canonical(text).map_err(ScalarError::Sentence)? {
        *value = canonical.into();
    }
    Ok(())
}
