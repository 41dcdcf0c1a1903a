//! Rules within `allOf`, `anyOf`, `oneOf` and `not`: they may restrict what the schema around them describes, not
//! describe anything themselves.
//!
//! In: a schema and one of its rules. Out: what is wrong, in upstream's words.

use serde_json::Value;

use crate::field_error::FieldError;
use crate::meta;

/// Words that describe a value; only the schema itself may say them.
const DESCRIBES: [&str; 5] = ["additionalProperties", "default", "description", "nullable", "title"];
const EXTENSION: &str = "x-kubernetes-";
/// What an extension may be within a rule: CEL is a rule itself.
const RULES: &str = "x-kubernetes-validations";

pub(super) fn problems(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for junctor in ["allOf", "anyOf", "oneOf"] {
        for (index, rule) in meta::items(schema, &[junctor]).enumerate() {
            // The one place for types: how a number or a text is said without the extension's own word.
            let types = schema["x-kubernetes-int-or-string"] == true && junctor != "oneOf";
            visit(rule, schema, types, &format!("{path}.{junctor}[{index}]"), errors);
        }
    }
    if schema["not"].is_object() {
        visit(&schema["not"], schema, false, &format!("{path}.not"), errors);
    }
}

fn visit(rule: &Value, described: &Value, types: bool, path: &str, errors: &mut Vec<FieldError>) {
    if !types && !meta::text(rule, &["type"]).is_empty() {
        errors.push(FieldError::forbidden(format!("{path}.type"), "must be empty to be structural"));
    }
    for word in DESCRIBES {
        let said = rule.get(word).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)));
        if said {
            errors
                .push(FieldError::forbidden(format!("{path}.{word}"), "must be undefined to be structural"));
        }
    }
    for (word, value) in rule.as_object().into_iter().flatten() {
        let said = !matches!(value, Value::Null | Value::Bool(false));
        if word.starts_with(EXTENSION) && word != RULES && said {
            errors.push(FieldError::forbidden(format!("{path}.{word}"), "must be false to be structural"));
        }
    }
    for (name, below) in rule["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.properties[{name}]");
        let known = described["properties"].get(name).or_else(|| described.get("additionalProperties"));
        match known.filter(|known| known.is_object()) {
            Some(known) => visit(below, known, false, &path, errors),
            None if described["x-kubernetes-preserve-unknown-fields"] == true => {}
            None => missing(path, errors),
        }
    }
    if rule["items"].is_object() {
        let path = format!("{path}.items");
        match described.get("items").filter(|items| items.is_object()) {
            Some(items) => visit(&rule["items"], items, false, &path, errors),
            None => missing(path, errors),
        }
    }
    for junctor in ["allOf", "anyOf", "oneOf"] {
        for (index, below) in meta::items(rule, &[junctor]).enumerate() {
            visit(below, described, types, &format!("{path}.{junctor}[{index}]"), errors);
        }
    }
    if rule["not"].is_object() {
        visit(&rule["not"], described, false, &format!("{path}.not"), errors);
    }
}

fn missing(path: String, errors: &mut Vec<FieldError>) {
    errors.push(FieldError::required(path, "must also be specified outside of allOf, anyOf, oneOf and not"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(schema: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        problems(schema, "s", &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_restrict_what_is_described() {
        let with = |rules: Value| {
            let mut schema = json!({"type": "object", "properties": {
                "a": {"type": "string"}, "l": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "integer"}}}},
                "m": {"type": "object", "additionalProperties": {"type": "string"}},
            }});
            for (word, rule) in rules.as_object().unwrap() {
                schema[word] = rule.clone();
            }
            schema
        };
        for good in [
            json!({"anyOf": [{"required": ["a"]}, {"properties": {"a": {"pattern": "x"}}}]}),
            json!({"allOf": [{"properties": {"l": {"items": {"properties": {"b": {"minimum": 1}}}}}}]}),
            json!({"not": {"anyOf": [{"properties": {"m": {"properties": {"k": {"minLength": 1}}}}}]}}),
            json!({"allOf": [{"x-kubernetes-validations": [{"rule": "true"}]}]}),
        ] {
            assert_eq!(told(&with(good.clone())), Vec::<String>::new(), "{good}");
        }
        for (bad, problem) in [
            (json!({"oneOf": [{"type": "object"}]}), "s.oneOf[0].type: Forbidden: must be empty"),
            (json!({"not": {"default": {}}}), "s.not.default: Forbidden: must be undefined"),
            (json!({"anyOf": [{"properties": {"z": {}}}]}), "s.anyOf[0].properties[z]: Required value"),
            (json!({"allOf": [{"anyOf": [{"nullable": true}]}]}), "s.allOf[0].anyOf[0].nullable: Forbidden"),
            (
                json!({"allOf": [{"x-kubernetes-preserve-unknown-fields": true}]}),
                "must be false to be structural",
            ),
            (
                json!({"allOf": [{"properties": {"a": {"items": {}}}}]}),
                "s.allOf[0].properties[a].items: Required",
            ),
        ] {
            let all = told(&with(bad.clone()));
            assert!(all.iter().any(|told| told.contains(problem)), "{bad}: {all:?}");
        }
        let either =
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
        assert_eq!(told(&either), Vec::<String>::new());
    }
}
