//! Label selectors in objects, and whether they match a template.
//!
//! In: a selector's field. Out: what is wrong with it, in `Errors`.

use serde_json::Value;
use xebec_api::labels::Selector;
use xebec_api::names;

use super::field::{Errors, Field};
use super::meta;

/// The form of a selector.
pub(super) fn label_selector(selector: &Field<'_>, errors: &mut Errors) {
    meta::labels(&selector.child("matchLabels"), errors);
    let expressions = selector.child("matchExpressions");
    for expression in expressions.items() {
        let (operator, values) = (expression.child("operator"), expression.child("values"));
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors
                    .forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
        let key = expression.child("key");
        errors.invalid_all(&key, names::label_key(key.text()));
        for value in values.items() {
            errors.invalid_all(&value, names::label_value(value.text()));
        }
    }
}

/// The selector of a workload: there, not empty, and matching the labels of its template.
pub(super) fn of_workload(spec: &Field<'_>, owner: &str, errors: &mut Errors) {
    let selector = spec.child("selector");
    if !selector.is_set() {
        errors.required(&selector, "");
        // Nothing is selected by a selector that is not there.
        template_is_missed(spec, errors);
        return;
    }
    label_selector(&selector, errors);
    if selector.child("matchLabels").is_empty() && selector.child("matchExpressions").is_empty() {
        errors.invalid(&selector, format!("empty selector is invalid for {owner}"));
        return;
    }
    matches_template(spec, errors);
}

/// Whether the labels of a template satisfy the selector beside it.
pub(super) fn matches_template(spec: &Field<'_>, errors: &mut Errors) {
    let selector = spec.child("selector");
    let labels = spec.value().pointer("/template/metadata/labels").unwrap_or(&Value::Null);
    match Selector::from_json(Some(selector.value())) {
        Err(_) => errors.invalid(&selector, "invalid label selector"),
        Ok(parsed) if !parsed.matches(&labels) => template_is_missed(spec, errors),
        Ok(_) => {}
    }
}

fn template_is_missed(spec: &Field<'_>, errors: &mut Errors) {
    let template = spec.child("template");
    let metadata = template.child("metadata");
    let labels = metadata.child("labels");
    let none = Value::Object(serde_json::Map::new());
    let shown = if labels.is_set() { labels.value() } else { &none };
    errors.invalid(&labels.with(shown), "`selector` does not match template `labels`");
}
