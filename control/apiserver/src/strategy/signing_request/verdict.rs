//! What may be said of a signing request: the conditions in its status.
//!
//! In: the request before and after a write. Out: what is wrong. A verdict stands once it is given; a request is approved
//! or denied, not both; what was wrong already may stay.

use std::collections::HashSet;

use serde_json::Value;

use crate::field_error::FieldError;
use crate::meta;

const FIELD: &str = "status.conditions";
/// Once there, they stay, and they are never false.
const VERDICTS: [&str; 3] = ["Approved", "Denied", "Failed"];

pub(super) fn problems(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for kind in VERDICTS {
        if of_kind(new, kind).count() < of_kind(old, kind).count() {
            let detail = format!("updates may not remove a condition of type {kind:?}");
            errors.push(FieldError::forbidden(FIELD, detail));
        }
    }
    let (both_before, twice_before) = (is_both(old), has_twice(old));
    let mut seen = HashSet::new();
    for (index, condition) in conditions(new).enumerate() {
        let (kind, status) = (meta::text(condition, &["type"]), meta::text(condition, &["status"]));
        let field = |name: &str| format!("{FIELD}[{index}].{name}");
        if kind.is_empty() {
            errors.push(FieldError::required(field("type"), ""));
        }
        let allowed: &[&str] =
            if VERDICTS.contains(&kind) { &["True"] } else { &["True", "False", "Unknown"] };
        if status.is_empty() {
            errors.push(FieldError::required(field("status"), ""));
        } else if !allowed.contains(&status) {
            errors.push(FieldError::not_supported(field("status"), &status.into(), allowed));
        }
        if !twice_before && !seen.insert(kind) {
            errors.push(FieldError::duplicate(field("type"), &kind.into()));
        }
    }
    if is_both(new) && !both_before {
        let last = conditions(new).filter(|condition| is_verdict(condition)).last();
        let kind = last.map(|condition| meta::text(condition, &["type"])).unwrap_or_default();
        let detail = "Approved and Denied conditions are mutually exclusive";
        errors.push(FieldError::invalid(FIELD, &kind.into(), detail));
    }
    errors
}

/// Approved or denied: what the approver says.
pub(super) fn is_verdict(condition: &Value) -> bool {
    matches!(meta::text(condition, &["type"]), "Approved" | "Denied")
}

fn conditions(request: &Value) -> impl Iterator<Item = &Value> {
    meta::items(request, &["status", "conditions"])
}

fn of_kind<'a>(request: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    conditions(request).filter(move |condition| meta::text(condition, &["type"]) == kind)
}

fn is_both(request: &Value) -> bool {
    of_kind(request, "Approved").next().is_some() && of_kind(request, "Denied").next().is_some()
}

fn has_twice(request: &Value) -> bool {
    let mut seen = HashSet::new();
    !conditions(request).all(|condition| seen.insert(meta::text(condition, &["type"])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(kinds: &[(&str, &str)]) -> Value {
        let all: Vec<Value> =
            kinds.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect();
        json!({"status": {"conditions": all}})
    }

    #[test]
    fn a_verdict_is_one_and_stands() {
        let (none, approved) = (request(&[]), request(&[("Approved", "True")]));
        let both = request(&[("Approved", "True"), ("Denied", "True")]);
        assert_eq!(problems(&approved, &none), []);
        assert_eq!(problems(&approved, &approved), []);
        assert_eq!(problems(&both, &both), [], "what was there may stay");
        let other = request(&[("Approved", "True"), ("Checked", "Unknown")]);
        assert_eq!(problems(&other, &approved), []);
        for (new, old, told) in [
            (&both, &none, "mutually exclusive"),
            (&both, &approved, "mutually exclusive"),
            (&none, &approved, "may not remove a condition of type \"Approved\""),
            (&request(&[("Denied", "True")]), &approved, "may not remove"),
            (&approved, &request(&[("Approved", "True"), ("Failed", "True")]), "type \"Failed\""),
            (&request(&[("Approved", "False")]), &none, "Unsupported value"),
            (&request(&[("Approved", "")]), &none, "Required value"),
            (&request(&[("", "True")]), &none, "Required value"),
            (&request(&[("Approved", "True"), ("Approved", "True")]), &none, "Duplicate value"),
        ] {
            let all: Vec<String> = problems(new, old).iter().map(ToString::to_string).collect();
            assert!(all.iter().any(|problem| problem.contains(told)), "{new} after {old}: {all:?}");
        }
    }
}
