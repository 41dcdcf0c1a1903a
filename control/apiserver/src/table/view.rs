//! Reading cells out of an object by path.
//!
//! In: an object and the time. Out: texts, numbers, lists and the shapes many kinds show alike.

use jiff::Timestamp;
use serde_json::{Map, Value};
use xebec_api::labels::Selector;

use super::human;

pub(super) const NONE: &str = "<none>";
pub(super) const UNSET: &str = "<unset>";
pub(super) const UNKNOWN: &str = "<unknown>";

/// An object at a time.
pub(super) struct View<'a> {
    pub(super) object: &'a Value,
    pub(super) now: Timestamp,
}

impl<'a> View<'a> {
    /// Whatever is at a path.
    pub(super) fn at(&self, path: &str) -> Option<&'a Value> {
        self.object.pointer(path)
    }

    /// The text at a path; empty when there is none.
    pub(super) fn text(&self, path: &str) -> &'a str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// The text at a path, or a word for its absence.
    pub(super) fn text_or(&self, path: &str, absent: &'static str) -> &'a str {
        match self.text(path) {
            "" => absent,
            text => text,
        }
    }

    /// The number at a path; zero when there is none.
    pub(super) fn number(&self, path: &str) -> i64 {
        self.at(path).and_then(Value::as_i64).unwrap_or_default()
    }

    /// The truth at a path; false when there is none.
    pub(super) fn flag(&self, path: &str) -> bool {
        self.at(path).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The items of the list at a path.
    pub(super) fn list(&self, path: &str) -> &'a [Value] {
        self.at(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// How many entries the list or map at a path has.
    pub(super) fn count(&self, path: &str) -> usize {
        self.at(path).map_or(0, |value| match value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        })
    }

    /// A text at a path as a cell.
    pub(super) fn cell(&self, path: &str) -> Value {
        self.text(path).into()
    }

    /// A number at a path as a cell.
    pub(super) fn number_cell(&self, path: &str) -> Value {
        self.number(path).into()
    }

    /// The object's name.
    pub(super) fn name(&self) -> Value {
        self.cell("/metadata/name")
    }

    /// How long ago the object was created.
    pub(super) fn age(&self) -> Value {
        self.since(self.text("/metadata/creationTimestamp")).into()
    }

    /// How long ago a time was.
    pub(super) fn since(&self, time: &str) -> String {
        let seconds = |then: Timestamp| whole_seconds(then, self.now);
        parse(time).map_or_else(|| UNKNOWN.to_owned(), |then| human::duration(seconds(then)))
    }

    /// Whether the object is being deleted.
    pub(super) fn is_deleted(&self) -> bool {
        self.at("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
    }

    /// Names and images of the containers at a path.
    pub(super) fn containers(&self, path: &str) -> [Value; 2] {
        let joined = |field: &str| -> Value {
            let texts = self.list(path).iter().map(|container| text_in(container, field));
            texts.collect::<Vec<_>>().join(",").into()
        };
        [joined("name"), joined("image")]
    }

    /// The label map at a path.
    pub(super) fn labels(&self, path: &str) -> Value {
        let labels = self.at(path).and_then(Value::as_object);
        labels.map_or_else(|| NONE.to_owned(), format_labels).into()
    }

    /// The label selector at a path, in words.
    pub(super) fn selector(&self, path: &str) -> Value {
        match Selector::from_json(self.at(path)) {
            Err(_) => "<error>".into(),
            Ok(selector) => match selector.to_string().as_str() {
                "" => NONE.into(),
                text => text.into(),
            },
        }
    }

    /// Whether a condition of the status is true.
    pub(super) fn condition(&self, kind: &str) -> bool {
        let is_true = |condition: &&Value| text_in(condition, "type") == kind;
        let found = self.list("/status/conditions").iter().find(is_true);
        found.is_some_and(|condition| text_in(condition, "status") == "True")
    }
}

/// The text in a field of a value.
pub(super) fn text_in<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A number or a string as people write it; empty when there is none.
pub(super) fn plain(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

pub(super) fn format_labels(labels: &Map<String, Value>) -> String {
    if labels.is_empty() {
        return NONE.to_owned();
    }
    let mut pairs: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.sort_unstable();
    pairs.join(",")
}

/// Three items, and how many more there are.
pub(super) fn first_three(items: &[String], absent: &str) -> String {
    let shown = items[..items.len().min(3)].join(",");
    match items.len() {
        0 => absent.to_owned(),
        1..=3 => shown,
        all => format!("{shown} + {} more...", all - 3),
    }
}

pub(super) fn parse(time: &str) -> Option<Timestamp> {
    time.parse().ok()
}

/// Whole seconds between two times, rounded towards zero.
pub(super) fn whole_seconds(then: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(then).as_secs()
}
