//! Reads the embedded definitions into the lookup table.
//!
//! In: gzipped JSON. Out: a [`Schema`] without descriptions. References to scalar definitions (times, quantities) are
//! resolved here, so that the walk over an object meets only objects, lists, maps and scalars.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use flate2::read::GzDecoder;
use serde::Deserialize;

use super::{Definition, DefinitionId, ListType, PatchMeta, Property, Schema, SchemaError, Type};
use crate::kinds::Gvk;

/// More would not be this schema: it has about 2 MiB.
const MAX_JSON: u64 = 64 * 1024 * 1024;

#[derive(Deserialize)]
struct Document {
    definitions: BTreeMap<String, RawDefinition>,
}

#[derive(Deserialize)]
struct RawDefinition {
    #[serde(default)]
    properties: BTreeMap<String, RawProperty>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default, rename = "x-kubernetes-group-version-kind")]
    kinds: Vec<RawGvk>,
    #[serde(rename = "x-kubernetes-map-type")]
    map_type: Option<String>,
}

#[derive(Deserialize)]
struct RawGvk {
    group: String,
    version: String,
    kind: String,
}

#[derive(Deserialize)]
struct RawProperty {
    #[serde(rename = "$ref")]
    reference: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    format: Option<String>,
    items: Option<Box<RawProperty>>,
    #[serde(rename = "additionalProperties")]
    values: Option<Box<RawProperty>>,
    #[serde(rename = "x-kubernetes-list-type")]
    list_type: Option<String>,
    #[serde(default, rename = "x-kubernetes-list-map-keys")]
    list_map_keys: Vec<Box<str>>,
    #[serde(rename = "x-kubernetes-map-type")]
    map_type: Option<String>,
    #[serde(rename = "x-kubernetes-patch-strategy")]
    patch_strategy: Option<String>,
    #[serde(rename = "x-kubernetes-patch-merge-key")]
    patch_merge_key: Option<Box<str>>,
}

pub(super) fn read(gzipped: &[u8]) -> Result<Schema, SchemaError> {
    if gzipped.is_empty() {
        return Err(SchemaError::Absent);
    }
    let corrupt = |error: &dyn std::fmt::Display| SchemaError::Corrupt(error.to_string());
    let mut json = Vec::new();
    GzDecoder::new(gzipped).take(MAX_JSON).read_to_end(&mut json).map_err(|error| corrupt(&error))?;
    let document: Document = serde_json::from_slice(&json).map_err(|error| corrupt(&error))?;
    build(document.definitions)
}

fn build(raw: BTreeMap<String, RawDefinition>) -> Result<Schema, SchemaError> {
    let mut names = HashMap::with_capacity(raw.len());
    for (index, name) in raw.keys().enumerate() {
        let id = u16::try_from(index).map_err(|_| SchemaError::Corrupt("too many definitions".to_owned()))?;
        names.insert(Box::from(name.as_str()), DefinitionId(id));
    }
    let mut schema = Schema { definitions: Vec::with_capacity(raw.len()), names, kinds: HashMap::new() };
    for (name, raw) in raw {
        let id = schema.names[name.as_str()];
        for gvk in &raw.kinds {
            schema.kinds.insert(Gvk::new(&gvk.group, &gvk.version, &gvk.kind), id);
        }
        // A BTreeMap yields its keys sorted, as the binary search in `Definition::property` needs them.
        let properties = raw.properties.into_iter().map(|(name, property)| {
            let required = raw.required.contains(&name);
            schema.property(name, property, required)
        });
        let properties = properties.collect::<Result<_, _>>()?;
        let atomic = raw.map_type.as_deref() == Some("atomic");
        schema.definitions.push(Definition { name: name.into(), properties, atomic });
    }
    Ok(schema)
}

impl Schema {
    fn property(&self, name: String, raw: RawProperty, required: bool) -> Result<Property, SchemaError> {
        let kind = self.kind_of(&raw)?;
        let strategies = raw.patch_strategy.unwrap_or_default();
        let has = |strategy| strategies.split(',').any(|word| word == strategy);
        Ok(Property {
            name: name.into(),
            kind,
            required,
            list: match raw.list_type.as_deref() {
                Some("set") => ListType::Set,
                Some("map") => ListType::Map(raw.list_map_keys.into()),
                _ => ListType::Atomic,
            },
            atomic: raw.map_type.as_deref() == Some("atomic"),
            patch: PatchMeta {
                merge: has("merge"),
                replace: has("replace"),
                retain_keys: has("retainKeys"),
                merge_key: raw.patch_merge_key,
            },
        })
    }

    fn kind_of(&self, raw: &RawProperty) -> Result<Type, SchemaError> {
        if let Some(reference) = &raw.reference {
            return self.referenced(reference.trim_start_matches("#/definitions/"));
        }
        Ok(match (raw.kind.as_deref(), raw.format.as_deref()) {
            (Some("string"), Some("byte")) => Type::Bytes,
            (Some("string"), Some("int-or-string")) => Type::IntOrString,
            (Some("string"), _) => Type::String,
            (Some("integer"), Some("int32")) => Type::Int32,
            (Some("integer"), _) => Type::Int64,
            (Some("number"), _) => Type::Number,
            (Some("boolean"), _) => Type::Boolean,
            (Some("array"), _) => {
                Type::Array(Box::new(raw.items.as_ref().map_or(Ok(Type::Any), |items| self.kind_of(items))?))
            }
            (Some("object"), _) => raw
                .values
                .as_ref()
                .map_or(Ok(Type::Any), |values| Ok(Type::Map(Box::new(self.kind_of(values)?))))?,
            (None, _) => Type::Any,
            (Some(other), _) => return Err(SchemaError::Corrupt(format!("unknown type {other}"))),
        })
    }

    fn referenced(&self, name: &str) -> Result<Type, SchemaError> {
        Ok(match name.rsplit('.').next().unwrap_or_default() {
            "Quantity" => Type::Quantity,
            "IntOrString" => Type::IntOrString,
            "Time" => Type::Time,
            "MicroTime" => Type::MicroTime,
            "RawExtension"
            | "FieldsV1"
            | "JSON"
            | "JSONSchemaPropsOrArray"
            | "JSONSchemaPropsOrBool"
            | "JSONSchemaPropsOrStringArray" => Type::Any,
            _ => {
                let id = self.names.get(name);
                Type::Object(*id.ok_or_else(|| SchemaError::Corrupt(format!("no definition {name}")))?)
            }
        })
    }
}
