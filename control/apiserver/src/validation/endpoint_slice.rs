//! EndpointSlices.
//!
//! In: an EndpointSlice, and its former state. Out: what is wrong with it, in `Errors`. Addresses that mean the node
//! itself are refused: whoever may write slices could otherwise reach what listens on loopback.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;
use xebec_api::names;

use super::field::{Errors, Field};
use super::{meta, rules, service};

const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_HINTS: usize = 8;

pub(super) fn endpoint_slice(object: &Field<'_>, errors: &mut Errors) {
    let kind = object.child("addressType");
    rules::one_of(&kind, ADDRESS_TYPES, errors);
    endpoints(&object.child("endpoints"), kind.text(), errors);
    ports(&object.child("ports"), errors);
}

pub(super) fn update(object: &Field<'_>, old: &Value, errors: &mut Errors) {
    let former = old.get("addressType").unwrap_or(&Value::Null);
    rules::immutable(&object.child("addressType"), former, errors);
}

fn endpoints(endpoints: &Field<'_>, kind: &str, errors: &mut Errors) {
    if endpoints.len() > MAX_ENDPOINTS {
        errors.too_many(endpoints, MAX_ENDPOINTS);
        return;
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.child("addresses");
        if addresses.is_empty() {
            errors.required(&addresses, "must contain at least 1 address");
        } else if addresses.len() > MAX_ADDRESSES {
            errors.too_many(&addresses, MAX_ADDRESSES);
        }
        for item in addresses.items() {
            address(&item, kind, errors);
        }
        meta::labels(&endpoint.child("deprecatedTopology"), errors);
        rules::optional_name(&endpoint.child("hostname"), names::dns1123_label, errors);
        rules::optional_name(&endpoint.child("nodeName"), names::dns1123_subdomain, errors);
        let hints = endpoint.child("hints");
        targets(&hints.child("forZones"), names::label_value, errors);
        targets(&hints.child("forNodes"), names::dns1123_subdomain, errors);
    }
}

fn address(address: &Field<'_>, kind: &str, errors: &mut Errors) {
    match kind {
        "IPv4" => {
            if address.text().parse::<Ipv4Addr>().is_err() {
                errors.invalid(address, "must be a valid IPv4 address");
            }
            service::not_special(address, errors);
        }
        "IPv6" => {
            let parsed = address.text().parse::<Ipv6Addr>();
            // A mapped address is one of the other family in disguise.
            if parsed.is_err() || parsed.is_ok_and(|address| address.to_ipv4_mapped().is_some()) {
                errors.invalid(address, "must be a valid IPv6 address");
            }
            service::not_special(address, errors);
        }
        "FQDN" => errors.invalid_all(address, names::fully_qualified_name(address.text())),
        _ => {}
    }
}

/// Where the consumers of an endpoint should be.
fn targets(targets: &Field<'_>, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    if targets.len() > MAX_HINTS {
        errors.too_many(targets, MAX_HINTS);
        return;
    }
    let mut seen: Vec<String> = Vec::new();
    for target in targets.items() {
        let name = target.child("name");
        if seen.iter().any(|known| known == name.text()) {
            errors.duplicate(&name);
        } else {
            seen.push(name.text().to_owned());
        }
        errors.invalid_all(&name, rule(name.text()));
    }
}

fn ports(ports: &Field<'_>, errors: &mut Errors) {
    if ports.len() > MAX_PORTS {
        errors.too_many(ports, MAX_PORTS);
        return;
    }
    let mut seen: Vec<String> = Vec::new();
    for port in ports.items() {
        let name = port.child("name");
        rules::optional_name(&name, names::dns1123_label, errors);
        if seen.iter().any(|known| known == name.text()) {
            let value = Value::from(name.text());
            errors.duplicate(&name.with(&value));
        } else {
            seen.push(name.text().to_owned());
        }
        rules::one_of(&port.child("protocol"), PROTOCOLS, errors);
        let protocol = port.child("appProtocol");
        if protocol.is_set() {
            errors.invalid_all(&protocol, names::qualified_name(protocol.text()));
        }
    }
}
