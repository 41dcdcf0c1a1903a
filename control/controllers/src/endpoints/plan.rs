//! The Endpoints object of a Service.
//!
//! In: the Service, the pods its selector matches, the object as it is. Out: the object as it should be. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::wellknown::labels::{ENDPOINTS_MANAGED_BY, HEADLESS};

use crate::endpoints::MANAGER;
use crate::endpointslice::endpoint;
use crate::pod;

/// Addresses the object holds at most.
const CAPACITY: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// Pods of a Service that have the same ports.
#[derive(Default)]
struct Subset {
    ports: Vec<EndpointPort>,
    ready: Vec<EndpointAddress>,
    not_ready: Vec<EndpointAddress>,
}

/// The object as it should be; what others noted on `known` stays.
pub(crate) fn endpoints(service: &Service, pods: &[Arc<Pod>], known: Option<&Endpoints>) -> Endpoints {
    let mut subsets: BTreeMap<String, Subset> = BTreeMap::new();
    for pod in pods {
        let Some(address) = address(service, pod) else {
            continue;
        };
        let ports = ports(service, pod);
        let subset =
            subsets.entry(format!("{ports:?}")).or_insert_with(|| Subset { ports, ..Subset::default() });
        if endpoint::publishes_not_ready(service) || pod::is_ready(pod) {
            subset.ready.push(address);
        } else {
            subset.not_ready.push(address);
        }
    }
    let mut subsets: Vec<Subset> = subsets.into_values().collect();
    let truncated = truncate(&mut subsets);
    let subsets: Vec<EndpointSubset> = subsets.into_iter().filter_map(finish).collect();
    Endpoints {
        metadata: metadata(service, known, truncated),
        subsets: Some(subsets).filter(|subsets| !subsets.is_empty()),
    }
}

fn metadata(service: &Service, known: Option<&Endpoints>, truncated: bool) -> ObjectMeta {
    let mut meta = known.map(|known| known.metadata.clone()).unwrap_or_default();
    meta.name = service.metadata.name.clone();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(ENDPOINTS_MANAGED_BY.to_owned(), MANAGER.to_owned());
    if endpoint::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    meta.labels = Some(labels);
    if truncated {
        let annotations = meta.annotations.get_or_insert_default();
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else if let Some(annotations) = &mut meta.annotations {
        annotations.remove(OVER_CAPACITY);
    }
    meta
}

/// The pod's address in the Service's first family; `None` when the pod is no endpoint.
fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let leaves = pod::is_terminating(pod) && !endpoint::publishes_not_ready(service);
    if leaves || !endpoint::belongs(pod) {
        return None;
    }
    let (_, ipv6) = crate::endpointslice::families(service).into_iter().next()?;
    let ip = pod::addresses(pod, ipv6).into_iter().next()?;
    Some(EndpointAddress {
        ip,
        hostname: endpoint::hostname(service, pod),
        node_name: pod::bound_to(pod).map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    })
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = endpoint::ports(service, pod).into_iter();
    let mut ports: Vec<EndpointPort> = ports
        .map(|port| EndpointPort {
            name: port.name.filter(|name| !name.is_empty()),
            port: port.port.unwrap_or_default(),
            protocol: port.protocol,
            app_protocol: port.app_protocol,
        })
        .collect();
    ports.sort_by(|a, b| (&a.name, a.port, &a.protocol).cmp(&(&b.name, b.port, &b.protocol)));
    ports
}

/// Cuts to the capacity, addresses that are not ready first. Says whether anything was cut.
fn truncate(subsets: &mut [Subset]) -> bool {
    let total: usize = subsets.iter().map(|subset| subset.ready.len() + subset.not_ready.len()).sum();
    let mut room = CAPACITY;
    for subset in subsets.iter_mut() {
        subset.ready.sort_by(|a, b| a.ip.cmp(&b.ip));
        subset.ready.truncate(room);
        room -= subset.ready.len();
    }
    for subset in subsets.iter_mut() {
        subset.not_ready.sort_by(|a, b| a.ip.cmp(&b.ip));
        subset.not_ready.truncate(room);
        room -= subset.not_ready.len();
    }
    total > CAPACITY
}

fn finish(subset: Subset) -> Option<EndpointSubset> {
    let some = |addresses: Vec<EndpointAddress>| Some(addresses).filter(|addresses| !addresses.is_empty());
    let (addresses, not_ready_addresses) = (some(subset.ready), some(subset.not_ready));
    (addresses.is_some() || not_ready_addresses.is_some()).then(|| EndpointSubset {
        addresses,
        not_ready_addresses,
        ports: Some(subset.ports).filter(|ports| !ports.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "labels": {"team": "a"}},
            "spec": {"ipFamilies": ["IPv4"], "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        }))
        .unwrap()
    }

    fn pod(ip: &str, port: i32, ready: bool, deleting: bool) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {
                    "name": ip, "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z"),
                },
                "spec": {"nodeName": "n", "containers": [
                    {"name": "c", "ports": [{"name": "http", "containerPort": port}]},
                ]},
                "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
            }))
            .unwrap(),
        )
    }

    fn shape(endpoints: &Endpoints) -> Vec<(i32, Vec<&str>, Vec<&str>)> {
        let subsets = endpoints.subsets.iter().flatten();
        subsets
            .map(|subset| {
                let port = subset.ports.as_ref().unwrap()[0].port;
                let ready = subset.addresses.iter().flatten().map(|a| a.ip.as_str()).collect();
                let not_ready = subset.not_ready_addresses.iter().flatten().map(|a| a.ip.as_str()).collect();
                (port, ready, not_ready)
            })
            .collect()
    }

    #[test]
    fn pods_are_grouped_by_their_ports_and_readiness() {
        let pods = [
            pod("10.0.0.3", 80, true, false),
            pod("10.0.0.2", 80, true, false),
            pod("10.0.0.4", 80, false, false),
            pod("10.0.0.5", 8080, true, false),
            pod("10.0.0.6", 80, true, true),
        ];
        let object = endpoints(&service(), &pods, None);
        assert_eq!(
            shape(&object),
            [(80, vec!["10.0.0.2", "10.0.0.3"], vec!["10.0.0.4"]), (8080, vec!["10.0.0.5"], vec![])]
        );
        let labels = object.metadata.labels.as_ref().unwrap();
        assert_eq!((labels["team"].as_str(), labels[ENDPOINTS_MANAGED_BY].as_str()), ("a", MANAGER));
        assert_eq!(endpoints(&service(), &pods, Some(&object)), object);
        assert_eq!(endpoints(&service(), &[], None).subsets, None);
    }

    #[test]
    fn too_many_addresses_are_cut_and_that_is_said() {
        let ip = |number: usize| format!("10.0.{}.{}", number / 250, number % 250 + 1);
        let mut pods: Vec<Arc<Pod>> = (0..999).map(|number| pod(&ip(number), 80, true, false)).collect();
        pods.extend((999..1005).map(|number| pod(&ip(number), 80, false, false)));
        let object = endpoints(&service(), &pods, None);
        let subset = &object.subsets.as_ref().unwrap()[0];
        assert_eq!(subset.addresses.as_ref().unwrap().len(), 999);
        assert_eq!(subset.not_ready_addresses.as_ref().unwrap().len(), 1);
        assert_eq!(object.metadata.annotations.as_ref().unwrap()[OVER_CAPACITY], "truncated");
        let fewer = endpoints(&service(), &pods[..10], Some(&object));
        assert!(fewer.metadata.annotations.unwrap().is_empty());
    }
}
