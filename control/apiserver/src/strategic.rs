//! Strategic merge patch: a merge patch that knows which lists are maps by a key.
//!
//! In: the definition of the object, the object, the patch with its directives (`$patch`, `$retainKeys`,
//! `$setElementOrder/…`, `$deleteFromPrimitiveList/…`). Out: the patched object, or upstream's sentence about the
//! patch.

use serde_json::{Map, Value};

use crate::schema::{Definition, PatchMeta, Schema, SchemaError, Type};

pub(crate) use go_text::go_value as go_text;

mod directives;
mod go_text;
mod list;
mod order;

/// Why a patch cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// A directive is malformed: 400.
    #[error("invalid patch format of {0}")]
    Format(Directive),
    /// Lists within lists cannot be merged: 422.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// The patch does not fit the object or its type.
    #[error("{0}")]
    Mismatch(String),
    /// There is no schema to merge by.
    #[error(transparent)]
    Schema(#[from] &'static SchemaError),
}

/// A directive, by the name upstream's errors have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    DeleteFromPrimitiveList,
    RetainKeys,
    SetElementOrder,
}

/// What the schema says about the place the merge is at.
#[derive(Clone, Copy)]
enum Shape<'a> {
    Object(&'a Definition),
    Map(&'a Type),
    Free,
}

/// What the schema says about one field: the shape of its value or its items, and how it merges.
#[derive(Clone, Copy)]
struct Field<'a> {
    shape: Shape<'a>,
    meta: &'a PatchMeta,
}

struct Merger<'a> {
    schema: &'a Schema,
}

const NO_META: &PatchMeta = &PatchMeta { merge: false, replace: false, retain_keys: false, merge_key: None };

/// Applies `patch` to `original`, an object of the type `definition`.
pub fn merge(definition: &Definition, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let merger = Merger { schema: Schema::global()? };
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(PatchError::Mismatch("invalid JSON document".to_owned()));
    };
    let merged = merger.map(Shape::Object(definition), original.clone(), patch.clone())?;
    Ok(Value::Object(merged))
}

// === impl Directive ===

impl std::fmt::Display for Directive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::DeleteFromPrimitiveList => "primitive list",
            Self::RetainKeys => "retainKeys",
            Self::SetElementOrder => "setElementOrder list",
        })
    }
}

// === impl Merger ===

impl<'a> Merger<'a> {
    fn map(
        &self,
        shape: Shape<'a>,
        mut original: Map<String, Value>,
        mut patch: Map<String, Value>,
    ) -> Result<Map<String, Value>, PatchError> {
        if let Some(directive) = patch.get(directives::MARKER) {
            return match directive.as_str() {
                Some(directives::REPLACE) => {
                    patch.remove(directives::MARKER);
                    Ok(patch)
                }
                Some(directives::DELETE) => Ok(Map::new()),
                _ => Err(directives::unknown(directive, &patch)),
            };
        }
        directives::retain_keys(&mut original, &mut patch)?;
        self.set_element_orders(shape, &mut original, &mut patch)?;
        for (key, value) in patch {
            let deletes = key.strip_prefix(directives::DELETE_FROM_LIST);
            let name = deletes.unwrap_or(&key).to_owned();
            if value.is_null() {
                original.remove(&name);
                continue;
            }
            let merged = match (original.remove(&name), value) {
                (Some(Value::Object(old)), Value::Object(new)) if deletes.is_none() => {
                    let field = self.field(shape, &name)?;
                    let merged = if field.meta.replace { new } else { self.map(field.shape, old, new)? };
                    Some(Value::Object(merged))
                }
                (Some(Value::Array(old)), Value::Array(new)) => {
                    let field = self.field(shape, &name)?;
                    let merged = if deletes.is_some() {
                        list::without(old, &new)?
                    } else if field.meta.merge {
                        self.list(field, old, new)?
                    } else {
                        new
                    };
                    Some(Value::Array(merged))
                }
                (old, _) if deletes.is_some() => old,
                (_, new) => directives::plain(new),
            };
            if let Some(merged) = merged {
                original.insert(name, merged);
            }
        }
        Ok(original)
    }

    /// What the schema says about a field of an object of this shape.
    fn field(&self, shape: Shape<'a>, name: &str) -> Result<Field<'a>, PatchError> {
        match shape {
            Shape::Object(definition) => {
                let property = definition.property(name).ok_or_else(|| {
                    let owner = definition.short_name();
                    let text =
                        format!("unable to find api field in struct {owner} for the json field {name:?}");
                    PatchError::Mismatch(text)
                })?;
                Ok(Field { shape: self.shape(&property.kind), meta: &property.patch })
            }
            Shape::Map(values) => Ok(Field { shape: self.shape(values), meta: NO_META }),
            Shape::Free => Ok(Field { shape: Shape::Free, meta: NO_META }),
        }
    }

    fn shape(&self, kind: &'a Type) -> Shape<'a> {
        match kind {
            Type::Object(id) => Shape::Object(self.schema.definition(*id)),
            Type::Map(values) => Shape::Map(values),
            Type::Array(items) => self.shape(items),
            _ => Shape::Free,
        }
    }
}

#[cfg(test)]
mod tests;
