//! Services.
//!
//! In: a Service, and its former state. Out: what is wrong with it, in `Errors`. Absent: whether addresses and ports are
//! free, which only their allocators know.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::{Value, json};
use xebec_api::names;

use super::field::{Errors, Field};
use super::{addresses, meta, rules};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";
/// A day: the longest session affinity.
const MAX_AFFINITY_SECONDS: i64 = 86_400;

pub(super) fn service(object: &Field<'_>, errors: &mut Errors) {
    let spec = object.child("spec");
    let kind = spec.child("type");
    let ports = spec.child("ports");
    if ports.is_empty() && !addresses::is_headless(&spec) && kind.text() != "ExternalName" {
        errors.required(&ports, "");
    }
    by_type(&spec, errors);
    each_port(&spec, errors);
    meta::labels(&spec.child("selector"), errors);
    affinity(&spec, errors);
    addresses::cluster(&spec, errors);
    let external = spec.child("externalIPs");
    for address in external.items() {
        if rules::ip(&address, errors).is_some() {
            not_special(&address, errors);
        }
    }
    rules::one_of(&kind, TYPES, errors);
    if kind.text() == "ClusterIP" {
        for port in ports.items() {
            let node_port = port.child("nodePort");
            if node_port.int().unwrap_or_default() != 0 {
                errors.forbidden(&node_port, "may not be used when `type` is 'ClusterIP'");
            }
        }
    }
    ports_are_new(&ports, errors);
    load_balancer(object, &spec, errors);
    traffic(&spec, errors);
}

pub(super) fn update(object: &Field<'_>, old: &Value, errors: &mut Errors) {
    let spec = object.child("spec");
    let none = json!({});
    let former = old.get("spec").unwrap_or(&none);
    let before = Field::root(former);
    addresses::update(&spec, &before, errors);
    let balanced = |spec: &Field<'_>| spec.child("type").text() == "LoadBalancer";
    let class = spec.child("loadBalancerClass");
    if balanced(&spec) && balanced(&before) && class.value() != before.child("loadBalancerClass").value() {
        errors.invalid(&class, "may not change once set");
    }
    let health = spec.child("healthCheckNodePort");
    if needs_health_check(&spec)
        && needs_health_check(&before)
        && health.int().unwrap_or_default() != before.child("healthCheckNodePort").int().unwrap_or_default()
    {
        errors.forbidden(&health, rules::IMMUTABLE);
    }
}

/// What a type demands and what it excludes.
fn by_type(spec: &Field<'_>, errors: &mut Errors) {
    let kind = spec.child("type");
    match kind.text() {
        kind @ ("LoadBalancer" | "NodePort") if addresses::is_headless(spec) => {
            let addresses = spec.child("clusterIPs");
            let first = addresses.index(0);
            errors.invalid(&first, format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => {
            for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                let field = spec.child(name);
                if field.is_set() {
                    errors.forbidden(&field, "may not be set for ExternalName services");
                }
            }
            let name = spec.child("externalName");
            let plain = name.text().strip_suffix('.').unwrap_or(name.text());
            if plain.is_empty() {
                errors.required(&name, "");
            } else {
                let value = Value::from(plain);
                errors.invalid_all(&name.with(&value), names::dns1123_subdomain(plain));
            }
        }
        _ => {}
    }
}

fn each_port(spec: &Field<'_>, errors: &mut Errors) {
    let ports = spec.child("ports");
    let mut seen: HashSet<String> = HashSet::new();
    for port in ports.items() {
        let name = port.child("name");
        if name.text().is_empty() {
            if ports.len() > 1 {
                errors.required(&name, "");
            }
        } else {
            errors.invalid_all(&name, names::dns1123_label(name.text()));
            if !seen.insert(name.text().to_owned()) {
                errors.duplicate(&name);
            }
        }
        let number = port.child("port");
        errors.invalid_all(&number, names::port_number(number.int().unwrap_or_default()));
        rules::one_of(&port.child("protocol"), PROTOCOLS, errors);
        rules::port_or_name(&port.child("targetPort"), errors);
        let protocol = port.child("appProtocol");
        if protocol.is_set() {
            errors.invalid_all(&protocol, names::qualified_name(protocol.text()));
        }
    }
}

/// A pair of protocol and number stands for one thing only.
fn ports_are_new(ports: &Field<'_>, errors: &mut Errors) {
    let (mut outside, mut inside) = (HashSet::new(), HashSet::new());
    for port in ports.items() {
        let protocol = port.child("protocol").text().to_owned();
        let node_port = port.child("nodePort");
        if let Some(number) = node_port.int().filter(|&number| number != 0) {
            let pair = (protocol, number);
            if !outside.insert(pair) {
                errors.duplicate(&node_port);
            }
        }
    }
    for port in ports.items() {
        let pair = (port.child("protocol").text().to_owned(), port.child("port").int().unwrap_or_default());
        if inside.contains(&pair) {
            let shown = json!({ "protocol": pair.0, "port": pair.1 });
            errors.duplicate(&port.with(&shown));
        }
        inside.insert(pair);
    }
}

fn affinity(spec: &Field<'_>, errors: &mut Errors) {
    let (kind, config) = (spec.child("sessionAffinity"), spec.child("sessionAffinityConfig"));
    rules::one_of(&kind, &["ClientIP", "None"], errors);
    match kind.text() {
        "ClientIP" => {
            const WHEN: &str = "when session affinity type is ClientIP";
            let client = config.child("clientIP");
            let seconds = client.child("timeoutSeconds");
            if !config.is_set() {
                errors.required(&config, WHEN);
            } else if !client.is_set() {
                errors.required(&client, WHEN);
            } else if !seconds.is_set() {
                errors.required(&seconds, WHEN);
            } else if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds.int().unwrap_or_default()) {
                let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                errors.invalid(&seconds, detail);
            }
        }
        "None" if config.is_set() => {
            errors.forbidden(&config, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn load_balancer(object: &Field<'_>, spec: &Field<'_>, errors: &mut Errors) {
    let balanced = spec.child("type").text() == "LoadBalancer";
    let ranges = spec.child("loadBalancerSourceRanges");
    if ranges.is_empty() {
        let metadata = object.child("metadata");
        let annotations = metadata.child("annotations");
        let annotation = annotations.key(SOURCE_RANGES);
        if annotation.is_set() && !balanced {
            errors.forbidden(&annotation, ONLY_LOAD_BALANCER);
        }
        for range in annotation.text().split(',').map(str::trim).filter(|range| !range.is_empty()) {
            let value = Value::from(range);
            rules::cidr(&annotation.with(&value), errors);
        }
    } else {
        // The spelling of the field in the path is upstream's.
        let shown = spec.child("LoadBalancerSourceRanges");
        if !balanced {
            errors.forbidden(&shown, ONLY_LOAD_BALANCER);
        }
        let shown = shown.with(ranges.value());
        for range in shown.items() {
            let value = Value::from(range.text().trim());
            rules::cidr(&range.with(&value), errors);
        }
    }
    let allocates = spec.child("allocateLoadBalancerNodePorts");
    if allocates.is_set() && !balanced {
        errors.forbidden(&allocates, ONLY_LOAD_BALANCER);
    }
    let class = spec.child("loadBalancerClass");
    if class.is_set() {
        if balanced {
            errors.invalid_all(&class, names::qualified_name(class.text()));
        } else {
            errors.forbidden(&class, ONLY_LOAD_BALANCER);
        }
    }
}

fn traffic(spec: &Field<'_>, errors: &mut Errors) {
    const POLICIES: &[&str] = &["Cluster", "Local"];
    let external = spec.child("externalTrafficPolicy");
    if is_reachable_from_outside(spec) {
        rules::one_of(&external, POLICIES, errors);
    } else if !external.text().is_empty() {
        errors.invalid(&external, "may only be set for externally-accessible services");
    }
    let health = spec.child("healthCheckNodePort");
    let number = health.int().unwrap_or_default();
    if needs_health_check(spec) {
        // Zero is filled in by the allocator.
        if number != 0 {
            errors.invalid_all(&health, names::port_number(number));
        }
    } else if number != 0 {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&health, detail);
    }
    let internal = spec.child("internalTrafficPolicy");
    if !internal.is_set() && matches!(spec.child("type").text(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        errors.required(&internal, "");
    }
    rules::optional_one_of(&internal, POLICIES, errors);
    let spread = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    rules::optional_one_of(&spec.child("trafficDistribution"), &spread, errors);
}

fn is_reachable_from_outside(spec: &Field<'_>) -> bool {
    match spec.child("type").text() {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !spec.child("externalIPs").is_empty(),
        _ => false,
    }
}

fn needs_health_check(spec: &Field<'_>) -> bool {
    spec.child("type").text() == "LoadBalancer" && spec.child("externalTrafficPolicy").text() == "Local"
}

/// An address that means one machine, or none, to everybody cannot be an endpoint.
pub(super) fn not_special(field: &Field<'_>, errors: &mut Errors) {
    let Ok(address) = field.text().parse::<IpAddr>() else {
        errors.invalid(field, "must be a valid IP address");
        return;
    };
    let address = address.to_canonical();
    let (link_local, local_multicast) = match address {
        IpAddr::V4(address) => (address.is_link_local(), address.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(address) => (address.is_unicast_link_local(), address.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        errors.invalid(field, format!("may not be unspecified ({})", field.text()));
    }
    if address.is_loopback() {
        errors.invalid(field, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(field, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if local_multicast {
        errors.invalid(field, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}
