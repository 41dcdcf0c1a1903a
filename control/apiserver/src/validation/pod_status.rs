//! What a node says of a pod.
//!
//! In: a Pod whose status changes, and its former state. Out: what is wrong, in `Errors`.

use serde_json::Value;

use super::field::{Errors, Field};
use super::rules;

pub(super) fn update(pod: &Field<'_>, old: &Value, errors: &mut Errors) {
    let (spec, status) = (pod.child("spec"), pod.child("status"));
    let node = spec.child("nodeName");
    if old.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default() != node.text() {
        errors.forbidden(&status.child("nodeName"), "may not be changed directly");
    }
    let restarts = spec.child("restartPolicy");
    if restarts.text() != "Always" {
        let never = restarts.text() == "Never";
        ended_stays_ended(
            &status.child("containerStatuses"),
            old,
            "/status/containerStatuses",
            never,
            errors,
        );
    }
    addresses(&status.child("podIPs"), errors);
    addresses(&status.child("hostIPs"), errors);
}

/// A container that ended and is not to be started again does not run again.
fn ended_stays_ended(list: &Field<'_>, old: &Value, place: &str, never: bool, errors: &mut Errors) {
    for former in old.pointer(place).and_then(Value::as_array).into_iter().flatten() {
        let Some(ended) = former.pointer("/state/terminated") else { continue };
        let failed = ended.get("exitCode").and_then(Value::as_i64).unwrap_or_default() != 0;
        if failed && !never {
            continue;
        }
        for status in list.items().filter(|status| Some(status.child("name").value()) == former.get("name")) {
            let state = status.child("state");
            if !state.child("terminated").is_set() {
                errors.forbidden(&state, "may not be transitioned to non-terminated state");
            }
        }
    }
}

/// At most one address of each family.
fn addresses(list: &Field<'_>, errors: &mut Errors) {
    let mut families = Vec::new();
    for entry in list.items() {
        families.extend(rules::ip(&entry.child("ip"), errors).map(|address| address.is_ipv6()));
    }
    if list.len() > 2 || (list.len() == 2 && families.len() == 2 && families[0] == families[1]) {
        errors.invalid(list, "may specify no more than one IP for each IP family");
    }
}
