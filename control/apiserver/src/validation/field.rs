//! A place in an object, and the list of what is wrong with the object.
//!
//! In: a JSON tree. Out: values with their paths. Paths are chains of borrowed steps: nothing is allocated for an object
//! that is right.

use std::fmt;

use serde_json::Value;

use crate::field_error::FieldError;

static NULL: Value = Value::Null;

/// A value and where it is.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    value: &'a Value,
    path: Path<'a>,
}

#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

/// What is wrong so far.
#[derive(Default)]
pub(super) struct Errors(Vec<FieldError>);

// === impl Field ===

impl<'a> Field<'a> {
    /// The object itself.
    pub(super) const fn root(value: &'a Value) -> Self {
        Self { value, path: Path { parent: None, step: Step::Root } }
    }

    /// A field of an object; its value is null when it is absent.
    pub(super) fn child<'b>(&'b self, name: &'b str) -> Field<'b> {
        self.step(self.value.get(name), Step::Name(name))
    }

    /// An entry of a map.
    pub(super) fn key<'b>(&'b self, key: &'b str) -> Field<'b> {
        self.step(self.value.get(key), Step::Key(key))
    }

    /// An item of a list.
    pub(super) fn index(&self, index: usize) -> Field<'_> {
        self.step(self.value.get(index), Step::Index(index))
    }

    /// The same place with another value.
    pub(super) fn with<'b>(&'b self, value: &'b Value) -> Field<'b> {
        Field { value, path: self.path }
    }

    /// The items of a list; none when it is something else.
    pub(super) fn items(&self) -> impl Iterator<Item = Field<'_>> {
        (0..self.value.as_array().map_or(0, Vec::len)).map(|index| self.index(index))
    }

    /// The entries of a map; none when it is something else.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, Field<'_>)> {
        let entries = self.value.as_object().into_iter().flatten();
        entries.map(|(key, value)| (key.as_str(), self.step(Some(value), Step::Key(key))))
    }

    /// The fields of an object, by name.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, Field<'_>)> {
        let fields = self.value.as_object().into_iter().flatten();
        fields.map(|(name, value)| (name.as_str(), self.step(Some(value), Step::Name(name))))
    }

    /// The value; null when the field is absent.
    pub(super) const fn value(&self) -> &'a Value {
        self.value
    }

    /// Whether the field is there.
    pub(super) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// The text; empty when it is none.
    pub(super) fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The number, when it is one.
    pub(super) fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// The truth; false when it is none.
    pub(super) fn flag(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    /// How many items or entries there are.
    pub(super) fn len(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    /// Whether there are no items or entries.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn step<'b>(&'b self, value: Option<&'b Value>, step: Step<'b>) -> Field<'b> {
        Field { value: value.unwrap_or(&NULL), path: Path { parent: Some(&self.path), step } }
    }
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        let at_root = self.parent.is_none_or(|parent| matches!(parent.step, Step::Root));
        match self.step {
            Step::Root => Ok(()),
            Step::Name(name) if at_root => f.write_str(name),
            Step::Name(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

// === impl Errors ===

impl Errors {
    pub(super) fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    /// How many mistakes there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn required(&mut self, field: &Field<'_>, detail: &str) {
        self.0.push(FieldError::required(field.to_string(), detail));
    }

    pub(super) fn invalid(&mut self, field: &Field<'_>, detail: impl Into<String>) {
        self.0.push(FieldError::invalid(field.to_string(), field.value(), detail));
    }

    /// One mistake a sentence.
    pub(super) fn invalid_all(&mut self, field: &Field<'_>, details: impl IntoIterator<Item = String>) {
        for detail in details {
            self.invalid(field, detail);
        }
    }

    pub(super) fn duplicate(&mut self, field: &Field<'_>) {
        self.0.push(FieldError::duplicate(field.to_string(), field.value()));
    }

    pub(super) fn duplicate_because(&mut self, field: &Field<'_>, detail: &str) {
        let error = FieldError::duplicate(field.to_string(), field.value());
        self.0.push(FieldError { detail: detail.to_owned(), ..error });
    }

    pub(super) fn not_found(&mut self, field: &Field<'_>) {
        self.0.push(FieldError::not_found(field.to_string(), field.value()));
    }

    /// The supported values are shown in the order given.
    pub(super) fn not_supported(&mut self, field: &Field<'_>, supported: &[&str]) {
        self.0.push(FieldError::not_supported_in_order(field.to_string(), field.value(), supported));
    }

    pub(super) fn forbidden(&mut self, field: &Field<'_>, detail: impl Into<String>) {
        self.0.push(FieldError::forbidden(field.to_string(), detail));
    }

    pub(super) fn too_long(&mut self, field: &Field<'_>, limit: usize) {
        self.0.push(FieldError::too_long(field.to_string(), limit));
    }

    pub(super) fn too_many(&mut self, field: &Field<'_>, limit: usize) {
        self.0.push(FieldError::too_many(field.to_string(), field.len(), limit));
    }
}
