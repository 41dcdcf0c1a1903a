//! A custom resource's schema in the form server-side apply goes by.
//!
//! In: a structural schema. Out: a [`Schema`] of its own, with the published definition of `metadata` in it.

use super::structural::{Kind, ListType as Items, Structural};
use crate::schema::{Definition, DefinitionId, ListType, PatchMeta, Property, Schema, Type};

/// The name of the object's own definition.
pub(super) const ROOT: &str = "custom";
const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

pub(super) fn of(schema: &Structural) -> Schema {
    // Built without the published definitions: fields of `metadata` are then single values.
    let (mut definitions, metadata) =
        Schema::global().map_or((Vec::new(), None), |global| global.part(METADATA));
    let mut properties = fields(schema, &mut definitions);
    for name in ["apiVersion", "kind"] {
        replace(&mut properties, name, Type::String);
    }
    replace(&mut properties, "metadata", metadata.map_or(Type::Any, Type::Object));
    properties.sort_by(|a, b| a.name.cmp(&b.name));
    definitions.push(Definition { name: ROOT.into(), properties: properties.into(), atomic: false });
    Schema::of(definitions)
}

fn replace(properties: &mut Vec<Property>, name: &str, kind: Type) {
    properties.retain(|property| &*property.name != name);
    properties.push(property(name, kind, ListType::Atomic, false));
}

fn property(name: &str, kind: Type, list: ListType, atomic: bool) -> Property {
    Property { name: name.into(), kind, required: false, list, atomic, patch: PatchMeta::default() }
}

fn fields(schema: &Structural, definitions: &mut Vec<Definition>) -> Vec<Property> {
    let fields = schema.properties.iter().map(|(name, schema)| {
        let list = match &schema.list_type {
            Items::Atomic => ListType::Atomic,
            Items::Set => ListType::Set,
            Items::Map(keys) => ListType::Map(keys.iter().map(|key| Box::from(&**key)).collect()),
        };
        property(name, kind(schema, definitions), list, schema.atomic)
    });
    fields.collect()
}

fn kind(schema: &Structural, definitions: &mut Vec<Definition>) -> Type {
    if schema.int_or_string {
        return Type::IntOrString;
    }
    let Some(known) = schema.kind else { return Type::Any };
    match known {
        Kind::String => Type::String,
        Kind::Integer => Type::Int64,
        Kind::Number => Type::Number,
        Kind::Boolean => Type::Boolean,
        Kind::Array => {
            Type::Array(Box::new(schema.items.as_deref().map_or(Type::Any, |items| kind(items, definitions))))
        }
        Kind::Object => match &schema.additional {
            Some(values) => Type::Map(Box::new(kind(values, definitions))),
            None => {
                let mut properties = fields(schema, definitions);
                properties.sort_by(|a, b| a.name.cmp(&b.name));
                let name = format!("custom.{}", definitions.len()).into();
                definitions.push(Definition { name, properties: properties.into(), atomic: schema.atomic });
                DefinitionId::at(definitions.len() - 1).map_or(Type::Any, Type::Object)
            }
        },
    }
}
