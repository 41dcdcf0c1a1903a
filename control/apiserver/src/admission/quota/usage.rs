//! What objects count for.
//!
//! In: objects. Out: amounts by the names quotas have for them: `pods`, `requests.cpu`, `count/deployments.apps`.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use xebec_api::quantity::Quantity;

use super::scope::{self, Facts, Scope};
use crate::admission::demand;
use crate::follow::Fold;
use crate::kinds::Resource;
use crate::meta;
use crate::registry::Registry;
use crate::stored;

/// Amounts by name.
pub(super) type Usage = BTreeMap<String, Quantity>;

/// Where pods are kept.
pub(super) const PODS: &str = "/registry/core/pods/";
const ONE: Quantity = Quantity::new(1, xebec_api::quantity::Format::DecimalSI);
/// Counted under their plain names, too.
const PLAIN: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// What quotas call a pod's requests without a prefix.
const COMPUTE: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// The pods of all namespaces.
#[derive(Default)]
pub(crate) struct PodUsage {
    namespaces: HashMap<String, HashMap<String, (Usage, Facts)>>,
}

// === impl PodUsage ===

impl PodUsage {
    /// The sum over a namespace's pods that the scopes pick.
    pub(super) fn total(&self, namespace: &str, scopes: &[Scope]) -> Usage {
        let mut total = Usage::new();
        let pods = self.namespaces.get(namespace).into_iter().flatten();
        for (_, (usage, facts)) in pods {
            if scope::all_match(scopes, facts) {
                for (name, amount) in usage {
                    *total.entry(name.clone()).or_default() += *amount;
                }
            }
        }
        total
    }
}

impl Fold for PodUsage {
    fn put(&mut self, place: &str, object: Value) {
        let Some((namespace, name)) = place.split_once('/') else { return };
        let pods = self.namespaces.entry(namespace.to_owned()).or_default();
        pods.insert(name.to_owned(), (of_pod(&object), Facts::of(&object)));
    }

    fn delete(&mut self, place: &str) {
        let Some((namespace, name)) = place.split_once('/') else { return };
        let Some(pods) = self.namespaces.get_mut(namespace) else { return };
        pods.remove(name);
        if pods.is_empty() {
            self.namespaces.remove(namespace);
        }
    }
}

/// Whether a quota's word is about what pods ask for.
pub(super) fn is_of_pods(resource: &str) -> bool {
    resource == "pods"
        || COMPUTE.contains(&resource)
        || resource.starts_with("limits.")
        || resource.starts_with("hugepages-")
        || (resource.starts_with("requests.") && resource != "requests.storage")
}

/// What one object counts for.
pub(super) fn of_object(resource: &Resource, object: &Value) -> Usage {
    let mut usage = match (&*resource.gvk.group, resource.plural.as_str()) {
        ("", "pods") => of_pod(object),
        ("", "services") => of_service(object),
        ("", "persistentvolumeclaims") => of_claim(object),
        _ => Usage::new(),
    };
    if resource.gvk.group.is_empty() && PLAIN.contains(&resource.plural.as_str()) {
        usage.insert(resource.plural.clone(), ONE);
    }
    usage.insert(format!("count/{}", resource.group_resource()), ONE);
    usage
}

/// A finished pod counts as an object only.
fn of_pod(pod: &Value) -> Usage {
    let mut usage = Usage::from([("count/pods".to_owned(), ONE)]);
    if matches!(meta::text(pod, &["status", "phase"]), "Failed" | "Succeeded") {
        return usage;
    }
    usage.insert("pods".to_owned(), ONE);
    for (name, amount) in demand::amounts(pod, "requests") {
        if COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-") {
            usage.insert(name.clone(), amount);
        }
        usage.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in demand::amounts(pod, "limits") {
        usage.insert(format!("limits.{name}"), amount);
    }
    usage
}

fn of_service(service: &Value) -> Usage {
    let mut usage = Usage::new();
    let kind = meta::text(service, &["spec", "type"]);
    let ports = i64::try_from(meta::items(service, &["spec", "ports"]).count()).unwrap_or(i64::MAX);
    let has_ports = kind == "NodePort"
        || (kind == "LoadBalancer" && service["spec"]["allocateLoadBalancerNodePorts"] != false);
    if has_ports {
        usage.insert("services.nodeports".to_owned(), ONE.saturating_mul(ports));
    }
    if kind == "LoadBalancer" {
        usage.insert("services.loadbalancers".to_owned(), ONE);
    }
    usage
}

fn of_claim(claim: &Value) -> Usage {
    let asked = meta::text(claim, &["spec", "resources", "requests", "storage"]);
    let storage = Quantity::parse(asked).unwrap_or_default();
    let class = meta::text(claim, &["spec", "storageClassName"]);
    let mut usage = Usage::from([("requests.storage".to_owned(), storage)]);
    if !class.is_empty() {
        let prefix = format!("{class}.storageclass.storage.k8s.io");
        usage.insert(format!("{prefix}/requests.storage"), storage);
        usage.insert(format!("{prefix}/persistentvolumeclaims"), ONE);
    }
    usage
}

/// How much of something that is no pod a namespace holds.
pub(super) fn counted(registry: &Registry, namespace: &str, resource: &str) -> Quantity {
    let name = resource.strip_prefix("count/").unwrap_or(resource);
    let plain = resource.starts_with("count/") || PLAIN.contains(&resource);
    if plain {
        let (plural, group) = name.split_once('.').unwrap_or((name, ""));
        let prefix = match group {
            "" => format!("/registry/core/{plural}/{namespace}/"),
            group => format!("/registry/{group}/{plural}/{namespace}/"),
        };
        let count = registry.store.count(prefix.as_bytes(), None, None).unwrap_or(0);
        return ONE.saturating_mul(i64::try_from(count).unwrap_or(i64::MAX));
    }
    let plural = if resource.starts_with("services.") { "services" } else { "persistentvolumeclaims" };
    let served = registry.kinds.core(plural);
    let objects = super::objects(&registry.store, &stored::prefix(&served.resource, Some(namespace)));
    objects.iter().filter_map(|object| of_object(&served.resource, object).get(resource).copied()).sum()
}

/// What containers must say because a quota limits it: `limits.cpu for: c; requests.cpu for: c`.
pub(super) fn missing(pod: &Value, hard: &Usage) -> String {
    let mut told: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for resource in hard.keys() {
        let (list, name) = match resource.split_once('.') {
            Some(("limits", name)) => ("limits", name),
            Some(("requests", name)) => ("requests", name),
            _ => ("requests", resource.as_str()),
        };
        if !matches!(name, "cpu" | "memory") || meta::at(pod, &["spec", "resources", list, name]).is_some() {
            continue;
        }
        for kind in ["containers", "initContainers"] {
            for container in meta::items(pod, &["spec", kind]) {
                if meta::at(container, &["resources", list, name]).is_none() {
                    told.entry(resource).or_default().push(meta::text(container, &["name"]));
                }
            }
        }
    }
    let told: Vec<String> =
        told.into_iter().map(|(resource, names)| format!("{resource} for: {}", names.join(","))).collect();
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn amounts(usage: &Usage) -> BTreeMap<&str, String> {
        usage.iter().map(|(name, amount)| (name.as_str(), amount.to_string())).collect()
    }

    #[test]
    fn pods_count_by_what_they_ask() {
        let mut pod = json!({"spec": {"containers": [{"resources": {
            "requests": {"cpu": "500m", "example.com/gpu": "2"}, "limits": {"cpu": "1"},
        }}]}});
        assert_eq!(
            amounts(&of_pod(&pod)),
            BTreeMap::from([
                ("count/pods", "1".to_owned()),
                ("cpu", "500m".to_owned()),
                ("limits.cpu", "1".to_owned()),
                ("pods", "1".to_owned()),
                ("requests.cpu", "500m".to_owned()),
                ("requests.example.com/gpu", "2".to_owned()),
            ])
        );
        pod["status"] = json!({"phase": "Succeeded"});
        assert_eq!(amounts(&of_pod(&pod)), BTreeMap::from([("count/pods", "1".to_owned())]));
    }

    #[test]
    fn services_and_claims_count_more_than_once() {
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        assert_eq!(
            amounts(&of_service(&service)),
            BTreeMap::from([
                ("services.loadbalancers", "1".to_owned()),
                ("services.nodeports", "2".to_owned())
            ])
        );
        let claim =
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(amounts(&of_claim(&claim))["fast.storageclass.storage.k8s.io/requests.storage"], "1Gi");
    }

    #[test]
    fn what_is_limited_must_be_said() {
        let pod = json!({"spec": {"containers": [
            {"name": "a", "resources": {"limits": {"cpu": "1"}}}, {"name": "b"},
        ]}});
        let hard: Usage = [("limits.cpu", "1"), ("memory", "1"), ("pods", "1")]
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text.parse().unwrap()))
            .collect();
        assert_eq!(missing(&pod, &hard), "limits.cpu for: b; memory for: a,b");
    }
}
