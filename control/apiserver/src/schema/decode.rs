//! Checks an object against its definition and puts it into the form upstream stores.
//!
//! In: a kind and a JSON tree. Out: the tree without unknown fields, nulls and empty optional lists, with all required
//! scalars, in canonical form, and the unknown fields by path; or upstream's sentence about the first field of a wrong
//! type.

use serde_json::{Map, Value};

use super::scalar::{self, Precision, ScalarError};
use super::{Definition, Schema, SchemaError, Type};
use crate::kinds::Gvk;

/// Unknown fields that are told of, as upstream; a body may have half a million.
const MAX_UNKNOWN: usize = 100;

/// Why an object cannot be decoded. The texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The object does not fit its definition.
    #[error("{kind} in version {version:?} cannot be handled as a {kind}: {problem}")]
    Mismatch {
        /// The kind the object claims to be.
        kind: String,
        /// The version the object claims to be of.
        version: String,
        /// What does not fit.
        problem: String,
    },
    /// There is no such kind.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    NoKind {
        /// The kind that was asked for.
        kind: String,
        /// Group and version that were asked for.
        api_version: String,
    },
    /// There is no schema at all.
    #[error(transparent)]
    Schema(#[from] &'static SchemaError),
}

/// Where the walk is.
struct Walk<'a> {
    schema: &'a Schema,
    /// Whether required scalars are filled in.
    complete: bool,
    unknown: Vec<String>,
    /// Path with indices, as upstream names unknown fields.
    path: String,
    /// Path without indices, as upstream names fields of a wrong type.
    fields: String,
}

/// Checks and normalises `object` in place; answers the problems that matter to strict field validation, such as
/// `unknown field "spec.foo"`.
pub fn decode(gvk: &Gvk, object: &mut Value) -> Result<Vec<String>, DecodeError> {
    walk(gvk, object, true)
}

/// The same for a part of an object: nothing is filled in.
pub fn decode_partial(gvk: &Gvk, object: &mut Value) -> Result<Vec<String>, DecodeError> {
    walk(gvk, object, false)
}

/// The same for the `metadata` of an object whose other fields have no published schema.
pub fn decode_metadata(gvk: &Gvk, object: &mut Value) -> Result<Vec<String>, DecodeError> {
    const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let schema = Schema::global()?;
    let (Some(definition), Some(metadata)) = (schema.named(METADATA), object.get_mut("metadata")) else {
        return Ok(Vec::new());
    };
    let walk = Walk {
        schema,
        complete: true,
        unknown: Vec::new(),
        path: "metadata".into(),
        fields: "metadata".into(),
    };
    walk.over(gvk, definition, metadata)
}

fn walk(gvk: &Gvk, object: &mut Value, complete: bool) -> Result<Vec<String>, DecodeError> {
    let schema = Schema::global()?;
    let definition = schema
        .kind(gvk)
        .ok_or_else(|| DecodeError::NoKind { kind: gvk.kind.to_string(), api_version: gvk.api_version() })?;
    let walk = Walk { schema, complete, unknown: Vec::new(), path: String::new(), fields: String::new() };
    walk.over(gvk, definition, object)
}

// === impl Walk ===

impl Walk<'_> {
    /// Walks a value that has to be an object of this definition; answers the unknown fields.
    fn over(
        mut self,
        gvk: &Gvk,
        definition: &Definition,
        value: &mut Value,
    ) -> Result<Vec<String>, DecodeError> {
        let result = match value {
            Value::Object(fields) => self.object(definition, fields),
            other => Err(format!(
                "json: cannot unmarshal {} into Go value of type {}",
                scalar::json_word(other),
                definition.go_name()
            )),
        };
        result.map_err(|problem| DecodeError::Mismatch {
            kind: gvk.kind.to_string(),
            version: gvk.version.to_string(),
            problem,
        })?;
        Ok(self.unknown.into_iter().map(|path| format!("unknown field {path:?}")).collect())
    }

    fn object(&mut self, definition: &Definition, fields: &mut Map<String, Value>) -> Result<(), String> {
        let names: Vec<String> = fields.keys().cloned().collect();
        for name in names {
            let Some(property) = definition.property(&name) else {
                if self.unknown.len() < MAX_UNKNOWN {
                    self.unknown.push(join(&self.path, &name));
                }
                fields.remove(&name);
                continue;
            };
            let Some(value) = fields.get_mut(&name) else { continue };
            if value.is_null() {
                fields.remove(&name);
                continue;
            }
            let (path, parents) = (self.path.len(), self.fields.len());
            self.step(&name);
            self.value(definition, &property.kind, value)?;
            self.path.truncate(path);
            self.fields.truncate(parents);
            let is_collection = matches!(property.kind, Type::Array(_) | Type::Map(_));
            if is_collection && !property.required && is_empty(value) {
                fields.remove(&name);
            }
        }
        if self.complete {
            write_required(definition, fields);
        }
        Ok(())
    }

    fn value(&mut self, owner: &Definition, kind: &Type, value: &mut Value) -> Result<(), String> {
        let checked = match kind {
            Type::Any => Ok(()),
            Type::Object(id) => match value {
                Value::Object(fields) => return self.object(self.schema.definition(*id), fields),
                other => Err(scalar::mismatch(other)),
            },
            Type::Array(items) => match value {
                Value::Array(list) => return self.list(owner, items, list),
                other => Err(scalar::mismatch(other)),
            },
            Type::Map(values) => match value {
                Value::Object(map) => return self.map(owner, values, map),
                other => Err(scalar::mismatch(other)),
            },
            Type::String => value.is_string().then_some(()).ok_or_else(|| scalar::mismatch(value)),
            Type::Boolean => value.is_boolean().then_some(()).ok_or_else(|| scalar::mismatch(value)),
            Type::Number => value.is_number().then_some(()).ok_or_else(|| scalar::mismatch(value)),
            Type::Int32 => scalar::integer(value, i32::MIN.into(), i32::MAX.into()),
            Type::Int64 => scalar::integer(value, i64::MIN, i64::MAX),
            Type::Quantity => scalar::quantity(value),
            Type::IntOrString => scalar::int_or_string(value),
            Type::Time => scalar::time(value, Precision::Seconds),
            Type::MicroTime => scalar::time(value, Precision::Micros),
            Type::Bytes => scalar::bytes(value),
        };
        checked.map_err(|error| match error {
            ScalarError::Sentence(sentence) => sentence,
            ScalarError::Mismatch(found) => format!(
                "json: cannot unmarshal {found} into Go struct field {}.{} of type {}",
                owner.short_name(),
                self.fields,
                self.schema.go_name(kind)
            ),
        })
    }

    fn list(&mut self, owner: &Definition, items: &Type, list: &mut [Value]) -> Result<(), String> {
        let path = self.path.len();
        for (index, item) in list.iter_mut().enumerate() {
            self.path.push_str(&format!("[{index}]"));
            self.element(owner, items, item)?;
            self.path.truncate(path);
        }
        Ok(())
    }

    fn map(&mut self, owner: &Definition, values: &Type, map: &mut Map<String, Value>) -> Result<(), String> {
        let path = self.path.len();
        for (key, value) in map {
            self.path.push('.');
            self.path.push_str(key);
            self.element(owner, values, value)?;
            self.path.truncate(path);
        }
        Ok(())
    }

    /// A null among the elements of a collection is the zero of its type.
    fn element(&mut self, owner: &Definition, kind: &Type, value: &mut Value) -> Result<(), String> {
        if value.is_null() {
            *value = match kind {
                Type::Object(_) | Type::Map(_) => Value::Object(Map::new()),
                Type::Array(_) => Value::Array(Vec::new()),
                scalar => match zero(scalar) {
                    Some(zero) => zero,
                    None => return Ok(()),
                },
            };
        }
        self.value(owner, kind, value)
    }

    fn step(&mut self, name: &str) {
        for path in [&mut self.path, &mut self.fields] {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
        }
    }
}

/// Upstream always writes its required scalars, as zero when nobody set them, and some clients insist on them.
fn write_required(definition: &Definition, fields: &mut Map<String, Value>) {
    for property in definition.properties.iter().filter(|property| property.required) {
        if !fields.contains_key(property.name.as_ref())
            && let Some(zero) = zero(&property.kind)
        {
            fields.insert(property.name.to_string(), zero);
        }
    }
}

fn zero(kind: &Type) -> Option<Value> {
    Some(match kind {
        Type::String | Type::Bytes => Value::String(String::new()),
        Type::Quantity => "0".into(),
        Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => 0.into(),
        Type::Boolean => false.into(),
        _ => return None,
    })
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
