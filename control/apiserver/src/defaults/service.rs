//! Defaults of a Service.
//!
//! In: the fields of a Service. Out: the same, filled. Absent: addresses, node ports, families, which are allocated.

use serde_json::Value;

use super::fill::{Fields, empty, ensure, objects, text, unset};

/// Three hours.
const AFFINITY_SECONDS: i32 = 10_800;

pub(super) fn service(service: &mut Fields) {
    let Some(spec) = ensure(service, "spec") else { return };
    empty(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            let client = ensure(spec, "sessionAffinityConfig").and_then(|config| ensure(config, "clientIP"));
            if let Some(client) = client {
                unset(client, "timeoutSeconds", AFFINITY_SECONDS);
            }
        }
        _ => {}
    }
    empty(spec, "type", "ClusterIP");
    for port in objects(spec, "ports") {
        empty(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            empty(port, "targetPort", number);
        }
    }
    let kind = text(spec, "type").to_owned();
    let has_external_ips =
        spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    let external = match kind.as_str() {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => has_external_ips,
        _ => false,
    };
    if external {
        empty(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        unset(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        unset(spec, "allocateLoadBalancerNodePorts", true);
    }
    if let Some(balancer) = ensure(service, "status").and_then(|status| ensure(status, "loadBalancer")) {
        for ingress in objects(balancer, "ingress") {
            if kind == "LoadBalancer" && !text(ingress, "ip").is_empty() {
                unset(ingress, "ipMode", "VIP");
            }
        }
    }
}
