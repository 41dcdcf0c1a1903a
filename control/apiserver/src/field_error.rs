//! What is wrong with one field of an object.
//!
//! In: a field path, the value found, why it will not do. Out: the sentence and the cause of a 422 `Status`, worded as
//! upstream words them.

use std::fmt;

use serde_json::Value;

/// The kinds of mistake, as causes of a `Status` name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CauseReason {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub reason: CauseReason,
    /// The path, e.g. `spec.containers[0].name`.
    pub field: String,
    /// What was found, when it is worth repeating.
    pub bad_value: Option<Value>,
    pub detail: String,
}

// === impl CauseReason ===

impl CauseReason {
    /// The reason of the cause.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    /// The words the sentence begins with.
    pub fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    /// Whether the sentence repeats the value.
    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

// === impl FieldError ===

impl FieldError {
    fn new(
        reason: CauseReason,
        field: impl Into<String>,
        value: Option<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { reason, field: field.into(), bad_value: value, detail: detail.into() }
    }

    /// The value is not among what it refers to.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new(CauseReason::NotFound, field, Some(value.clone()), "")
    }

    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(CauseReason::Required, field, None, detail)
    }

    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(CauseReason::Duplicate, field, Some(value.clone()), "")
    }

    pub fn invalid(field: impl Into<String>, value: &Value, detail: impl Into<String>) -> Self {
        Self::new(CauseReason::Invalid, field, Some(value.clone()), detail)
    }

    /// A value of an enumeration that is none; the supported ones are listed as given, which is upstream's order.
    pub fn not_supported_in_order(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        Self::new(CauseReason::NotSupported, field, Some(value.clone()), detail)
    }

    /// A value of an enumeration that is none; the supported ones are listed in sorted order.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let mut quoted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        quoted.sort_unstable();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(CauseReason::NotSupported, field, Some(value.clone()), detail)
    }

    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(CauseReason::Forbidden, field, None, detail)
    }

    pub fn too_long(field: impl Into<String>, limit: usize) -> Self {
        Self::new(CauseReason::TooLong, field, None, format!("may not be more than {limit} bytes"))
    }

    pub fn too_many(field: impl Into<String>, count: usize, limit: usize) -> Self {
        let detail = format!("must have at most {limit} item{}", if limit == 1 { "" } else { "s" });
        Self::new(CauseReason::TooMany, field, Some(count.into()), detail)
    }

    /// The sentence without the field: the message of the cause.
    pub fn message(&self) -> String {
        let mut message = self.reason.words().to_owned();
        if let Some(value) = self.bad_value.as_ref().filter(|_| self.reason.shows_value()) {
            message.push_str(": ");
            message.push_str(&value.to_string());
        }
        if !self.detail.is_empty() {
            message.push_str(": ");
            message.push_str(&self.detail);
        }
        message
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sentences_are_upstreams() {
        for (error, expected) in [
            (FieldError::required("spec.x", ""), "spec.x: Required value"),
            (FieldError::invalid("a", &json!(-1), "must be >= 0"), "a: Invalid value: -1: must be >= 0"),
            (
                FieldError::not_supported("a", &json!("x"), &["Z", "B"]),
                "a: Unsupported value: \"x\": supported values: \"B\", \"Z\"",
            ),
            (FieldError::forbidden("a", "no"), "a: Forbidden: no"),
            (FieldError::too_long("a", 63), "a: Too long: may not be more than 63 bytes"),
            (FieldError::duplicate("a[1]", &json!("x")), "a[1]: Duplicate value: \"x\""),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }
}
