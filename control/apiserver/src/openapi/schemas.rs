//! The published definitions in the shapes OpenAPI v2 and v3 have for them.
//!
//! In: the definitions embedded at build time. Out: all of them for v2, those a group and version needs for v3. They are
//! read anew for each document: clients keep documents by their hash, so they are asked for rarely, and the texts are
//! too large to keep.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::schema::Schema;
use crate::status::ApiError;

const V2: &str = "#/definitions/";
const V3: &str = "#/components/schemas/";
const KINDS: &str = "x-kubernetes-group-version-kind";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
/// More would not be this schema: it has about 2 MiB.
const MAX_JSON: u64 = 64 * 1024 * 1024;

fn text() -> Result<Vec<u8>, ApiError> {
    let gzipped = Schema::published().map_err(ApiError::internal)?;
    let mut text = Vec::new();
    GzDecoder::new(gzipped).take(MAX_JSON).read_to_end(&mut text).map_err(ApiError::internal)?;
    Ok(text)
}

fn parse(text: &RawValue) -> Result<Value, ApiError> {
    serde_json::from_str(text.get()).map_err(ApiError::internal)
}

/// Every definition, as v2 has them.
pub(super) fn all() -> Result<Map<String, Value>, ApiError> {
    let mut document: Value = serde_json::from_slice(&text()?).map_err(ApiError::internal)?;
    match document.get_mut("definitions").map(Value::take) {
        Some(Value::Object(definitions)) => Ok(definitions),
        _ => Err(ApiError::internal("the embedded API schema has no definitions")),
    }
}

/// The published definitions by name, each as its text: most of them are not looked into.
#[derive(Deserialize)]
struct Texts<'t> {
    #[serde(borrow)]
    definitions: BTreeMap<String, &'t RawValue>,
}

/// What the kinds of a group and version are made of, as v3 has it.
pub(super) fn of(group: &str, version: &str) -> Result<Map<String, Value>, ApiError> {
    let text = text()?;
    let Texts { definitions: texts } = serde_json::from_slice(&text).map_err(ApiError::internal)?;
    let is_served = |kind: &Value| kind["group"] == group && kind["version"] == version;
    let has = |definition: &Value| {
        definition.get(KINDS).and_then(Value::as_array).is_some_and(|kinds| kinds.iter().any(is_served))
    };
    let mut definitions = Map::new();
    let mut next: Vec<String> = Vec::new();
    // Custom resources refer to it.
    next.push(METADATA.to_owned());
    for (name, text) in texts.iter().filter(|(_, text)| text.get().contains(KINDS)) {
        if has(&parse(text)?) {
            next.push(name.clone());
        }
    }
    while let Some(name) = next.pop() {
        let Some(text) = texts.get(&name).filter(|_| !definitions.contains_key(&name)) else { continue };
        let definition = parse(text)?;
        references(&definition, &mut next);
        definitions.insert(name, definition);
    }
    for (name, definition) in &mut definitions {
        to_v3(definition);
        match name.as_str() {
            QUANTITY => one_of(definition, "number"),
            INT_OR_STRING => one_of(definition, "integer"),
            _ => {}
        }
    }
    Ok(definitions)
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(V2)) {
                found.push(name.to_owned());
            }
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// References point elsewhere, and what stands beside one moves around it.
fn to_v3(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(to_v3);
            let name = fields.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(V2));
            if let Some(reference) = name.map(|name| format!("{V3}{name}")) {
                fields.remove("$ref");
                if fields.is_empty() {
                    fields.insert("$ref".into(), reference.into());
                } else {
                    fields.insert("allOf".into(), json!([{ "$ref": reference }]));
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(to_v3),
        _ => {}
    }
}

/// A type that may be written as a text or as another one.
fn one_of(definition: &mut Value, other: &str) {
    if let Some(fields) = definition.as_object_mut() {
        fields.remove("type");
        fields.insert("oneOf".into(), json!([{ "type": other }, { "type": "string" }]));
    }
}
