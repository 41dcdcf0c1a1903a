//! Values against schemas, with upstream's sentences.

use super::*;
use serde_json::json;

fn told(schema: &Value, object: &Value) -> Vec<String> {
    check(object, &Structural::from_json(schema)).iter().map(ToString::to_string).collect()
}

fn spec(schema: &Value) -> Value {
    json!({"type": "object", "properties": {"spec": schema}})
}

#[test]
fn types_are_told_in_upstreams_words() {
    let schema = spec(&json!({"type": "object", "properties": {"replicas": {"type": "integer"}}}));
    assert_eq!(told(&schema, &json!({"spec": {"replicas": 3}})), Vec::<String>::new());
    assert_eq!(told(&schema, &json!({"spec": {"replicas": 3.0}})), Vec::<String>::new());
    assert_eq!(
        told(&schema, &json!({"spec": {"replicas": "3"}})),
        [
            "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\""
        ]
    );
    assert_eq!(
        told(&schema, &json!({"spec": null})),
        ["spec: Invalid value: \"null\": spec in body must be of type object: \"null\""]
    );
}

#[test]
fn rules_are_told_in_upstreams_words() {
    for (schema, value, expected) in [
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            "Unsupported value: \"c\": supported values: \"a\", \"b\"",
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            "Invalid value: \"b\": spec in body should match '^a+$'",
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!("b"),
            "Invalid value: \"b\": spec in body should be at least 2 chars long",
        ),
        (json!({"type": "string", "maxLength": 2}), json!("bbb"), "Too long: may not be more than 2 bytes"),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "Invalid value: 0: spec in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "maximum": 9}),
            json!(10),
            "Invalid value: 10: spec in body should be less than or equal to 9",
        ),
        (
            json!({"type": "integer", "multipleOf": 5}),
            json!(7),
            "Invalid value: 7: spec in body should be a multiple of 5",
        ),
        (json!({"type": "array", "maxItems": 1}), json!([1, 2]), "Too many: 2: must have at most 1 item"),
        (
            json!({"type": "array", "minItems": 1}),
            json!([]),
            "Invalid value: []: spec in body should have at least 1 items",
        ),
        (json!({"type": "object", "required": ["a"]}), json!({}), "Required value"),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\"",
        ),
    ] {
        let problems = told(&spec(&schema), &json!({"spec": value}));
        assert_eq!(problems.len(), 1, "{schema}: {problems:?}");
        assert!(problems[0].ends_with(expected), "{schema}: {problems:?}");
    }
    assert_eq!(
        told(&spec(&json!({"type": "object", "required": ["a"]})), &json!({"spec": {}})),
        ["spec.a: Required value"]
    );
}

#[test]
fn lists_with_keys_hold_each_key_once() {
    let items = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    let map = json!({
        "type": "array", "items": items, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
    });
    let problems = told(&spec(&map), &json!({"spec": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}));
    assert_eq!(problems, ["spec[2]: Duplicate value: {\"name\":\"a\"}"]);
    let set = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"});
    assert_eq!(told(&spec(&set), &json!({"spec": ["a", "a"]})), ["spec[1]: Duplicate value: \"a\""]);
}

#[test]
fn schemas_are_composed() {
    let schema = spec(&json!({
        "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    }));
    assert_eq!(told(&schema, &json!({"spec": {"a": 1}})), Vec::<String>::new());
    assert!(told(&schema, &json!({"spec": {}}))[0].ends_with("Found none valid"));
    assert!(told(&schema, &json!({"spec": {"a": 1, "b": 1}}))[0].ends_with("Found 2 valid alternatives"));
    let schema = spec(
        &json!({"type": "string", "not": {"enum": ["x"]}, "anyOf": [{"maxLength": 1}, {"minLength": 3}]}),
    );
    assert_eq!(told(&schema, &json!({"spec": "y"})), Vec::<String>::new());
    assert!(told(&schema, &json!({"spec": "x"}))[0].ends_with("must not validate the schema (not)"));
    assert!(told(&schema, &json!({"spec": "yy"}))[0].ends_with("(anyOf)"));
}
