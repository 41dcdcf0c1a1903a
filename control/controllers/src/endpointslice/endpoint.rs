//! One pod as an endpoint of one Service.
//!
//! In: a Service, a Pod, what is known of its node. Out: addresses, conditions, ports. Pure.

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pod;

/// What endpoints tell about a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeFacts {
    pub(crate) zone: Option<String>,
}

pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// A pod that ran to its end or has no address yet is no endpoint.
pub(crate) fn belongs(pod: &Pod) -> bool {
    !pod::is_terminal(pod) && pod::has_address(pod)
}

/// The pod as an endpoint of the given family; `None` when it has no address of it.
pub(crate) fn endpoint(service: &Service, pod: &Pod, node: &NodeFacts, ipv6: bool) -> Option<Endpoint> {
    let addresses = pod::addresses(pod, ipv6);
    if addresses.is_empty() {
        return None;
    }
    let (serving, terminating) = (pod::is_ready(pod), pod::is_terminating(pod));
    let ready = publishes_not_ready(service) || (serving && !terminating);
    let meta = &pod.metadata;
    let endpoint = Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: pod::bound_to(pod).map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            ..ObjectReference::default()
        }),
        zone: node.zone.clone(),
        ..Endpoint::default()
    };
    let hints = if ready { hints(service, &endpoint) } else { None };
    Some(Endpoint { hints, ..endpoint })
}

/// The pod's own name under the Service's domain.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let here = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.clone().filter(|hostname| here && !hostname.is_empty())
}

/// Where the Service's `trafficDistribution` would have this endpoint used.
fn hints(service: &Service, endpoint: &Endpoint) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let zones = endpoint.zone.clone().map(|name| vec![ForZone { name }]);
    let nodes = endpoint.node_name.clone().map(|name| vec![ForNode { name }]);
    let hints = match distribution {
        "PreferClose" | "PreferSameZone" => EndpointHints { for_zones: zones, for_nodes: None },
        "PreferSameNode" => EndpointHints { for_zones: zones, for_nodes: nodes },
        _ => return None,
    };
    (hints.for_zones.is_some() || hints.for_nodes.is_some()).then_some(hints)
}

/// The ports of the Service as this pod has them: a named target port may be another number in each pod.
pub(crate) fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(pod, port)?),
                protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

/// The number a Service port leads to; `None` when the pod has no container port of that name.
fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        Some(IntOrString::Int(0)) | None => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let mut declared =
        spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let wanted = protocol(port.protocol.as_deref());
    declared
        .find(|declared| {
            declared.name.as_deref() == Some(name) && protocol(declared.protocol.as_deref()) == wanted
        })
        .map(|declared| declared.container_port)
}
