//! Requests and limits.
//!
//! In: resource requirements of containers and pods, lists of amounts. Out: what is wrong with them, in `Errors`.

use xebec_api::{Quantity, names};

use super::field::{Errors, Field};

/// Names without a domain that mean something, though not to a container.
const QUOTA_RESOURCES: &[&str] = &[
    "configmaps",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];

/// The requirements of a container.
pub(super) fn requirements(resources: &Field<'_>, errors: &mut Errors) {
    let (limits, requests) = (resources.child("limits"), resources.child("requests"));
    let (mut huge, mut basic) = (false, false);
    for list in [&limits, &requests] {
        for (name, amount) in list.entries() {
            container_resource(&amount, name, errors);
            huge |= name.starts_with("hugepages-");
            basic |= matches!(name, "cpu" | "memory");
        }
    }
    requests_below_limits(&limits, &requests, errors);
    if huge && !basic {
        errors.forbidden(resources, "HugePages require cpu or memory");
    }
}

/// The requirements of a pod as a whole.
pub(super) fn pod_requirements(resources: &Field<'_>, errors: &mut Errors) {
    let (limits, requests) = (resources.child("limits"), resources.child("requests"));
    for list in [&limits, &requests] {
        for (name, amount) in list.entries() {
            if !matches!(name, "cpu" | "memory") && !name.starts_with("hugepages-") {
                let supported = ["cpu", "hugepages-", "memory"];
                errors.not_supported(&amount.with(&name.into()), &supported);
            }
            not_negative(&amount, errors);
        }
    }
    requests_below_limits(&limits, &requests, errors);
}

/// A list of amounts of any resource.
pub(super) fn amounts(list: &Field<'_>, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        errors.invalid_all(&amount.with(&name.into()), names::qualified_name(name));
        not_negative(&amount, errors);
        whole(&amount, name, errors);
    }
}

/// An amount must not be below zero.
pub(super) fn not_negative(amount: &Field<'_>, errors: &mut Errors) {
    if parsed(amount).is_some_and(Quantity::is_negative) {
        errors.invalid(amount, "must be greater than or equal to 0");
    }
}

/// An amount must be above zero.
pub(super) fn positive(amount: &Field<'_>, errors: &mut Errors) {
    if parsed(amount).is_some_and(|quantity| quantity <= Quantity::ZERO) {
        errors.invalid(amount, "must be greater than zero");
    }
}

/// An amount of a resource of a node.
pub(super) fn value(amount: &Field<'_>, name: &str, errors: &mut Errors) {
    not_negative(amount, errors);
    whole(amount, name, errors);
}

/// The amount in a field.
pub(super) fn parsed(amount: &Field<'_>) -> Option<Quantity> {
    Quantity::parse(amount.text()).ok()
}

fn container_resource(amount: &Field<'_>, name: &str, errors: &mut Errors) {
    let value = name.into();
    let place = amount.with(&value);
    let problems = names::qualified_name(name);
    let well_formed = problems.is_empty();
    errors.invalid_all(&place, problems);
    if well_formed && !name.contains('/') {
        let standard =
            matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if !standard {
            if !QUOTA_RESOURCES.contains(&name) {
                errors.invalid(&place, "must be a standard resource type or fully qualified");
            }
            errors.invalid(&place, "must be a standard resource for containers");
        }
    }
    not_negative(amount, errors);
    whole(amount, name, errors);
}

/// Extended resources come in units.
fn whole(amount: &Field<'_>, name: &str, errors: &mut Errors) {
    if is_extended(name) && parsed(amount).is_some_and(|quantity| !quantity.is_integer()) {
        errors.invalid(amount, "must be an integer");
    }
}

fn requests_below_limits(limits: &Field<'_>, requests: &Field<'_>, errors: &mut Errors) {
    for (name, amount) in requests.entries() {
        let limit = limits.key(name);
        let overcommit = !is_extended(name) && !name.starts_with("hugepages-");
        match (parsed(&amount), parsed(&limit)) {
            (Some(request), Some(bound)) if !overcommit && request != bound => {
                errors.invalid(
                    &requests.with(amount.value()),
                    format!("must be equal to {name} limit of {bound}"),
                );
            }
            (Some(request), Some(bound)) if request > bound => {
                let detail = format!("must be less than or equal to {name} limit of {bound}");
                errors.invalid(&requests.with(amount.value()), detail);
            }
            (Some(_), None) if !overcommit => {
                errors.required(limits, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
}

/// Resources of a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    match name.split_once('/') {
        Some((domain, _)) => domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"),
        None => false,
    }
}
