//! Values as Go prints them with `%v`, for the errors upstream words that way.
//!
//! In: JSON. Out: `map[name:a ports:[map[containerPort:80]]]`.

use serde_json::{Map, Value};

pub(super) fn go_map(map: &Map<String, Value>) -> String {
    let mut names: Vec<&String> = map.keys().collect();
    names.sort_unstable();
    let fields: Vec<String> =
        names.into_iter().map(|name| format!("{name}:{}", go_value(&map[name]))).collect();
    format!("map[{}]", fields.join(" "))
}

pub(super) fn go_list(list: &[Value]) -> String {
    let items: Vec<String> = list.iter().map(go_value).collect();
    format!("[{}]", items.join(" "))
}

/// Go's name for the type a JSON value is decoded to.
pub(super) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

pub(crate) fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => go_list(list),
        Value::Object(map) => go_map(map),
        scalar => scalar.to_string(),
    }
}
