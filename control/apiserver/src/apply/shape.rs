//! How a field is taken apart: what the schema says of it.
//!
//! In: a type with its list and map types. Out: whether the field is one value, a struct, a map, a set or a list of keyed
//! items, and the steps that lead into it.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::field_set::{FieldSet, Node};
use crate::schema::{Definition, ListType, Property, Schema, Type};

/// A field's place in the schema.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) schema: &'a Schema,
    kind: &'a Type,
    list: &'a ListType,
    atomic: bool,
}

/// What a field is made of.
pub(super) enum Shape<'a> {
    /// One value, whatever is in it.
    Leaf,
    Struct(&'a Definition),
    /// Free keys.
    Map(Place<'a>),
    /// Scalars, each once.
    Set,
    /// Items told apart by these fields.
    Keyed(&'a [Box<str>], Place<'a>),
}

/// An item of a list with the step that leads to it.
pub(super) type Item<'v> = (String, &'v Value);

// === impl Place ===

impl<'a> Place<'a> {
    fn property(schema: &'a Schema, property: &'a Property) -> Self {
        Self { schema, kind: &property.kind, list: &property.list, atomic: property.atomic }
    }

    fn inner(schema: &'a Schema, kind: &'a Type) -> Self {
        Self { schema, kind, list: &ListType::Atomic, atomic: false }
    }

    pub(super) fn shape(self) -> Shape<'a> {
        match (self.kind, self.list) {
            _ if self.atomic => Shape::Leaf,
            (Type::Object(id), _) => {
                let definition = self.schema.definition(*id);
                if definition.atomic { Shape::Leaf } else { Shape::Struct(definition) }
            }
            (Type::Map(values), _) => Shape::Map(Self::inner(self.schema, values)),
            (Type::Array(_), ListType::Set) => Shape::Set,
            (Type::Array(items), ListType::Map(keys)) => Shape::Keyed(keys, Self::inner(self.schema, items)),
            _ => Shape::Leaf,
        }
    }
}

/// A field of a struct; `None` for what the schema does not know.
pub(super) fn field<'a>(schema: &'a Schema, definition: &'a Definition, name: &str) -> Option<Place<'a>> {
    definition.property(name).map(|property| Place::property(schema, property))
}

/// The items of a set or a keyed list; `None` when they cannot be told apart, which makes the list one value.
pub(super) fn items<'v>(keys: Option<&[Box<str>]>, list: &'v Value) -> Option<Vec<Item<'v>>> {
    let (mut items, mut seen) = (Vec::new(), HashSet::new());
    for item in list.as_array()? {
        let step = match keys {
            Some(keys) => format!("k:{}", Value::Object(key_of(keys, item)?)),
            None => format!("v:{item}"),
        };
        if !seen.insert(step.clone()) {
            return None;
        }
        items.push((step, item));
    }
    Some(items)
}

fn key_of(keys: &[Box<str>], item: &Value) -> Option<Map<String, Value>> {
    let mut found = Map::new();
    for key in keys {
        let value = match item.get(&**key) {
            Some(value) => value.clone(),
            // The only default among keys in the published schema.
            None if &**key == "protocol" => "TCP".into(),
            None => return None,
        };
        found.insert(key.to_string(), value);
    }
    Some(found)
}

/// All the fields an object sets.
pub(super) fn fields_of(schema: &Schema, definition: &Definition, object: &Value) -> FieldSet {
    structure(schema, definition, object).below
}

fn structure(schema: &Schema, definition: &Definition, object: &Value) -> Node {
    let mut node = Node::default();
    for (name, value) in object.as_object().into_iter().flatten() {
        let mut below =
            field(schema, definition, name).map_or_else(Node::leaf, |place| node_of(place, value));
        // An empty struct is set, though nothing in it is.
        below.member |= value.is_null() || value.as_object().is_some_and(Map::is_empty);
        node.below.insert(format!("f:{name}"), below);
    }
    node
}

/// The fields in a value; the value itself is among them when it is not taken apart.
pub(super) fn node_of(place: Place<'_>, value: &Value) -> Node {
    match (place.shape(), value) {
        (Shape::Struct(definition), Value::Object(_)) => structure(place.schema, definition, value),
        (Shape::Map(inner), Value::Object(map)) => {
            let mut node = Node::default();
            for (key, value) in map {
                node.below.insert(format!("f:{key}"), Node { member: true, ..node_of(inner, value) });
            }
            node
        }
        (Shape::Set, Value::Array(_)) => match items(None, value) {
            Some(items) => {
                let mut node = Node::default();
                items.into_iter().for_each(|(step, _)| node.below.insert(step, Node::leaf()));
                node
            }
            None => Node::leaf(),
        },
        (Shape::Keyed(keys, inner), Value::Array(_)) => match items(Some(keys), value) {
            Some(items) => {
                let mut node = Node::default();
                for (step, item) in items {
                    node.below.insert(step, Node { member: true, ..node_of(inner, item) });
                }
                node
            }
            None => Node::leaf(),
        },
        _ => Node::leaf(),
    }
}
