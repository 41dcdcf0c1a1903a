//! The document of OpenAPI v2 in Protocol Buffers, as some clients read nothing else.
//!
//! In: the document as a JSON tree. Out: the bytes of the message `openapi.v2.Document`. What the tree may hold and the
//! messages have no field for is left out; values of any type are spelt as JSON, which the format calls YAML.

use serde_json::{Map, Value};

/// Fields are told by their JSON name: the number on the wire, and what they hold.
type Fields = &'static [(&'static str, u32, Kind)];

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Flag,
    Integer,
    Double,
    /// Any value.
    Any,
    /// Of each item.
    Texts,
    AnyItems,
    Message(Fields, Extensions),
    /// A map as pairs of names and messages: the number of the pairs, what the messages are.
    Named(u32, &'static Kind),
    Items(&'static Kind),
    /// Schemas refer to themselves.
    Schema,
    /// A type is one word or several.
    Type,
    /// The schema of a list's items.
    ItemSchema,
    /// A schema, or whether there may be more.
    Additional,
    Parameter,
    Response,
}

/// The number of the field that takes what begins with `x-`.
type Extensions = u32;

const DOCUMENT: Fields = &[
    ("swagger", 1, Kind::Text),
    ("info", 2, Kind::Message(INFO, 7)),
    ("paths", 8, Kind::Named(2, &Kind::Message(PATH, 10))),
    ("definitions", 9, Kind::Named(1, &Kind::Schema)),
];
const INFO: Fields = &[("title", 1, Kind::Text), ("version", 2, Kind::Text), ("description", 3, Kind::Text)];
const PATH: Fields = &[
    ("get", 2, OPERATION),
    ("put", 3, OPERATION),
    ("post", 4, OPERATION),
    ("delete", 5, OPERATION),
    ("patch", 8, OPERATION),
];
const OPERATION: Kind = Kind::Message(
    &[
        ("description", 3, Kind::Text),
        ("operationId", 5, Kind::Text),
        ("produces", 6, Kind::Texts),
        ("consumes", 7, Kind::Texts),
        ("parameters", 8, Kind::Items(&Kind::Parameter)),
        ("responses", 9, Kind::Named(1, &Kind::Response)),
    ],
    13,
);
const QUERY_PARAMETER: Fields = &[
    ("required", 1, Kind::Flag),
    ("in", 2, Kind::Text),
    ("description", 3, Kind::Text),
    ("name", 4, Kind::Text),
    ("type", 6, Kind::Text),
    ("uniqueItems", 20, Kind::Flag),
];
const SCHEMA: Fields = &[
    ("$ref", 1, Kind::Text),
    ("format", 2, Kind::Text),
    ("title", 3, Kind::Text),
    ("description", 4, Kind::Text),
    ("default", 5, Kind::Any),
    ("multipleOf", 6, Kind::Double),
    ("maximum", 7, Kind::Double),
    ("exclusiveMaximum", 8, Kind::Flag),
    ("minimum", 9, Kind::Double),
    ("exclusiveMinimum", 10, Kind::Flag),
    ("maxLength", 11, Kind::Integer),
    ("minLength", 12, Kind::Integer),
    ("pattern", 13, Kind::Text),
    ("maxItems", 14, Kind::Integer),
    ("minItems", 15, Kind::Integer),
    ("uniqueItems", 16, Kind::Flag),
    ("maxProperties", 17, Kind::Integer),
    ("minProperties", 18, Kind::Integer),
    ("required", 19, Kind::Texts),
    ("enum", 20, Kind::AnyItems),
    ("additionalProperties", 21, Kind::Additional),
    ("type", 22, Kind::Type),
    ("items", 23, Kind::ItemSchema),
    ("allOf", 24, Kind::Items(&Kind::Schema)),
    ("properties", 25, Kind::Named(1, &Kind::Schema)),
    ("example", 30, Kind::Any),
];
const SCHEMA_EXTENSIONS: Extensions = 31;

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

/// The whole document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    fields(document, DOCUMENT, 16).0
}

/// The fields of an object.
fn fields(value: &Value, fields: Fields, extensions: Extensions) -> Message {
    let mut message = Message::default();
    let Some(object) = value.as_object() else { return message };
    for (name, number, kind) in fields {
        if let Some(value) = object.get(*name) {
            message.field(*number, *kind, value);
        }
    }
    message.extensions(object, extensions);
    message
}

fn any(value: &Value) -> Message {
    let mut any = Message::default();
    any.bytes(2, value.to_string().as_bytes());
    any
}

fn named(name: &str, value: impl FnOnce(&mut Message)) -> Message {
    let mut pair = Message::default();
    pair.bytes(1, name.as_bytes());
    value(&mut pair);
    pair
}

// === impl Message ===

impl Message {
    fn field(&mut self, number: u32, kind: Kind, value: &Value) {
        match kind {
            Kind::Text => self.bytes(number, value.as_str().unwrap_or_default().as_bytes()),
            Kind::Flag => self.varint_field(number, value.as_bool().unwrap_or_default().into()),
            Kind::Integer => self.varint_field(number, value.as_i64().unwrap_or_default().cast_unsigned()),
            Kind::Double => self.double(number, value.as_f64().unwrap_or_default()),
            Kind::Any => self.message(number, &any(value)),
            Kind::Texts => items(value).for_each(|item| self.field(number, Kind::Text, item)),
            Kind::AnyItems => items(value).for_each(|item| self.field(number, Kind::Any, item)),
            Kind::Items(kind) => items(value).for_each(|item| self.field(number, *kind, item)),
            Kind::Message(inner, extensions) => self.message(number, &fields(value, inner, extensions)),
            Kind::Schema => self.message(number, &fields(value, SCHEMA, SCHEMA_EXTENSIONS)),
            Kind::Named(pairs, kind) => {
                let mut map = Self::default();
                for (name, value) in value.as_object().into_iter().flatten() {
                    map.message(pairs, &named(name, |pair| pair.field(2, *kind, value)));
                }
                self.message(number, &map);
            }
            Kind::Type => {
                let mut words = Self::default();
                let one = std::iter::once(value).filter(|value| value.is_string());
                one.chain(items(value)).for_each(|word| words.field(1, Kind::Text, word));
                self.message(number, &words);
            }
            Kind::ItemSchema => self.wrapped(number, 1, Kind::Schema, value),
            Kind::Additional if value.is_boolean() => self.wrapped(number, 2, Kind::Flag, value),
            Kind::Additional => self.wrapped(number, 1, Kind::Schema, value),
            // A parameter, and not a reference; of no body; of the query.
            Kind::Parameter => {
                let mut outside_body = Self::default();
                outside_body.message(3, &fields(value, QUERY_PARAMETER, 23));
                let mut parameter = Self::default();
                parameter.message(2, &outside_body);
                let mut item = Self::default();
                item.message(1, &parameter);
                self.message(number, &item);
            }
            Kind::Response => {
                self.wrapped(number, 1, Kind::Message(&[("description", 1, Kind::Text)], 5), value);
            }
        }
    }

    /// A message whose only field holds the value.
    fn wrapped(&mut self, number: u32, inner: u32, kind: Kind, value: &Value) {
        let mut wrapper = Self::default();
        wrapper.field(inner, kind, value);
        self.message(number, &wrapper);
    }

    fn extensions(&mut self, object: &Map<String, Value>, number: Extensions) {
        for (name, value) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.message(number, &named(name, |pair| pair.message(2, &any(value))));
        }
    }

    fn message(&mut self, number: u32, inner: &Self) {
        self.bytes(number, &inner.0);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.tag(number, BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn varint_field(&mut self, number: u32, value: u64) {
        self.tag(number, VARINT);
        self.varint(value);
    }

    fn double(&mut self, number: u32, value: f64) {
        self.tag(number, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn tag(&mut self, number: u32, wire_type: u32) {
        self.varint(u64::from(number << 3 | wire_type));
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                self.0.push(low & 0x7f);
                return;
            }
            self.0.push(low | 0x80);
        }
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_spelt_as_published() {
        // Worked out by hand from the published messages.
        let document = json!({ "swagger": "2.0", "info": { "title": "K", "version": "v1" } });
        let expected = b"\x0a\x032.0\x12\x07\x0a\x01K\x12\x02v1";
        assert_eq!(encode(&document), expected);
        let document = json!({ "definitions": { "D": {
            "type": "object", "required": ["a"], "x-k": true,
            "properties": { "a": { "type": "integer", "minimum": 1 } },
        } } });
        let property = b"\x0a\x01a\x12\x15\x49\x00\x00\x00\x00\x00\x00\xf0\x3f\xb2\x01\x09\x0a\x07integer";
        let properties = [&b"\x0a\x1a"[..], property].concat();
        let schema = [
            &b"\x9a\x01\x01a"[..],
            b"\xb2\x01\x08\x0a\x06object",
            b"\xca\x01\x1c",
            &properties,
            b"\xfa\x01\x0d\x0a\x03x-k\x12\x06\x12\x04true",
        ]
        .concat();
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short");
        let pair = [&b"\x0a\x01D\x12"[..], &[length(&schema)], &schema].concat();
        let map = [&b"\x0a"[..], &[length(&pair)], &pair].concat();
        assert_eq!(encode(&document), [&b"\x4a"[..], &[length(&map)], &map].concat());
    }

    #[test]
    fn long_numbers_take_several_bytes() {
        let mut message = Message::default();
        message.varint_field(1, 300);
        assert_eq!(message.0, b"\x08\xac\x02");
    }
}
