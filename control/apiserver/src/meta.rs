//! Reading and writing `metadata` and other well-known places of an object that is a JSON tree.
//!
//! In: objects. Out: their parts; an absent part reads as empty. No rules of any kind live here.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// The text at a path of fields, or `""`.
pub(crate) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// What is at a path of fields, `null` counting as absent.
pub(crate) fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| value.get(step)).filter(|value| !value.is_null())
}

/// The elements of a list, none if it is absent.
pub(crate) fn items<'a>(object: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a Value> {
    at(object, path).and_then(Value::as_array).into_iter().flatten()
}

/// A field that is a map, made where it is absent or something else.
pub(crate) fn map_mut<'a>(object: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut value = object;
    for step in path {
        value = as_map(value).entry(*step).or_insert(Value::Null);
    }
    as_map(value)
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// Sets what is at a path, or removes it.
pub(crate) fn set(object: &mut Value, path: &[&str], value: Option<Value>) {
    let Some((last, parents)) = path.split_last() else { return };
    match value {
        Some(value) => {
            map_mut(object, parents).insert((*last).to_owned(), value);
        }
        None => {
            let parent = parents.iter().try_fold(object, |value, step| value.get_mut(step));
            if let Some(Value::Object(map)) = parent {
                map.remove(*last);
            }
        }
    }
}

pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_mut(object, &["metadata"])
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

pub(crate) fn resource_version(object: &Value) -> &str {
    text(object, &["metadata", "resourceVersion"])
}

pub(crate) fn generation(object: &Value) -> i64 {
    at(object, &["metadata", "generation"]).and_then(Value::as_i64).unwrap_or(0)
}

pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    let items = items(object, &["metadata", "finalizers"]);
    items.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

pub(crate) fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    let value = (!finalizers.is_empty()).then(|| finalizers.to_vec().into());
    set(object, &["metadata", "finalizers"], value);
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some()
}

pub(crate) fn deletion_timestamp(object: &Value) -> Option<Timestamp> {
    text(object, &["metadata", "deletionTimestamp"]).parse().ok()
}

pub(crate) fn deletion_grace(object: &Value) -> Option<i64> {
    at(object, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64)
}

/// A moment as `metav1.Time` spells it: whole seconds, UTC.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_are_made_and_unmade() {
        let mut object = json!({"metadata": null, "spec": {"a": 1}});
        set(&mut object, &["metadata", "labels", "x"], Some("y".into()));
        assert_eq!(text(&object, &["metadata", "labels", "x"]), "y");
        set(&mut object, &["metadata", "labels", "x"], None);
        set(&mut object, &["status", "phase"], None);
        assert_eq!(object, json!({"metadata": {"labels": {}}, "spec": {"a": 1}}));
    }

    #[test]
    fn time_is_spelt_as_upstream_spells_it() {
        assert_eq!(time(Timestamp::from_nanosecond(1_999_999_999).expect("valid")), "1970-01-01T00:00:01Z");
    }
}
