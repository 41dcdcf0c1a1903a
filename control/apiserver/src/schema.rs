//! The published Kubernetes v1.37 definitions: what fields every built-in kind has, of which type, and how they
//! merge.
//!
//! In: the definitions embedded at build time. Out: a table for lookups by kind, read once and kept without its
//! texts; [`decode`] checks and normalises an object against it.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::kinds::Gvk;

mod base64_text;
mod decode;
mod go_names;
mod load;
mod part;
mod scalar;

pub use decode::{DecodeError, decode, decode_metadata, decode_partial};

static GZIPPED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/schema.json.gz"));

/// All definitions.
#[derive(Debug)]
pub struct Schema {
    definitions: Vec<Definition>,
    names: HashMap<Box<str>, DefinitionId>,
    kinds: HashMap<Gvk, DefinitionId>,
}

/// The place of a definition in its [`Schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DefinitionId(u16);

/// One object type.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The full name, such as `io.k8s.api.core.v1.Pod`.
    pub name: Box<str>,
    /// Sorted by name.
    pub properties: Box<[Property]>,
    /// Whether server-side apply treats such an object as one value.
    pub atomic: bool,
}

/// One field of an object type.
#[derive(Clone, Debug)]
pub struct Property {
    /// The JSON name.
    pub name: Box<str>,
    /// What it holds.
    pub kind: Type,
    /// Whether upstream always writes the field.
    pub required: bool,
    /// How server-side apply merges the field, when it is a list.
    pub list: ListType,
    /// Whether server-side apply treats the field, a map or an object, as one value.
    pub atomic: bool,
    /// How a strategic merge patch merges the field.
    pub patch: PatchMeta,
}

/// What a field holds.
#[derive(Clone, Debug)]
pub enum Type {
    String,
    /// Base64 text.
    Bytes,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    Quantity,
    IntOrString,
    Int32,
    Int64,
    Number,
    Boolean,
    /// Free form: raw extensions, managed fields, the schemas inside of a CRD.
    Any,
    Array(Box<Type>),
    /// Keys are free, values of one type.
    Map(Box<Type>),
    Object(DefinitionId),
}

/// How server-side apply merges a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// A set of scalars.
    Set,
    /// Items identified by these fields.
    Map(Box<[Box<str>]>),
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchMeta {
    /// Lists are merged item by item instead of replaced.
    pub merge: bool,
    /// Objects are replaced instead of merged.
    pub replace: bool,
    /// The patch names all fields that stay.
    pub retain_keys: bool,
    /// The field that identifies the items of a merged list of objects.
    pub merge_key: Option<Box<str>>,
}

/// Why there is no schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The build had no input file.
    #[error("built without the API schema: run `cargo xtask up` or `cargo xtask test`, which fetch it")]
    Absent,
    /// The embedded file is not what xtask makes.
    #[error("the embedded API schema cannot be read: {0}")]
    Corrupt(String),
}

// === impl Schema ===

impl Schema {
    /// The embedded schema.
    pub fn global() -> Result<&'static Self, &'static SchemaError> {
        static SCHEMA: LazyLock<Result<Schema, SchemaError>> = LazyLock::new(|| load::read(GZIPPED));
        SCHEMA.as_ref()
    }

    /// The definitions as published, texts included: gzipped JSON `{"definitions": {...}}`.
    pub fn published() -> Result<&'static [u8], SchemaError> {
        if GZIPPED.is_empty() { Err(SchemaError::Absent) } else { Ok(GZIPPED) }
    }

    /// The definition of a kind.
    pub fn kind(&self, gvk: &Gvk) -> Option<&Definition> {
        self.kinds.get(gvk).map(|&id| self.definition(id))
    }

    /// The definition behind a reference.
    pub fn definition(&self, id: DefinitionId) -> &Definition {
        &self.definitions[usize::from(id.0)]
    }

    /// The definition with this full name.
    pub fn named(&self, name: &str) -> Option<&Definition> {
        self.names.get(name).map(|&id| self.definition(id))
    }
}

// === impl Definition ===

impl Definition {
    /// The field with this JSON name.
    pub fn property(&self, name: &str) -> Option<&Property> {
        let place = self.properties.binary_search_by(|property| property.name.as_ref().cmp(name)).ok()?;
        self.properties.get(place)
    }

    /// The last part of the name, such as `Pod`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }
}

// === impl Type ===

impl Type {
    /// The object type in here: of the field itself, of the items of a list or the values of a map.
    pub fn object(&self) -> Option<DefinitionId> {
        match self {
            Self::Object(id) => Some(*id),
            Self::Array(inner) | Self::Map(inner) => inner.object(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
