//! Between bytes and JSON trees.
//!
//! In: request bodies in JSON, YAML or Protocol Buffers. Out: trees of bounded depth, with the duplicate fields that
//! were met, or 400 and 415. Objects go out as JSON; YAML is made from it when asked for.

mod yaml;

use std::cell::RefCell;
use std::fmt;

use http::{HeaderMap, header};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::protobuf;
use crate::status::ApiError;

/// Deeper bodies are refused: trees are walked by recursion.
pub(crate) const MAX_DEPTH: usize = 512;
/// Duplicate fields that are told of, as upstream; a body may have a million.
const MAX_DUPLICATES: usize = 100;
/// How an object can be answered.
pub(crate) const ACCEPTED: &str = "application/json, application/yaml";
/// What a body of an object may be.
const ACCEPTED_BODIES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The formats spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
}

/// A body that could be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) value: Value,
    /// Paths of fields that were given more than once; the last one counts.
    pub(crate) duplicates: Vec<String>,
}

/// The media type of a body, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// The textual format of a body. A body without a type is taken for JSON, as upstream takes it.
fn body_format(headers: &HeaderMap) -> Result<Format, ApiError> {
    match media_type(headers) {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        _ => Err(ApiError::unsupported_media_type(ACCEPTED_BODIES)),
    }
}

/// Reads a request's body in the format that its headers name.
pub(crate) fn decode_body(headers: &HeaderMap, body: &[u8]) -> Result<Decoded, ApiError> {
    if media_type(headers) == protobuf::MEDIA_TYPE {
        return Ok(Decoded { value: protobuf::decode(body)?, duplicates: Vec::new() });
    }
    decode(body_format(headers)?, body)
}

/// Reads one document.
pub(crate) fn decode(format: Format, body: &[u8]) -> Result<Decoded, ApiError> {
    match (from_json(body), format) {
        (Ok(decoded), _) => Ok(decoded),
        (Err(error), Format::Json) => Err(ApiError::bad_request(format!("invalid JSON: {error}"))),
        // JSON is YAML, too, and what most send for it; the rest is neither as fast nor as deep.
        (Err(_), Format::Yaml) => yaml::parse(body).map_err(ApiError::bad_request),
    }
}

fn from_json(body: &[u8]) -> serde_json::Result<Decoded> {
    let seen = RefCell::default();
    let mut json = serde_json::Deserializer::from_slice(body);
    // `Tree` has a limit of its own.
    json.disable_recursion_limit();
    let value = Tree { depth: 0, path: None, duplicates: &seen }.deserialize(&mut json)?;
    json.end()?;
    Ok(Decoded { value, duplicates: seen.into_inner() })
}

/// An object as YAML.
pub(crate) fn to_yaml(value: &Value) -> Result<String, ApiError> {
    serde_saphyr::to_string(value).map_err(ApiError::internal)
}

/// Bytes of a tree as JSON.
pub(crate) fn encoded_len(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting does not fail, and trees have only texts for keys.
    serde_json::to_writer(&mut count, value).map_or(usize::MAX, |()| count.0)
}

/// Builds a tree, counts its depth and notes duplicate fields.
#[derive(Clone, Copy)]
struct Tree<'a> {
    depth: usize,
    path: Option<&'a Path<'a>>,
    duplicates: &'a RefCell<Vec<String>>,
}

/// Where in the document we are, as a list from the leaf up.
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

// === impl Tree ===

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // `-0` is an integer where integers have no sign of zero.
        if value == 0.0 && value.is_sign_negative() {
            return Ok(0.into());
        }
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that JSON cannot hold"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut items = Vec::new();
        loop {
            let path = Path { parent: self.path, step: Step::Index(items.len()) };
            match access.next_element_seed(Tree { depth, path: Some(&path), duplicates: self.duplicates })? {
                Some(item) => items.push(item),
                None => return Ok(items.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = Path { parent: self.path, step: Step::Field(&key) };
            let value =
                access.next_value_seed(Tree { depth, path: Some(&path), duplicates: self.duplicates })?;
            if map.contains_key(&key) {
                self.note_duplicate(&path);
            }
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

impl Tree<'_> {
    /// Each field once.
    fn note_duplicate(&self, path: &Path<'_>) {
        let mut duplicates = self.duplicates.borrow_mut();
        if duplicates.len() < MAX_DUPLICATES {
            let path = path.to_string();
            if !duplicates.contains(&path) {
                duplicates.push(path);
            }
        }
    }

    fn deeper<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(self.depth + 1)
    }
}

// === impl Path ===

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_none() => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_named_and_the_last_one_counts() {
        let decoded =
            decode(Format::Json, br#"{"a":1,"b":{"c":[{"d":1,"d":2}]},"a":3}"#).expect("a document");
        assert_eq!(decoded.duplicates, ["b.c[0].d", "a"]);
        assert_eq!(decoded.value["a"], 3);
    }

    #[test]
    fn depth_is_bounded_in_both_formats() {
        for (format, open) in [(Format::Json, "["), (Format::Yaml, "[")] {
            let deep = open.repeat(100_000);
            assert_eq!(decode(format, deep.as_bytes()).expect_err("refused").code(), 400);
        }
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        for format in [Format::Json, Format::Yaml] {
            decode(format, nested(400).as_bytes()).expect("upstream takes this depth");
        }
        let block = |depth: usize| -> String {
            (0..depth).map(|level| format!("{}a:\n", " ".repeat(level))).collect()
        };
        decode(Format::Yaml, block(120).as_bytes()).expect("deeper than any schema");
        assert_eq!(decode(Format::Yaml, block(200).as_bytes()).expect_err("refused").code(), 400);
    }

    #[test]
    fn bad_documents_are_400() {
        for body in ["", "{", "{\"a\":1e400}", "nul", "{}{}", "\u{1}", "{\"a\":\"\u{0}\"}"] {
            assert_eq!(decode(Format::Json, body.as_bytes()).expect_err(body).code(), 400, "{body:?}");
        }
        assert_eq!(decode(Format::Json, b"{\"a\":\"\xff\"}").expect_err("not UTF-8").code(), 400);
    }

    #[test]
    fn duplicates_are_told_once_each_and_not_without_end() {
        let one = format!("{{{}}}", vec!["\"a\":1"; 1000].join(","));
        assert_eq!(decode(Format::Json, one.as_bytes()).expect("a document").duplicates, ["a"]);
        let fields: Vec<String> = (0..1000).map(|n| format!("\"{}\":1", n / 2)).collect();
        let many = format!("{{{}}}", fields.join(","));
        let told = decode(Format::Json, many.as_bytes()).expect("a document").duplicates;
        assert_eq!(told.len(), MAX_DUPLICATES);
        let yaml = decode(Format::Yaml, b"a: {b: 1, b: 2}\n").expect("a document");
        assert_eq!((yaml.duplicates, &yaml.value["a"]["b"]), (vec!["a.b".to_owned()], &2.into()));
    }

    #[test]
    fn yaml_reads_like_json() {
        let decoded = decode(Format::Yaml, b"a: 1\nb: [x, null, true]\nc: {d: \"1\"}\n").expect("a document");
        assert_eq!(decoded.value, serde_json::json!({"a": 1, "b": ["x", null, true], "c": {"d": "1"}}));
    }
}
