//! What a write changed.
//!
//! In: an object before and after. Out: the fields that came, went and differ.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::field_set::{FieldSet, Node};
use super::shape::{Item, Place, Shape, field, items};
use crate::schema::{Definition, Schema};

/// The differences between two objects.
#[derive(Default)]
pub(super) struct Delta {
    pub(super) added: FieldSet,
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
}

/// The same for one field.
#[derive(Default)]
struct Change {
    added: Node,
    removed: Node,
    modified: Node,
}

/// Metadata that the server writes or that names the object: nobody owns it.
const UNOWNED: &[&str] = &[
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:selfLink",
    "f:uid",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
];

pub(super) fn compare(schema: &Schema, definition: &Definition, old: &Value, new: &Value) -> Delta {
    let change = structure(schema, definition, Some(old), Some(new));
    let mut delta =
        Delta { added: change.added.below, removed: change.removed.below, modified: change.modified.below };
    for set in [&mut delta.added, &mut delta.removed, &mut delta.modified] {
        strip(set);
    }
    delta
}

/// Takes out what nobody owns.
pub(super) fn strip(set: &mut FieldSet) {
    set.remove("f:apiVersion");
    set.remove("f:kind");
    set.remove_members("f:metadata", UNOWNED);
}

fn structure(schema: &Schema, definition: &Definition, old: Option<&Value>, new: Option<&Value>) -> Change {
    let mut change = Change::default();
    each_key(old, new, |name, old, new| {
        if definition.name.ends_with(".ObjectMeta") && name == "managedFields" {
            return;
        }
        let below = match field(schema, definition, name) {
            Some(place) => value(place, old, new),
            None => leaf(old, new),
        };
        change.attach(&format!("f:{name}"), below);
    });
    change.ends(old, new)
}

fn value(place: Place<'_>, old: Option<&Value>, new: Option<&Value>) -> Change {
    let is = |test: fn(&Value) -> bool| old.is_none_or(test) && new.is_none_or(test);
    match place.shape() {
        Shape::Struct(definition) if is(Value::is_object) => structure(place.schema, definition, old, new),
        Shape::Map(inner) if is(Value::is_object) => {
            let mut change = Change::default();
            each_key(old, new, |key, old, new| change.attach(&format!("f:{key}"), value(inner, old, new)));
            change.ends(old, new)
        }
        Shape::Set if is(Value::is_array) => list(None, None, old, new),
        Shape::Keyed(keys, inner) if is(Value::is_array) => list(Some(keys), Some(inner), old, new),
        _ => leaf(old, new),
    }
}

fn list(
    keys: Option<&[Box<str>]>,
    inner: Option<Place<'_>>,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Change {
    let (Some(before), Some(after)) = (taken_apart(keys, old), taken_apart(keys, new)) else {
        return leaf(old, new);
    };
    let known: HashSet<&str> = before.iter().map(|(step, _)| step.as_str()).collect();
    let named: HashMap<&str, &Value> = after.iter().map(|(step, item)| (step.as_str(), *item)).collect();
    let mut change = Change::default();
    let mut each = |step: &str, old: Option<&Value>, new: Option<&Value>| {
        let below = inner.map_or_else(|| leaf(old, new), |inner| value(inner, old, new));
        change.attach(step, below);
    };
    for (step, item) in &before {
        each(step, Some(*item), named.get(step.as_str()).copied());
    }
    for (step, item) in &after {
        if !known.contains(step.as_str()) {
            each(step, None, Some(*item));
        }
    }
    change.ends(old, new)
}

/// The items of a list; none of a list that is not there.
fn taken_apart<'v>(keys: Option<&[Box<str>]>, list: Option<&'v Value>) -> Option<Vec<Item<'v>>> {
    list.map_or_else(|| Some(Vec::new()), |list| items(keys, list))
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Change {
    let mut change = Change::default();
    match (old, new) {
        (None, Some(_)) => change.added.member = true,
        (Some(_), None) => change.removed.member = true,
        (Some(old), Some(new)) => change.modified.member = old != new,
        (None, None) => {}
    }
    change
}

fn each_key<'v>(
    old: Option<&'v Value>,
    new: Option<&'v Value>,
    mut visit: impl FnMut(&str, Option<&'v Value>, Option<&'v Value>),
) {
    let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
    for (key, before) in old.into_iter().flatten() {
        visit(key, Some(before), new.and_then(|new| new.get(key)));
    }
    for (key, after) in new.into_iter().flatten() {
        if !old.is_some_and(|old| old.contains_key(key)) {
            visit(key, None, Some(after));
        }
    }
}

// === impl Change ===

impl Change {
    fn attach(&mut self, step: &str, below: Self) {
        self.added.below.insert(step.to_owned(), below.added);
        self.removed.below.insert(step.to_owned(), below.removed);
        self.modified.below.insert(step.to_owned(), below.modified);
    }

    /// A whole that comes or goes does so itself, too.
    fn ends(mut self, old: Option<&Value>, new: Option<&Value>) -> Self {
        self.added.member = old.is_none();
        self.removed.member = new.is_none();
        self
    }
}
