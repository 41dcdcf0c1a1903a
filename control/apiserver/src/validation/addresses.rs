//! The addresses and IP families of a Service: what fits together, and what may change.
//!
//! In: the spec of a Service, and its former one. Out: what is wrong, in `Errors`.

use std::collections::HashSet;
use std::net::IpAddr;

use super::field::{Errors, Field};
use super::rules;

const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const FIXED: &str = "may not change once set";

/// Whether a Service asks for no address.
pub(super) fn is_headless(spec: &Field<'_>) -> bool {
    let addresses = spec.child("clusterIPs");
    addresses.index(0).text() == "None" || spec.child("clusterIP").text() == "None"
}

/// Addresses, families and policy of a Service.
pub(super) fn cluster(spec: &Field<'_>, errors: &mut Errors) {
    if spec.child("type").text() == "ExternalName" {
        return;
    }
    let (single, list) = (spec.child("clusterIP"), spec.child("clusterIPs"));
    let before = errors.len();
    match (single.text().is_empty(), list.is_empty()) {
        (false, true) => errors.required(&list, ""),
        (false, false) if list.index(0).text() != single.text() => {
            errors.invalid(&list, "first value must match `clusterIP`");
        }
        (true, false) => errors.invalid(&list, "must be empty when `clusterIP` is not specified"),
        _ => {}
    }
    let families = spec.child("ipFamilies");
    let mut seen = HashSet::new();
    for family in families.items() {
        rules::optional_one_of(&family, FAMILIES, errors);
        if !seen.insert(family.value().clone()) {
            errors.duplicate(&family);
        }
    }
    rules::optional_one_of(&spec.child("ipFamilyPolicy"), POLICIES, errors);
    let Some(parsed) = addresses(&list, errors) else { return };
    if parsed.len() > 1 && parsed.iter().all(IpAddr::is_ipv4) | parsed.iter().all(IpAddr::is_ipv6) {
        errors.invalid(&list, "may specify no more than one IP for each IP family");
    }
    if errors.len() > before {
        return;
    }
    for ((index, address), family) in parsed.iter().enumerate().zip(families.items()) {
        if (family.text() == "IPv6") != address.is_ipv6() {
            let detail = format!("expected an {} value as indicated by `ipFamilies[{index}]`", family.text());
            errors.invalid(&list.index(index), detail);
        }
    }
}

/// The addresses; nothing when one of them is none.
fn addresses(list: &Field<'_>, errors: &mut Errors) -> Option<Vec<IpAddr>> {
    let (mut parsed, mut all) = (Vec::new(), true);
    for (index, address) in list.items().enumerate() {
        if index == 0 && address.text() == "None" {
            if list.len() > 1 {
                errors.invalid(list, "'None' must be the first and only value");
                all = false;
            }
            continue;
        }
        match rules::ip(&address, errors) {
            Some(address) => parsed.push(address),
            None => all = false,
        }
    }
    if list.len() > 2 {
        errors.invalid(list, "may only hold up to 2 values");
    }
    all.then_some(parsed)
}

/// The first address and family stay; a second may come and, with the policy, go.
pub(super) fn update(spec: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let external = |spec: &Field<'_>| spec.child("type").text() == "ExternalName";
    if external(spec) || external(old) || (is_headless(spec) && is_headless(old)) {
        return;
    }
    kept(spec, old, ("clusterIPs", "clusterIP"), errors);
    kept(spec, old, ("ipFamilies", "ipFamily"), errors);
}

fn kept(spec: &Field<'_>, old: &Field<'_>, (name, one): (&str, &str), errors: &mut Errors) {
    let (new, former) = (spec.child(name), old.child(name));
    let shown = new.value().clone();
    let shown = if shown.is_null() { serde_json::json!([]) } else { shown };
    if new.len() == former.len() {
        for (index, before) in former.items().enumerate() {
            let item = new.index(index);
            if item.value() != before.value() {
                errors.invalid(&item.with(&shown), FIXED);
            }
        }
        return;
    }
    let first = new.index(0);
    if new.is_empty() {
        errors.invalid(&first.with(&shown), format!("primary {one} can not be unset"));
        return;
    }
    if !former.is_empty() && first.value() != former.index(0).value() {
        errors.invalid(&first.with(&shown), FIXED);
    }
    let policy = spec.child("ipFamilyPolicy");
    if new.len() < former.len() && policy.text() != "SingleStack" {
        errors.invalid(&policy, format!("must be set to 'SingleStack' when releasing the secondary {one}"));
    }
}
