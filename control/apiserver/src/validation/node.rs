//! Nodes.
//!
//! In: a Node, and its former state. Out: what is wrong with it, in `Errors`.

use std::collections::HashSet;

use serde_json::Value;

use super::field::{Errors, Field};
use super::{resources, rules, scheduling};

pub(super) fn node(object: &Field<'_>, errors: &mut Errors) {
    taints(object, errors);
    amounts(object, errors);
    let spec = object.child("spec");
    let ranges = spec.child("podCIDRs");
    let mut families = Vec::new();
    for range in ranges.items() {
        families.extend(rules::cidr(&range, errors).map(|range| range.addr().is_ipv6()));
    }
    if ranges.len() > 1 {
        families.dedup();
        if families.len() != 2 || ranges.len() > 2 {
            errors.invalid(&ranges, "may specify no more than one CIDR for each IP family");
        }
        let mut seen: HashSet<String> = HashSet::new();
        for range in ranges.items() {
            if !seen.insert(range.text().to_owned()) {
                errors.duplicate(&range);
            }
        }
    }
}

pub(super) fn update(object: &Field<'_>, old: &Value, errors: &mut Errors) {
    amounts(object, errors);
    let status = object.child("status");
    let addresses = status.child("addresses");
    let (mut seen, mut count) = (HashSet::<&Value>::new(), 0);
    for address in addresses.items() {
        if let Some(Value::Array(all)) = object.value().pointer("/status/addresses")
            && let Some(value) = all.get(count)
        {
            if !seen.insert(value) {
                errors.duplicate(&address);
            }
            count += 1;
        }
    }
    let spec = object.child("spec");
    let ranges = spec.child("podCIDRs");
    if let Some(former) =
        old.pointer("/spec/podCIDRs").filter(|ranges| ranges.as_array().is_some_and(|r| !r.is_empty()))
        && former != ranges.value()
    {
        errors.forbidden(&ranges, "node updates may not change podCIDR except from \"\" to valid");
    }
    let provider = spec.child("providerID");
    let former = old.pointer("/spec/providerID").and_then(Value::as_str).unwrap_or_default();
    if !former.is_empty() && former != provider.text() {
        errors.forbidden(&provider, "node updates may not change providerID except from \"\" to valid");
    }
    taints(object, errors);
}

/// Upstream names taints as if they were metadata.
fn taints(object: &Field<'_>, errors: &mut Errors) {
    let (metadata, spec) = (object.child("metadata"), object.child("spec"));
    let taints = spec.child("taints");
    scheduling::taints(&metadata.child("taints").with(taints.value()), errors);
}

fn amounts(object: &Field<'_>, errors: &mut Errors) {
    let status = object.child("status");
    for name in ["capacity", "allocatable"] {
        let list = status.child(name);
        for (resource, amount) in list.fields() {
            resources::value(&amount, resource, errors);
        }
    }
}
