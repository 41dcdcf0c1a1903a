//! The checks that recur in every kind: signs, enumerations, percentages, addresses, immutability.
//!
//! In: a field. Out: what is wrong with it, in `Errors`.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::Value;
use xebec_api::names;

use super::field::{Errors, Field};

pub(super) const IMMUTABLE: &str = "field is immutable";
const NEGATIVE: &str = "must be greater than or equal to 0";

/// A number must not be below zero.
pub(super) fn nonnegative(field: &Field<'_>, errors: &mut Errors) {
    if field.int().is_some_and(|number| number < 0) {
        errors.invalid(field, NEGATIVE);
    }
}

/// The named numbers of an object must not be below zero.
pub(super) fn nonnegative_all(object: &Field<'_>, fields: &[&str], errors: &mut Errors) {
    for name in fields {
        nonnegative(&object.child(name), errors);
    }
}

/// A text that must be one of a few; absent is a mistake of its own.
pub(super) fn one_of(field: &Field<'_>, supported: &[&str], errors: &mut Errors) {
    if field.text().is_empty() {
        errors.required(field, "");
    } else {
        optional_one_of(field, supported, errors);
    }
}

/// A text that must be one of a few, when it is there.
pub(super) fn optional_one_of(field: &Field<'_>, supported: &[&str], errors: &mut Errors) {
    if field.is_set() && !supported.contains(&field.text()) {
        errors.not_supported(field, supported);
    }
}

/// A field that may not change.
pub(super) fn immutable(new: &Field<'_>, old: &Value, errors: &mut Errors) {
    if new.value() != old {
        errors.invalid(new, IMMUTABLE);
    }
}

/// The named fields of an object may not change.
pub(super) fn immutable_all(new: &Field<'_>, old: &Value, fields: &[&str], errors: &mut Errors) {
    for name in fields {
        immutable(&new.child(name), old.get(name).unwrap_or(&Value::Null), errors);
    }
}

/// A text that must be there and follow a rule for names.
pub(super) fn required_name(field: &Field<'_>, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    if field.text().is_empty() {
        errors.required(field, "");
    } else {
        errors.invalid_all(field, rule(field.text()));
    }
}

/// A text that must follow a rule for names, when it is there.
pub(super) fn optional_name(field: &Field<'_>, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    if !field.text().is_empty() {
        errors.invalid_all(field, rule(field.text()));
    }
}

/// A count, or a share of a total.
pub(super) fn int_or_percent(field: &Field<'_>, errors: &mut Errors) {
    match field.value() {
        Value::String(text) => errors.invalid_all(field, names::percent(text)),
        _ => nonnegative(field, errors),
    }
}

pub(super) fn at_most_100_percent(field: &Field<'_>, errors: &mut Errors) {
    if percent_of(field).is_some_and(|percent| percent > 100) {
        errors.invalid(field, "must not be greater than 100%");
    }
}

/// The number in a count or a share, zero when there is none.
pub(super) fn int_or_percent_value(field: &Field<'_>) -> i64 {
    field.int().or_else(|| percent_of(field)).unwrap_or_default()
}

fn percent_of(field: &Field<'_>) -> Option<i64> {
    field.text().strip_suffix('%')?.parse().ok()
}

/// A port by number or by name.
pub(super) fn port_or_name(field: &Field<'_>, errors: &mut Errors) {
    match field.value() {
        Value::Number(_) => errors.invalid_all(field, names::port_number(field.int().unwrap_or(-1))),
        _ => errors.invalid_all(field, names::port_name(field.text())),
    }
}

/// An address in any valid spelling.
pub(super) fn ip(field: &Field<'_>, errors: &mut Errors) -> Option<IpAddr> {
    let parsed: Option<IpAddr> = field.text().parse().ok();
    match parsed {
        None => errors.invalid(field, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        Some(address) if address.to_canonical() != address => {
            errors.invalid(field, "must not be an IPv4-mapped IPv6 address");
            return None;
        }
        Some(_) => {}
    }
    parsed
}

/// A range of addresses.
pub(super) fn cidr(field: &Field<'_>, errors: &mut Errors) -> Option<ipnet::IpNet> {
    let parsed = field.text().parse().ok();
    if parsed.is_none() {
        errors.invalid(field, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
    parsed
}

/// Keeps a text in mind; says whether it was seen before.
pub(super) fn is_repeated<'a>(seen: &mut HashSet<&'a str>, text: &'a str) -> bool {
    !seen.insert(text)
}
