//! Fields that a custom resource's schema does not know are dropped.
//!
//! In: an object, its schema. Out: the object without them, and their paths.

use serde_json::{Map, Value};

use super::structural::Structural;

/// Fields that every object has.
const TYPE_META: &[&str] = &["apiVersion", "kind", "metadata"];

/// Drops what is unknown; what is in `metadata` is looked at elsewhere.
pub(crate) fn prune(object: &mut Value, schema: &Structural) -> Vec<String> {
    let mut dropped = Vec::new();
    value(object, schema, true, "", &mut dropped);
    dropped
}

fn value(found: &mut Value, schema: &Structural, is_object: bool, path: &str, dropped: &mut Vec<String>) {
    match found {
        Value::Object(fields) => object(fields, schema, is_object || schema.embedded, path, dropped),
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for (index, item) in list.iter_mut().enumerate() {
                value(item, items, false, &format!("{path}[{index}]"), dropped);
            }
        }
        _ => {}
    }
}

fn object(
    fields: &mut Map<String, Value>,
    schema: &Structural,
    has_type: bool,
    path: &str,
    dropped: &mut Vec<String>,
) {
    fields.retain(|name, found| {
        if has_type && TYPE_META.contains(&name.as_str()) {
            return true;
        }
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match schema.field(name) {
            Some(schema) => {
                value(found, schema, false, &path, dropped);
                true
            }
            None if schema.keeps_unknown => true,
            None => {
                dropped.push(path);
                false
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_schema_does_not_know_goes() {
        let schema = Structural::from_json(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "integer"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                    "known": {"type": "object", "properties": {"a": {"type": "string"}}},
                }},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {}}}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true},
            }},
        }}));
        let mut object = json!({
            "apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}, "top": 1,
            "spec": {
                "a": 1, "b": 2, "free": {"x": {"y": 1}, "known": {"a": "", "b": 1}},
                "map": {"k": {"a": 1, "b": 2}}, "list": [{"a": ""}, {"b": 1}],
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {}},
            },
        });
        let mut dropped = prune(&mut object, &schema);
        dropped.sort();
        assert_eq!(
            dropped,
            ["spec.b", "spec.free.known.b", "spec.list[1].b", "spec.map.k.b", "spec.pod.spec", "top"]
        );
        assert_eq!(
            object["spec"],
            json!({
                "a": 1, "free": {"x": {"y": 1}, "known": {"a": ""}}, "map": {"k": {"a": 1}}, "list": [{"a": ""}, {}],
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {}},
            })
        );
    }
}
