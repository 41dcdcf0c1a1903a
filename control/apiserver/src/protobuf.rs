//! Bodies in Protocol Buffers, which clients with built-in types send by default.
//!
//! In: the bytes of a request's body. Out: the tree that the same client would have sent as JSON: what is known further
//! on is JSON alone. Answers are never in this format; clients that prefer it take JSON as well. Fields that v1.37
//! does not have are left out, as upstream leaves them out.

mod scalar;
mod table;
mod wire;
mod zeros;

use serde_json::{Map, Value};

use crate::status::ApiError;
pub(crate) use zeros::omit_zeros;

use table::{Field, Kind, Message, Shape, Table};
use wire::{Reader, WireError, WireValue};

/// The format's media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Far beyond the depth of any type in the table.
const MAX_DEPTH: usize = 64;

/// Why a body cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum DecodeError {
    #[error("it does not begin as one")]
    Magic,
    #[error("{0} is not known in this format")]
    Kind(String),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("{field}: {what}")]
    Field { field: String, what: &'static str },
    #[error("it is nested too deeply")]
    Depth,
}

/// What is around every object: its type, then its bytes.
#[derive(Default)]
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

/// Reads one object.
pub(crate) fn decode(body: &[u8]) -> Result<Value, ApiError> {
    try_decode(body).map_err(|error| ApiError::bad_request(format!("invalid protobuf: {error}")))
}

fn try_decode(body: &[u8]) -> Result<Value, DecodeError> {
    let envelope = Envelope::read(body.strip_prefix(MAGIC).ok_or(DecodeError::Magic)?)?;
    let message = Table::global()
        .kind(&envelope.api_version, &envelope.kind)
        .ok_or_else(|| DecodeError::Kind(format!("{} {}", envelope.api_version, envelope.kind)))?;
    let mut object = Map::new();
    object.insert("apiVersion".into(), envelope.api_version.into());
    object.insert("kind".into(), envelope.kind.into());
    fill(&mut object, envelope.raw, message, 0)?;
    Ok(Value::Object(object))
}

// === impl Envelope ===

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut envelope = Self::default();
        let mut fields = Reader::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, WireValue::Bytes(type_meta)) => {
                    let mut fields = Reader::new(type_meta);
                    while let Some((number, value)) = fields.next()? {
                        match number {
                            1 => envelope.api_version = value.text()?.to_owned(),
                            2 => envelope.kind = value.text()?.to_owned(),
                            _ => {}
                        }
                    }
                }
                (2, WireValue::Bytes(raw)) => envelope.raw = raw,
                _ => {}
            }
        }
        Ok(envelope)
    }
}

/// Adds a message's fields to the object.
fn fill(
    object: &mut Map<String, Value>,
    bytes: &[u8],
    message: &Message,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError::Depth);
    }
    let mut fields = Reader::new(bytes);
    while let Some((number, value)) = fields.next()? {
        let Some(field) = message.field(number) else { continue };
        match (&field.shape, &field.kind) {
            (Shape::Embedded, Kind::Message(inner)) => {
                fill(object, value.bytes()?, Table::global().message(*inner), depth + 1)?;
            }
            (Shape::Embedded, _) => {}
            (Shape::One, kind) => {
                let value = one(kind, &field.name, value, depth)?;
                if !value.is_null() && (field.keeps_zero || !is_zero(&value)) {
                    object.insert(field.name.clone(), value);
                }
            }
            (Shape::List, _) => extend(list_of(object, &field.name), field, value, depth)?,
            (Shape::Map, kind) => {
                let (key, value) = entry(kind, &field.name, value.bytes()?, depth)?;
                if let Value::Object(map) = object.entry(&field.name).or_insert_with(|| Map::new().into()) {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(())
}

fn list_of<'a>(object: &'a mut Map<String, Value>, name: &str) -> &'a mut Value {
    object.entry(name).or_insert_with(|| Value::Array(Vec::new()))
}

fn extend(list: &mut Value, field: &Field, value: WireValue<'_>, depth: usize) -> Result<(), DecodeError> {
    let Value::Array(list) = list else { return Ok(()) };
    match (&field.kind, value) {
        // Integers may come one by one or together.
        (Kind::Integer, WireValue::Bytes(packed)) => {
            let mut packed = Reader::new(packed);
            while let Some(number) = packed.packed_varint()? {
                list.push(number.cast_signed().into());
            }
        }
        (kind, value) => list.push(one(kind, &field.name, value, depth)?),
    }
    Ok(())
}

/// One entry of a map: its key, its value.
fn entry(kind: &Kind, name: &str, bytes: &[u8], depth: usize) -> Result<(String, Value), DecodeError> {
    let mut key = String::new();
    let mut value = None;
    let mut fields = Reader::new(bytes);
    while let Some((number, found)) = fields.next()? {
        match number {
            1 => key = found.text()?.to_owned(),
            2 => value = Some(one(kind, name, found, depth)?),
            _ => {}
        }
    }
    let value = match value {
        Some(value) => value,
        None => one(kind, name, WireValue::Bytes(&[]), depth)?,
    };
    Ok((key, value))
}

/// One value that is no list and no map.
fn one(kind: &Kind, name: &str, value: WireValue<'_>, depth: usize) -> Result<Value, DecodeError> {
    let Kind::Message(inner) = kind else { return scalar::read(kind, name, value) };
    let message = Table::global().message(*inner);
    if let Some(items) = message.whole_list() {
        let mut list = Value::Array(Vec::new());
        let mut fields = Reader::new(value.bytes()?);
        while let Some((number, value)) = fields.next()? {
            if number == items.number {
                extend(&mut list, items, value, depth + 1)?;
            }
        }
        return Ok(list);
    }
    let mut object = Map::new();
    fill(&mut object, value.bytes()?, message, depth + 1)?;
    Ok(Value::Object(object))
}

/// What Go's JSON leaves out of a field that may be empty.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
