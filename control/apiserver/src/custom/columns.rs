//! The columns `kubectl get` shows of a custom resource.
//!
//! In: `additionalPrinterColumns` of a version, objects. Out: a Table.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::path::JsonPath;
use crate::meta;
use crate::table::human_duration;

/// One column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    definition: Value,
    kind: String,
    path: Option<JsonPath>,
}

/// The columns of a version: its own, or age where it has none.
pub(crate) fn columns(version: &Value) -> Vec<Column> {
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "description": "The object's name, unique in its namespace.",
        "priority": 0,
    });
    let mut columns =
        vec![Column { definition: name, kind: "string".into(), path: JsonPath::parse(".metadata.name") }];
    let own: Vec<&Value> = meta::items(version, &["additionalPrinterColumns"]).collect();
    if own.is_empty() {
        let age = json!({
            "name": "Age", "type": "date", "format": "", "description": "How long ago the object was created.",
            "priority": 0,
        });
        let path = JsonPath::parse(".metadata.creationTimestamp");
        columns.push(Column { definition: age, kind: "date".into(), path });
    }
    columns.extend(own.into_iter().map(|column| {
        let text = |field: &str| meta::text(column, &[field]);
        let definition = json!({
            "name": text("name"), "type": text("type"), "format": text("format"),
            "description": text("description"), "priority": column["priority"].as_i64().unwrap_or(0),
        });
        Column { definition, kind: text("type").to_owned(), path: JsonPath::parse(text("jsonPath")) }
    }));
    columns
}

pub(crate) fn definitions(columns: &[Column]) -> Value {
    columns.iter().map(|column| column.definition.clone()).collect::<Vec<_>>().into()
}

pub(crate) fn cells(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    columns.iter().map(|column| column.cell(object, now)).collect()
}

// === impl Column ===

impl Column {
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(found) = self.path.as_ref().and_then(|path| path.find(object)) else { return Value::Null };
        match (self.kind.as_str(), found) {
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(at) => human_duration((now.as_second()) - at.as_second()).into(),
                Err(_) => "<invalid>".into(),
            },
            ("integer", Value::Number(_)) | ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => {
                found.clone()
            }
            ("string", Value::String(_)) => found.clone(),
            ("string", other) => other.to_string().into(),
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_of_the_columns_types() {
        let version = json!({"additionalPrinterColumns": [
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
            {"name": "Born", "type": "date", "jsonPath": ".spec.born"},
            {"name": "Wide", "type": "string", "jsonPath": ".spec.map", "priority": 1},
            {"name": "Gone", "type": "string", "jsonPath": ".spec.gone"},
            {"name": "Wrong", "type": "integer", "jsonPath": ".metadata.name"},
        ]});
        let object = json!({
            "metadata": {"name": "a"}, "spec": {"replicas": 3, "born": "2026-01-01T00:00:00Z", "map": {"a": 1}},
        });
        let columns = columns(&version);
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        assert_eq!(
            cells(&columns, &object, now),
            [json!("a"), json!(3), json!("5m"), json!("{\"a\":1}"), Value::Null, Value::Null]
        );
        assert_eq!(definitions(&columns)[3]["priority"], 1);
        assert_eq!(definitions(&super::columns(&json!({})))[1]["name"], "Age");
    }
}
