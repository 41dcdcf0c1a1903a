//! Values without fields of their own, and the few messages that JSON writes as one value.
//!
//! In: a value on the wire, what its field holds. Out: the JSON value.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Number, Value};

use super::DecodeError;
use super::table::Kind;
use super::wire::{Reader, WireValue};

pub(super) fn read(kind: &Kind, field: &str, value: WireValue<'_>) -> Result<Value, DecodeError> {
    let fault = |what| DecodeError::Field { field: field.to_owned(), what };
    Ok(match kind {
        Kind::Text => value.text()?.into(),
        Kind::Bool => (value.integer()? != 0).into(),
        Kind::Integer => value.integer()?.into(),
        Kind::Double => match value {
            WireValue::Fixed64(bits) => Number::from_f64(f64::from_bits(bits))
                .map(Value::Number)
                .ok_or_else(|| fault("a number that JSON cannot hold"))?,
            _ => return Err(fault("no number")),
        },
        Kind::Bytes => STANDARD.encode(value.bytes()?).into(),
        Kind::Time => instant(value, |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())?
            .map_err(|()| fault("no time that can be written"))?,
        Kind::MicroTime => instant(value, |at| at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())?
            .map_err(|()| fault("no time that can be written"))?,
        Kind::Quantity => first(value)?.map_or(Ok(Value::from("0")), |text| text.text().map(Value::from))?,
        Kind::IntOrString => int_or_string(value)?,
        Kind::RawJson => match first(value)? {
            None | Some(WireValue::Bytes([])) => Value::Null,
            Some(raw) => serde_json::from_slice(raw.bytes()?).map_err(|_| fault("no JSON"))?,
        },
        Kind::Message(_) => return Err(fault("no scalar")),
    })
}

/// Field 1 of a message.
fn first(value: WireValue<'_>) -> Result<Option<WireValue<'_>>, DecodeError> {
    let mut fields = Reader::new(value.bytes()?);
    let mut found = None;
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            found = Some(value);
        }
    }
    Ok(found)
}

/// Seconds and nanoseconds; the zero time, which Go writes as nothing, is null.
fn instant(
    value: WireValue<'_>,
    write: impl FnOnce(Timestamp) -> String,
) -> Result<Result<Value, ()>, DecodeError> {
    let (mut seconds, mut nanoseconds) = (None, 0);
    let mut fields = Reader::new(value.bytes()?);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => seconds = Some(value.integer()?),
            2 => nanoseconds = value.integer()?,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(Ok(Value::Null)) };
    let at = i32::try_from(nanoseconds).ok().and_then(|nanos| Timestamp::new(seconds, nanos).ok());
    Ok(at.map(|at| write(at).into()).ok_or(()))
}

fn int_or_string(value: WireValue<'_>) -> Result<Value, DecodeError> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    let mut fields = Reader::new(value.bytes()?);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => is_text = value.integer()? == 1,
            2 => number = value.integer()?,
            3 => text = value.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}
