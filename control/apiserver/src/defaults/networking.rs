//! Defaults of EndpointSlice, NetworkPolicy and IngressClass.
//!
//! In: the fields of an object. Out: the same, filled.

use serde_json::{Value, json};

use super::fill::{Fields, empty, ensure, object, objects, unset};

pub(super) fn endpoint_slice(slice: &mut Fields) {
    for port in objects(slice, "ports") {
        unset(port, "name", "");
        unset(port, "protocol", "TCP");
    }
}

pub(super) fn network_policy(policy: &mut Fields) {
    let Some(spec) = ensure(policy, "spec") else { return };
    for direction in ["ingress", "egress"] {
        for rule in objects(spec, direction) {
            for port in objects(rule, "ports") {
                unset(port, "protocol", "TCP");
            }
        }
    }
    let filled =
        |spec: &Fields, list: &str| spec.get(list).and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    if !filled(spec, "policyTypes") {
        let types = if filled(spec, "egress") { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
}

pub(super) fn ingress_class(class: &mut Fields) {
    let parameters = object(class, "spec").and_then(|spec| object(spec, "parameters"));
    if let Some(parameters) = parameters {
        empty(parameters, "scope", "Cluster");
    }
}
