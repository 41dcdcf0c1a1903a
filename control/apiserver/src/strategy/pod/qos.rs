//! The quality-of-service class of a pod.
//!
//! In: a pod. Out: `Guaranteed`, `Burstable` or `BestEffort`, from requests and limits of CPU and memory.

use serde_json::Value;
use xebec_api::Quantity;

use crate::meta;

const COMPUTE: &[&str] = &["cpu", "memory"];

pub(super) fn class(pod: &Value) -> &'static str {
    let own = meta::at(pod, &["spec", "resources"]);
    let specs: Vec<&Value> = match own.filter(|resources| has_any(resources)) {
        Some(resources) => vec![resources],
        None => meta::items(pod, &["spec", "initContainers"])
            .chain(meta::items(pod, &["spec", "containers"]))
            .map(|container| container.get("resources").unwrap_or(&Value::Null))
            .collect(),
    };
    if !specs.iter().any(|resources| has_any(resources)) {
        return "BestEffort";
    }
    let guaranteed = specs.iter().all(|resources| {
        COMPUTE.iter().all(|name| {
            match (amount(resources, "requests", name), amount(resources, "limits", name)) {
                (Some(request), Some(limit)) => request == limit,
                // Defaulting makes a lone limit the request, too.
                (None, Some(_)) => true,
                (_, None) => false,
            }
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

fn has_any(resources: &Value) -> bool {
    ["requests", "limits"]
        .iter()
        .any(|part| COMPUTE.iter().any(|name| amount(resources, part, name).is_some()))
}

/// An amount above zero.
fn amount(resources: &Value, part: &str, name: &str) -> Option<Quantity> {
    let quantity = Quantity::parse(meta::text(resources, &[part, name])).ok()?;
    (quantity.millis() > 0).then_some(quantity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: &[Value]) -> Value {
        let containers: Vec<Value> = resources.iter().map(|r| json!({ "resources": r })).collect();
        json!({ "spec": { "containers": containers } })
    }

    #[test]
    fn classes_are_upstreams() {
        let full =
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}});
        let some = json!({"requests": {"cpu": "1"}});
        assert_eq!(class(&pod(&[json!({})])), "BestEffort");
        assert_eq!(class(&pod(&[json!({"requests": {"cpu": "0"}})])), "BestEffort");
        assert_eq!(class(&pod(&[full.clone(), full.clone()])), "Guaranteed");
        assert_eq!(class(&pod(&[full.clone(), json!({})])), "Burstable");
        assert_eq!(class(&pod(&[some])), "Burstable");
    }
}
