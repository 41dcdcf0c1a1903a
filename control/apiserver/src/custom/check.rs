//! Whether a custom resource holds to its schema.
//!
//! In: an object, its schema. Out: what is wrong, field by field, in upstream's words.

use serde_json::{Map, Value};

use super::structural::{Bounds, Kind, ListType, Structural};
use crate::field_error::{CauseReason, FieldError};

mod format;
mod scalar;

/// More mistakes than this are not worth telling.
const MAX_ERRORS: usize = 100;

/// The mistakes of an object.
pub(crate) fn check(object: &Value, schema: &Structural) -> Vec<FieldError> {
    let mut errors = Vec::new();
    value("", object, schema, &mut errors);
    errors.truncate(MAX_ERRORS);
    errors
}

/// Where the mistake is, as the sentences name it: the object itself has no name.
fn named(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn invalid(path: &str, found: &Value, detail: String) -> FieldError {
    FieldError::invalid(named(path), found, detail)
}

fn value(path: &str, found: &Value, schema: &Structural, errors: &mut Vec<FieldError>) {
    if found.is_null() && (schema.nullable || (schema.kind.is_none() && schema.keeps_unknown)) {
        return;
    }
    if !is_of_type(found, schema) {
        errors.push(wrong_type(path, found, schema));
        return;
    }
    scalar::check(path, found, schema, errors);
    match found {
        Value::Object(fields) => object(path, found, fields, schema, errors),
        Value::Array(list) => items(path, found, list, schema, errors),
        _ => {}
    }
    composed(path, found, schema, errors);
}

fn is_of_type(found: &Value, schema: &Structural) -> bool {
    if schema.int_or_string {
        return found.is_string() || is_integer(found);
    }
    match schema.kind {
        None => true,
        Some(Kind::Object) => found.is_object(),
        Some(Kind::Array) => found.is_array(),
        Some(Kind::String) => found.is_string(),
        Some(Kind::Integer) => is_integer(found),
        Some(Kind::Number) => found.is_number(),
        Some(Kind::Boolean) => found.is_boolean(),
    }
}

fn is_integer(found: &Value) -> bool {
    found.is_i64() || found.is_u64() || found.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn wrong_type(path: &str, found: &Value, schema: &Structural) -> FieldError {
    let word = match found {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(found) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted = if schema.int_or_string { "integer,string" } else { schema.kind.map_or("", Kind::word) };
    let detail = format!("{} in body must be of type {wanted}: {word:?}", named(path));
    FieldError {
        reason: CauseReason::TypeInvalid,
        field: named(path).to_owned(),
        bad_value: Some(word.into()),
        detail,
    }
}

fn object(
    path: &str,
    found: &Value,
    fields: &Map<String, Value>,
    schema: &Structural,
    errors: &mut Vec<FieldError>,
) {
    for name in &schema.rules.required {
        if !fields.contains_key(name) {
            errors.push(FieldError::required(child(path, name), ""));
        }
    }
    counted(path, found, fields.len(), schema.rules.properties, "properties", errors);
    for (name, found) in fields {
        if let Some(known) = schema.properties.get(name) {
            value(&child(path, name), found, known, errors);
        } else if let Some(values) = &schema.additional {
            value(&child(path, name), found, values, errors);
        }
        if errors.len() >= MAX_ERRORS {
            return;
        }
    }
}

fn items(path: &str, found: &Value, list: &[Value], schema: &Structural, errors: &mut Vec<FieldError>) {
    let bounds = schema.rules.items;
    if let Some(most) =
        bounds.most.and_then(|most| usize::try_from(most).ok()).filter(|most| list.len() > *most)
    {
        errors.push(FieldError::too_many(named(path), list.len(), most));
    }
    counted(path, found, list.len(), Bounds { most: None, ..bounds }, "items", errors);
    if let Some(items) = &schema.items {
        for (index, item) in list.iter().enumerate() {
            value(&format!("{path}[{index}]"), item, items, errors);
            if errors.len() >= MAX_ERRORS {
                return;
            }
        }
    }
    let key = |item: &Value| match &schema.list_type {
        ListType::Atomic => None,
        ListType::Set => Some(item.clone()),
        ListType::Map(keys) => {
            let picked = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
            Some(Value::Object(picked.collect()))
        }
    };
    let mut seen = std::collections::HashSet::new();
    for (index, item) in list.iter().enumerate() {
        let key = key(item).or_else(|| schema.rules.unique.then(|| item.clone()));
        if let Some(key) = key
            && !seen.insert(key.to_string())
        {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), &key));
        }
    }
}

fn counted(
    path: &str,
    found: &Value,
    count: usize,
    bounds: Bounds,
    what: &str,
    errors: &mut Vec<FieldError>,
) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    if let Some(least) = bounds.least.filter(|least| count < *least) {
        errors.push(invalid(
            path,
            found,
            format!("{} in body should have at least {least} {what}", named(path)),
        ));
    }
    if let Some(most) = bounds.most.filter(|most| count > *most) {
        errors.push(invalid(
            path,
            found,
            format!("{} in body should have at most {most} {what}", named(path)),
        ));
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn composed(path: &str, found: &Value, schema: &Structural, errors: &mut Vec<FieldError>) {
    let holds = |schema: &Structural| {
        let mut errors = Vec::new();
        value(path, found, schema, &mut errors);
        errors.is_empty()
    };
    let rules = &schema.rules;
    let quoted = format!("{:?}", named(path));
    let mut complain = |why: &str| errors.push(invalid(path, &Value::from(""), format!("{quoted} {why}")));
    if !rules.all.iter().all(holds) {
        complain("must validate all the schemas (allOf)");
    }
    if !rules.any.is_empty() && !rules.any.iter().any(holds) {
        complain("must validate at least one schema (anyOf)");
    }
    if !rules.one.is_empty() {
        match rules.one.iter().filter(|schema| holds(schema)).count() {
            1 => {}
            0 => complain("must validate one and only one schema (oneOf). Found none valid"),
            count => {
                complain(&format!(
                    "must validate one and only one schema (oneOf). Found {count} valid alternatives"
                ));
            }
        }
    }
    if rules.not.as_deref().is_some_and(holds) {
        complain("must not validate the schema (not)");
    }
}

#[cfg(test)]
mod tests;
