//! LimitRanges and ResourceQuotas.
//!
//! In: an object. Out: what is wrong with it, in `Errors`.

use std::collections::HashSet;

use xebec_api::{Quantity, names};

use super::field::{Errors, Field};

/// What a quota may limit besides `count/…`, `requests.…`, `limits.…` and what has a domain.
const QUOTA_RESOURCES: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
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
];
/// Counted in whole numbers.
const COUNTED: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// Scopes of which at most one can hold of a pod.
const EXCLUSIVE: &[[&str; 2]] = &[["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

pub(super) fn resource_quota(object: &Field<'_>, errors: &mut Errors) {
    let spec = object.child("spec");
    let hard = spec.child("hard");
    for (name, amount) in hard.entries() {
        let known = QUOTA_RESOURCES.contains(&name)
            || name.starts_with("count/")
            || name.starts_with("hugepages-")
            || name.starts_with("requests.hugepages-")
            || (name.contains('/') && names::qualified_name(name.trim_start_matches("requests.")).is_empty())
            || name.contains(".storageclass.storage.k8s.io/");
        if !known {
            errors.invalid(&amount.with(&name.into()), "must be a standard resource for quota");
        }
        match quantity(&amount) {
            Some(found) if found.is_negative() => {
                errors.invalid(&amount, "must be greater than or equal to 0");
            }
            Some(found) if COUNTED.contains(&name) && !found.is_integer() => {
                errors.invalid(&amount, "must be an integer");
            }
            _ => {}
        }
    }
    let scopes = spec.child("scopes");
    let mut seen = Vec::new();
    for scope in scopes.items() {
        if !SCOPES.contains(&scope.text()) {
            errors.invalid(&scope, "unsupported scope");
        }
        seen.push(scope.text());
    }
    for [one, other] in EXCLUSIVE {
        if seen.contains(one) && seen.contains(other) {
            errors.invalid(&scopes, "conflicting scopes");
        }
    }
}

pub(super) fn limit_range(object: &Field<'_>, errors: &mut Errors) {
    let spec = object.child("spec");
    let limits = spec.child("limits");
    let mut kinds = HashSet::new();
    for item in limits.items() {
        let kind = item.child("type");
        if !kinds.insert(kind.text().to_owned()) {
            errors.duplicate(&kind);
        }
        let (least, most) = (item.child("min"), item.child("max"));
        match kind.text() {
            "" => errors.required(&kind, ""),
            "Pod" => {
                for field in ["default", "defaultRequest"] {
                    let default = item.child(field);
                    if !default.is_empty() {
                        errors.forbidden(&default, "may not be specified when `type` is 'Pod'");
                    }
                }
            }
            "PersistentVolumeClaim" if !has(&least, "storage") && !has(&most, "storage") => {
                let detail = "either minimum or maximum storage value is required, but neither was provided";
                errors.required(&item, detail);
            }
            _ => {}
        }
        limit_item(&item, errors);
    }
}

fn has(list: &Field<'_>, name: &str) -> bool {
    list.key(name).is_set()
}

fn quantity(field: &Field<'_>) -> Option<Quantity> {
    Quantity::parse(field.text()).ok()
}

/// Least, defaults and most of each resource must be in this order.
fn limit_item(item: &Field<'_>, errors: &mut Errors) {
    const ORDER: &[(&str, &str)] = &[
        ("min", "min value"),
        ("defaultRequest", "default request value"),
        ("default", "default value"),
        ("max", "max value"),
    ];
    for (place, (lower, lower_words)) in ORDER.iter().enumerate() {
        let list = item.child(lower);
        for (name, amount) in list.entries() {
            let Some(found) = quantity(&amount) else { continue };
            for (upper, upper_words) in &ORDER[place + 1..] {
                let bounds = item.child(upper);
                let Some(bound) = quantity(&bounds.key(name)) else { continue };
                if found > bound {
                    errors.invalid(
                        &amount,
                        format!("{lower_words} {found} is greater than {upper_words} {bound}"),
                    );
                }
            }
        }
    }
    let ratios = item.child("maxLimitRequestRatio");
    for (name, ratio) in ratios.entries() {
        let Some(found) = quantity(&ratio) else { continue };
        if found < Quantity::new(1, xebec_api::quantity::Format::DecimalSI) {
            errors.invalid(&ratio, format!("ratio {found} is less than 1"));
        }
        let (least, most) = (item.child("min"), item.child("max"));
        if let (Some(least), Some(most)) = (quantity(&least.key(name)), quantity(&most.key(name)))
            && !least.is_zero()
            && found.as_f64() > most.as_f64() / least.as_f64()
        {
            let widest = most.as_f64() / least.as_f64();
            errors.invalid(&ratio, format!("ratio {found} is greater than max/min = {widest:.6}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(check: fn(&Field<'_>, &mut Errors), spec: &Value) -> Vec<String> {
        let object = json!({ "spec": spec });
        let mut errors = Errors::default();
        check(&Field::root(&object), &mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn quotas_limit_what_can_be_counted() {
        let good = json!({
            "hard": {
                "pods": "3", "requests.cpu": "500m", "count/deployments.apps": "2", "requests.example.com/gpu": "1",
                "fast.storageclass.storage.k8s.io/requests.storage": "1Gi",
            },
            "scopes": ["BestEffort", "Terminating"],
        });
        assert_eq!(told(resource_quota, &good), Vec::<String>::new());
        for (spec, sentence) in [
            (
                json!({"hard": {"pods": "-1"}}),
                "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
            (
                json!({"hard": {"pods": "500m"}}),
                "spec.hard[pods]: Invalid value: \"500m\": must be an integer",
            ),
            (
                json!({"hard": {"apples": "1"}}),
                "spec.hard[apples]: Invalid value: \"apples\": must be a standard resource for quota",
            ),
            (json!({"scopes": ["Nice"]}), "spec.scopes[0]: Invalid value: \"Nice\": unsupported scope"),
            (
                json!({"scopes": ["BestEffort", "NotBestEffort"]}),
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
            ),
        ] {
            assert_eq!(told(resource_quota, &spec), [sentence]);
        }
    }

    #[test]
    fn ranges_are_in_order() {
        let good = json!({"limits": [{
            "type": "Container", "min": {"cpu": "100m"}, "defaultRequest": {"cpu": "200m"}, "default": {"cpu": "1"},
            "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "4"},
        }]});
        assert_eq!(told(limit_range, &good), Vec::<String>::new());
        for (item, sentence) in [
            (
                json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}),
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            ),
            (
                json!({"type": "Container", "default": {"cpu": "3"}, "max": {"cpu": "1"}}),
                "spec.limits[0].default[cpu]: Invalid value: \"3\": default value 3 is greater than max value 1",
            ),
            (
                json!({"type": "Pod", "default": {"cpu": "3"}}),
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            ),
            (
                json!({"type": "PersistentVolumeClaim"}),
                "spec.limits[0]: Required value: either minimum or maximum storage value is required, but neither was \
                 provided",
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}}),
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
            ),
        ] {
            assert_eq!(told(limit_range, &json!({"limits": [item]})), [sentence]);
        }
    }
}
