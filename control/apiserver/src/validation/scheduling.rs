//! Where pods may run: affinity, tolerations, spreading.
//!
//! In: the fields of a pod spec. Out: what is wrong with them, in `Errors`.

use std::collections::HashSet;

use serde_json::Value;
use xebec_api::names;

use super::field::{Errors, Field};
use super::{rules, selector};

pub(super) fn affinity(affinity: &Field<'_>, errors: &mut Errors) {
    let node = affinity.child("nodeAffinity");
    let required = node.child("requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_set() {
        node_selector(&required, errors);
    }
    let preferred = node.child("preferredDuringSchedulingIgnoredDuringExecution");
    for term in preferred.items() {
        weight(&term, errors);
        node_term(&term.child("preference"), errors);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.child(name);
        let required = pods.child("requiredDuringSchedulingIgnoredDuringExecution");
        for term in required.items() {
            pod_term(&term, errors);
        }
        let preferred = pods.child("preferredDuringSchedulingIgnoredDuringExecution");
        for term in preferred.items() {
            weight(&term, errors);
            pod_term(&term.child("podAffinityTerm"), errors);
        }
    }
}

/// A choice of nodes: at least one term.
pub(super) fn node_selector(selector: &Field<'_>, errors: &mut Errors) {
    let terms = selector.child("nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&terms, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_term(&term, errors);
    }
}

fn node_term(term: &Field<'_>, errors: &mut Errors) {
    let expressions = term.child("matchExpressions");
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
            "Gt" | "Lt" if values.len() != 1 => {
                errors.required(&values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
        let key = expression.child("key");
        errors.invalid_all(&key, names::label_key(key.text()));
    }
    let fields = term.child("matchFields");
    for field in fields.items() {
        let (key, operator, values) = (field.child("key"), field.child("operator"), field.child("values"));
        match operator.text() {
            "In" | "NotIn" if values.len() != 1 => {
                let detail =
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.required(&values, detail);
            }
            "In" | "NotIn" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
        if key.text() == "metadata.name" {
            for value in values.items() {
                errors.invalid_all(&value, names::dns1123_subdomain(value.text()));
            }
        } else {
            errors.invalid(&key, "not a valid field selector key");
        }
    }
}

fn pod_term(term: &Field<'_>, errors: &mut Errors) {
    selector::label_selector(&term.child("labelSelector"), errors);
    selector::label_selector(&term.child("namespaceSelector"), errors);
    let namespaces = term.child("namespaces");
    for name in namespaces.items() {
        errors.invalid_all(&namespaces.with(name.value()), names::dns1123_label(name.text()));
    }
    let key = term.child("topologyKey");
    if key.text().is_empty() {
        errors.required(&key, "can not be empty");
    }
    errors.invalid_all(&key, names::label_key(key.text()));
}

fn weight(term: &Field<'_>, errors: &mut Errors) {
    let weight = term.child("weight");
    if !(1..=100).contains(&weight.int().unwrap_or_default()) {
        errors.invalid(&weight, "must be in the range 1-100");
    }
}

pub(super) fn tolerations(tolerations: &Field<'_>, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let (key, operator) = (toleration.child("key"), toleration.child("operator"));
        let (value, effect) = (toleration.child("value"), toleration.child("effect"));
        rules::optional_name(&key, names::label_key, errors);
        if key.text().is_empty() && operator.text() != "Exists" {
            let shown = Value::from(operator.text());
            errors.invalid(
                &operator.with(&shown),
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if toleration.child("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            let shown = Value::from(effect.text());
            errors
                .invalid(&effect.with(&shown), "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator.text() {
            "" | "Equal" => {
                let problems = names::label_value(value.text());
                if !problems.is_empty() {
                    errors.invalid(&operator.with(value.value()), problems.join(";"));
                }
            }
            "Exists" if !value.text().is_empty() => {
                errors.invalid(
                    &operator.with(toleration.value()),
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Exists" => {}
            _ => errors.not_supported(&operator, &["Equal", "Exists"]),
        }
        if !effect.text().is_empty() {
            taint_effect(&effect, errors);
        }
    }
}

/// What a taint does.
pub(super) fn taint_effect(effect: &Field<'_>, errors: &mut Errors) {
    rules::optional_one_of(effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
}

pub(super) fn spread(constraints: &Field<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for constraint in constraints.items() {
        let (skew, key) = (constraint.child("maxSkew"), constraint.child("topologyKey"));
        let otherwise = constraint.child("whenUnsatisfiable");
        if skew.int().unwrap_or_default() <= 0 {
            errors.invalid(&skew, "must be greater than zero");
        }
        if key.text().is_empty() {
            errors.required(&key, "can not be empty");
        } else {
            errors.invalid_all(&key, names::label_key(key.text()));
        }
        rules::optional_one_of(&otherwise, &["DoNotSchedule", "ScheduleAnyway"], errors);
        let domains = constraint.child("minDomains");
        if domains.int().is_some_and(|count| count <= 0) {
            errors.invalid(&domains, "must be greater than zero");
        }
        if domains.is_set() && otherwise.text() != "DoNotSchedule" {
            let detail = format!(
                "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                otherwise.text()
            );
            errors.invalid(&domains, detail);
        }
        let pair = format!("{{{}, {}}}", key.text(), otherwise.text());
        if seen.contains(&pair) {
            let shown = Value::from(pair.clone());
            errors.duplicate(&constraint.child("{topologyKey, whenUnsatisfiable}").with(&shown));
        }
        seen.insert(pair);
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            rules::optional_one_of(&constraint.child(name), &["Honor", "Ignore"], errors);
        }
        selector::label_selector(&constraint.child("labelSelector"), errors);
        let keys = constraint.child("matchLabelKeys");
        if !keys.is_empty() && !constraint.child("labelSelector").is_set() {
            errors.forbidden(&keys, "must not be specified when labelSelector is not set");
        }
        for key in keys.items() {
            errors.invalid_all(&key, names::label_key(key.text()));
        }
    }
}

/// The taints of a node: each pair of key and effect once.
pub(super) fn taints(taints: &Field<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for taint in taints.items() {
        let (key, value, effect) = (taint.child("key"), taint.child("value"), taint.child("effect"));
        errors.invalid_all(&key, names::label_key(key.text()));
        let problems = names::label_value(value.text());
        if !problems.is_empty() {
            errors.invalid(&value, problems.join(";"));
        }
        if effect.text().is_empty() {
            errors.required(&effect, "");
        } else {
            taint_effect(&effect, errors);
        }
        let pair = (effect.text().to_owned(), key.text().to_owned());
        if !seen.insert(pair) {
            errors.duplicate_because(&taint, "taints must be unique by key and effect pair");
        }
    }
}
