//! Whether the schema of a custom resource is structural: every field has a type, defaults fit, lists say their keys.
//!
//! In: `openAPIV3Schema`. Out: what is wrong, in upstream's words.

use serde_json::Value;

use super::{default_problems, junctors};
use crate::custom::structural::Structural;
use crate::field_error::FieldError;
use crate::meta;

/// Where in an object a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
}

pub(super) fn problems(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    visit(schema, path, Place::Root, &mut errors);
    errors
}

fn visit(schema: &Value, path: &str, place: Place, errors: &mut Vec<FieldError>) {
    let flag = |field: &str| schema[field] == true;
    let kind = meta::text(schema, &["type"]);
    let free = flag("x-kubernetes-preserve-unknown-fields") || flag("x-kubernetes-int-or-string");
    match (kind, place) {
        ("", Place::Root) => {
            errors.push(FieldError::required(format!("{path}.type"), "must not be empty at the root"));
        }
        ("", Place::Field) if !free => errors.push(FieldError::required(
            format!("{path}.type"),
            "must not be empty for specified object fields",
        )),
        ("", Place::Item) if !free => errors.push(FieldError::required(
            format!("{path}.type"),
            "must not be empty for specified array items",
        )),
        (other, Place::Root) if other != "object" => {
            errors.push(FieldError::invalid(
                format!("{path}.type"),
                &other.into(),
                "must be object at the root",
            ));
        }
        _ => {}
    }
    if flag("uniqueItems") {
        errors.push(FieldError::forbidden(
            format!("{path}.uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    if schema.get("properties").is_some() && schema["additionalProperties"].is_object() {
        errors.push(FieldError::forbidden(
            format!("{path}.additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        ));
    }
    list_problems(schema, kind, path, errors);
    junctors::problems(schema, path, errors);
    if flag("x-kubernetes-embedded-resource") {
        if kind != "object" {
            errors.push(FieldError::invalid(
                format!("{path}.type"),
                &kind.into(),
                "must be object if x-kubernetes-embedded-resource is true",
            ));
        }
        let described = schema["properties"].as_object().is_some_and(|fields| !fields.is_empty());
        if !described && !flag("x-kubernetes-preserve-unknown-fields") {
            errors.push(FieldError::required(
                format!("{path}.properties"),
                "must not be empty if x-kubernetes-embedded-resource is true without \
                 x-kubernetes-preserve-unknown-fields",
            ));
        }
    }
    if let Some(pattern) = schema["pattern"].as_str().filter(|pattern| regex::Regex::new(pattern).is_err()) {
        errors.push(FieldError::invalid(
            format!("{path}.pattern"),
            &pattern.into(),
            "must be a valid regular expression",
        ));
    }
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        errors.extend(default_problems(&Structural::from_json(schema), default, path));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let metadata = place == Place::Root && ["apiVersion", "kind", "metadata"].contains(&name.as_str());
        if !metadata {
            visit(field, &format!("{path}.properties[{name}]"), Place::Field, errors);
        }
    }
    if schema["additionalProperties"].is_object() {
        visit(&schema["additionalProperties"], &format!("{path}.additionalProperties"), Place::Field, errors);
    }
    if schema["items"].is_object() {
        visit(&schema["items"], &format!("{path}.items"), Place::Item, errors);
    } else if kind == "array" {
        errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
    }
}

fn list_problems(schema: &Value, kind: &str, path: &str, errors: &mut Vec<FieldError>) {
    let list_type = meta::text(schema, &["x-kubernetes-list-type"]);
    if list_type.is_empty() {
        return;
    }
    if kind != "array" {
        errors.push(FieldError::invalid(
            format!("{path}.type"),
            &kind.into(),
            "must be array if x-kubernetes-list-type is specified",
        ));
    }
    if !["atomic", "set", "map"].contains(&list_type) {
        errors.push(FieldError::not_supported(
            format!("{path}.x-kubernetes-list-type"),
            &list_type.into(),
            &["atomic", "set", "map"],
        ));
    }
    let keys: Vec<&str> =
        meta::items(schema, &["x-kubernetes-list-map-keys"]).filter_map(Value::as_str).collect();
    if list_type == "map" && keys.is_empty() {
        errors.push(FieldError::required(
            format!("{path}.x-kubernetes-list-map-keys"),
            "must not be empty if x-kubernetes-list-type is map",
        ));
    }
    for (index, key) in keys.iter().enumerate() {
        if schema["items"]["properties"].get(key).is_none() {
            errors.push(FieldError::invalid(
                format!("{path}.x-kubernetes-list-map-keys[{index}]"),
                &(*key).into(),
                "entries of x-kubernetes-list-map-keys must be properties of the items",
            ));
        }
    }
}
