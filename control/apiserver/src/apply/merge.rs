//! Putting what an applier wants into what is there, and taking out what it no longer wants.
//!
//! In: a live object, an applied configuration, the fields to remove. Out: the object that results.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::field_set::FieldSet;
use super::shape::{Item, Place, Shape, field, items};
use crate::schema::{Definition, Schema};

/// The live object with everything the configuration says.
pub(super) fn merge(schema: &Schema, definition: &Definition, live: &Value, config: &Value) -> Value {
    structure(schema, definition, Some(live), config)
}

fn structure(schema: &Schema, definition: &Definition, live: Option<&Value>, config: &Value) -> Value {
    fields(live, config, |name, live, config| match field(schema, definition, name) {
        Some(place) => value(place, live, config),
        None => config.clone(),
    })
}

fn fields(
    live: Option<&Value>,
    config: &Value,
    merged: impl Fn(&str, Option<&Value>, &Value) -> Value,
) -> Value {
    let mut out = live.and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, wanted) in config.as_object().into_iter().flatten() {
        let value = merged(name, out.get(name), wanted);
        out.insert(name.clone(), value);
    }
    out.into()
}

fn value(place: Place<'_>, live: Option<&Value>, config: &Value) -> Value {
    match (place.shape(), config) {
        (Shape::Struct(definition), Value::Object(_)) => structure(place.schema, definition, live, config),
        (Shape::Map(inner), Value::Object(_)) => {
            fields(live, config, |_, live, config| value(inner, live, config))
        }
        (Shape::Set, Value::Array(_)) => list(None, None, live, config),
        (Shape::Keyed(keys, inner), Value::Array(_)) => list(Some(keys), Some(inner), live, config),
        _ => config.clone(),
    }
}

/// The items of both in an order that keeps that of the configuration; what only the live list has stays between the
/// neighbours it had.
fn list(keys: Option<&[Box<str>]>, inner: Option<Place<'_>>, live: Option<&Value>, config: &Value) -> Value {
    let Some(wanted) = items(keys, config) else { return config.clone() };
    let there: Vec<Item<'_>> = match live.map(|live| items(keys, live)) {
        None => Vec::new(),
        Some(Some(items)) => items,
        Some(None) => return config.clone(),
    };
    let by_step: HashMap<&str, &Value> = there.iter().map(|(step, item)| (step.as_str(), *item)).collect();
    let named: HashSet<&str> = wanted.iter().map(|(step, _)| step.as_str()).collect();
    let merged = |(step, item): &Item<'_>| {
        inner.map_or_else(|| (*item).clone(), |inner| value(inner, by_step.get(step.as_str()).copied(), item))
    };
    let mut out = Vec::with_capacity(there.len() + wanted.len());
    let mut next = wanted.iter();
    for (step, item) in &there {
        if named.contains(step.as_str()) {
            // Its turn, or that of one the configuration puts before it.
            out.extend(next.next().map(&merged));
        } else {
            out.push((*item).clone());
        }
    }
    out.extend(next.map(merged));
    out.into()
}

/// The fields to take out: what an applier set last time and nobody, the applier included, sets any more.
pub(super) fn abandoned(last: &FieldSet, owned: &FieldSet) -> FieldSet {
    let mut out = FieldSet::default();
    for (step, node) in last.nodes() {
        let mut gone = node.clone();
        match owned.get(step) {
            // Nobody owns anything in there: it goes as a whole, with the defaults it was given.
            None => gone.member = true,
            Some(owned) => {
                gone.member = false;
                gone.below = abandoned(&node.below, &owned.below);
            }
        }
        out.insert(step.clone(), gone);
    }
    out
}

/// The object without the fields in the set.
pub(super) fn without(schema: &Schema, definition: &Definition, object: &Value, gone: &FieldSet) -> Value {
    remove_fields(object, gone, |name, value, below| match field(schema, definition, name) {
        Some(place) => remove(place, value, below),
        None => value.clone(),
    })
}

fn remove_fields(object: &Value, gone: &FieldSet, rest: impl Fn(&str, &Value, &FieldSet) -> Value) -> Value {
    let mut out = Map::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        match gone.get(&format!("f:{name}")) {
            Some(node) if node.member => {}
            Some(node) => {
                out.insert(name.clone(), rest(name, value, &node.below));
            }
            None => {
                out.insert(name.clone(), value.clone());
            }
        }
    }
    out.into()
}

fn remove(place: Place<'_>, value: &Value, gone: &FieldSet) -> Value {
    let (keys, inner) = match (place.shape(), value) {
        (Shape::Struct(definition), Value::Object(_)) => {
            return without(place.schema, definition, value, gone);
        }
        (Shape::Map(inner), Value::Object(_)) => {
            return remove_fields(value, gone, |_, value, below| remove(inner, value, below));
        }
        (Shape::Set, Value::Array(_)) => (None, None),
        (Shape::Keyed(keys, inner), Value::Array(_)) => (Some(keys), Some(inner)),
        _ => return value.clone(),
    };
    let Some(items) = items(keys, value) else { return value.clone() };
    let kept = items.into_iter().filter_map(|(step, item)| match gone.get(&step) {
        Some(node) if node.member => None,
        Some(node) => Some(inner.map_or_else(|| item.clone(), |inner| remove(inner, item, &node.below))),
        None => Some(item.clone()),
    });
    Value::Array(kept.collect())
}
