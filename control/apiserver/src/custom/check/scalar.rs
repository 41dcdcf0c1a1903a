//! Rules on one value: enumerations, patterns, lengths, ranges, formats.
//!
//! In: a value of the right type, its schema. Out: what is wrong, in upstream's words.

use serde_json::Value;

use super::{format, invalid, named};
use crate::custom::structural::Structural;
use crate::field_error::FieldError;

pub(super) fn check(path: &str, found: &Value, schema: &Structural, errors: &mut Vec<FieldError>) {
    let rules = &schema.rules;
    if !rules.one_of.is_empty() && !rules.one_of.iter().any(|one| is_same(one, found)) {
        let listed: Vec<String> = rules.one_of.iter().map(Value::to_string).collect();
        errors.push(FieldError {
            detail: format!("supported values: {}", listed.join(", ")),
            ..FieldError::not_supported(named(path), found, &[])
        });
    }
    match found {
        Value::String(text) => self::text(path, text, found, schema, errors),
        Value::Number(_) => number(path, found, schema, errors),
        _ => {}
    }
}

/// `1` and `1.0` are one number.
fn is_same(one: &Value, other: &Value) -> bool {
    one == other || (one.is_number() && one.as_f64() == other.as_f64())
}

fn text(path: &str, text: &str, found: &Value, schema: &Structural, errors: &mut Vec<FieldError>) {
    let rules = &schema.rules;
    let mut complain =
        |why: String| errors.push(invalid(path, found, format!("{} in body {why}", named(path))));
    let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    if let Some(least) = rules.lengths.least.filter(|least| length < *least) {
        complain(format!("should be at least {least} chars long"));
    }
    if let Some((pattern, regex)) = &rules.pattern {
        match regex {
            Some(regex) if regex.is_match(text) => {}
            Some(_) => complain(format!("should match '{pattern}'")),
            None => complain(format!("should match '{pattern}', but pattern is invalid")),
        }
    }
    if !format::holds(&rules.format, text) {
        complain(format!("must be of type {}: {text:?}", rules.format));
    }
    if let Some(most) = rules.lengths.most.filter(|most| length > *most) {
        errors.push(FieldError::too_long(named(path), usize::try_from(most).unwrap_or(usize::MAX)));
    }
}

fn number(path: &str, found: &Value, schema: &Structural, errors: &mut Vec<FieldError>) {
    let rules = &schema.rules;
    let Some(number) = found.as_f64() else { return };
    let mut complain =
        |why: String| errors.push(invalid(path, found, format!("{} in body {why}", named(path))));
    match rules.minimum {
        Some((least, true)) if number <= least => complain(format!("should be greater than {least}")),
        Some((least, false)) if number < least => {
            complain(format!("should be greater than or equal to {least}"));
        }
        _ => {}
    }
    match rules.maximum {
        Some((most, true)) if number >= most => complain(format!("should be less than {most}")),
        Some((most, false)) if number > most => complain(format!("should be less than or equal to {most}")),
        _ => {}
    }
    if let Some(factor) = rules.multiple_of.filter(|factor| *factor > 0.0)
        && (number / factor).fract() != 0.0
    {
        complain(format!("should be a multiple of {factor}"));
    }
    let fits = match rules.format.as_str() {
        "int32" => found.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        "int64" => found.is_i64() || found.as_f64().is_some_and(|number| number.abs() < 9.3e18),
        _ => true,
    };
    if !fits {
        complain(format!("must be of type {}: {found}", rules.format));
    }
}
