//! Defaults of pod-level resources: what the pod does not say follows from its containers.
//!
//! In: the fields of a pod spec with resources of its own. Out: the same, requests and limits completed.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use xebec_api::Quantity;

use super::fill::{Fields, ensure, object};

type Amounts = BTreeMap<String, Quantity>;

const HUGE_PAGES: &str = "hugepages-";

pub(super) fn pod_level(spec: &mut Fields) {
    let has = |spec: &Fields, list: &str| {
        let amounts = spec.get("resources").and_then(|resources| resources.get(list));
        amounts.and_then(Value::as_object).is_some_and(|amounts| !amounts.is_empty())
    };
    if !has(spec, "limits") && !has(spec, "requests") {
        return;
    }
    let (requests, limits) = (aggregate(spec, "requests"), aggregate(spec, "limits"));
    let huge: Vec<_> = limits.iter().filter(|(name, _)| name.starts_with(HUGE_PAGES)).collect();
    for (name, amount) in huge {
        if amount_of(spec, "requests", name).is_none() {
            set(spec, "limits", name, *amount);
        }
    }
    if has(spec, "limits") {
        for (name, amount) in requests.iter().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory")) {
            set(spec, "requests", name, *amount);
        }
        let own = object(spec, "resources").and_then(|resources| object(resources, "limits")).cloned();
        for (name, amount) in own.unwrap_or_default() {
            let supported = matches!(name.as_str(), "cpu" | "memory") || name.starts_with(HUGE_PAGES);
            if let (true, Some(Ok(amount))) = (supported, amount.as_str().map(Quantity::parse)) {
                set(spec, "requests", &name, amount);
            }
        }
    } else {
        for (name, amount) in limits.iter().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory")) {
            if all_limited(spec, name) {
                set(spec, "limits", name, *amount);
            }
        }
    }
}

/// What the containers ask for together: the sum of those that run at once, or what one init container needs.
fn aggregate(spec: &Fields, list: &str) -> Amounts {
    let mut total = Amounts::new();
    for container in containers(spec, "containers") {
        add(&mut total, &amounts(container, list));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in containers(spec, "initContainers") {
        let own = amounts(container, list);
        if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut running = sidecars.clone();
            add(&mut running, &own);
            raise(&mut peak, &running);
        }
    }
    raise(&mut total, &peak);
    total
}

fn containers<'a>(spec: &'a Fields, list: &str) -> impl Iterator<Item = &'a Value> {
    spec.get(list).and_then(Value::as_array).into_iter().flatten()
}

fn amounts(container: &Value, list: &str) -> Amounts {
    let listed =
        container.get("resources").and_then(|resources| resources.get(list)).and_then(Value::as_object);
    let parse =
        |(name, amount): (&String, &Value)| Some((name.clone(), Quantity::parse(amount.as_str()?).ok()?));
    listed.into_iter().flatten().filter_map(parse).collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += *amount;
    }
}

fn raise(total: &mut Amounts, floor: &Amounts) {
    for (name, amount) in floor {
        let entry = total.entry(name.clone()).or_insert(*amount);
        *entry = (*entry).max(*amount);
    }
}

fn all_limited(spec: &Fields, resource: &str) -> bool {
    let limited = |container: &Value| amounts(container, "limits").contains_key(resource);
    ["containers", "initContainers"].into_iter().all(|list| containers(spec, list).all(limited))
}

fn amount_of<'a>(spec: &'a Fields, list: &str, resource: &str) -> Option<&'a Value> {
    spec.get("resources")?.get(list)?.get(resource)
}

fn set(spec: &mut Fields, list: &str, resource: &str, amount: Quantity) {
    let amounts: Option<&mut Map<String, Value>> =
        ensure(spec, "resources").and_then(|resources| ensure(resources, list));
    if let Some(amounts) = amounts {
        amounts.entry(resource).or_insert_with(|| amount.to_string().into());
    }
}
