//! Defaults of a custom resource.
//!
//! In: an object, its schema. Out: the object with a default wherever the schema has one and the object nothing.

use serde_json::Value;

use super::structural::Structural;

/// Fills in defaults, and inside of them.
pub(crate) fn fill(found: &mut Value, schema: &Structural) {
    match found {
        Value::Object(fields) => {
            for (name, schema) in &schema.properties {
                let Some(default) = &schema.default else { continue };
                // A null counts as absent where it would not be allowed.
                if fields.get(name).is_none_or(|found| found.is_null() && !schema.nullable) {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, found) in fields.iter_mut() {
                if let Some(schema) = schema.field(name) {
                    if let (Value::Null, Some(default), false) = (&*found, &schema.default, schema.nullable) {
                        *found = default.clone();
                    }
                    fill(found, schema);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|item| fill(item, items));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_are_filled_at_every_depth() {
        let schema = Structural::from_json(&json!({"type": "object", "properties": {
            "a": {"type": "object", "default": {}, "properties": {"b": {"type": "string", "default": "x"}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer", "default": 3}}}},
            "map": {"type": "object", "additionalProperties": {
                "type": "object", "properties": {"n": {"type": "integer", "default": 4}},
            }},
            "null": {"type": "string", "nullable": true, "default": "y"},
        }}));
        let mut object = json!({"list": [{}, {"n": 1}, {"n": null}], "map": {"k": {}}, "null": null});
        fill(&mut object, &schema);
        assert_eq!(
            object,
            json!({
                "a": {"b": "x"}, "list": [{"n": 3}, {"n": 1}, {"n": 3}], "map": {"k": {"n": 4}}, "null": null,
            })
        );
    }
}
