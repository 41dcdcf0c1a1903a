//! An EndpointSlice as the proxy sees it.
//!
//! In: `discovery.v1.EndpointSlice`. Out: [`Slice`], or nothing where it has no owner service or no IP addresses. Pure.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1 as discovery;
use tracing::warn;
use xebec_api::wellknown::annotations::ENDPOINTS_LAST_CHANGE;
use xebec_api::wellknown::labels::{HEADLESS, SERVICE_NAME, SERVICE_PROXY_NAME};
use xebec_datapath::lb::{Backend, Protocol};

use crate::service::{self, PortName};
use crate::types::ServiceKey;

/// What of a slice decides about tables. Two equal ones have equal tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) ports: Vec<(PortName, u16)>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// One endpoint's address and condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    /// Runs on this node.
    pub(crate) local: bool,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    /// Nodes and zones whose clients should use it.
    pub(crate) hints: Hints,
}

/// `endpoints[].hints`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hints {
    pub(crate) nodes: Box<[Box<str>]>,
    pub(crate) zones: Box<[Box<str>]>,
}

/// The service of a slice.
pub(crate) fn owner(object: &discovery::EndpointSlice) -> Option<ServiceKey> {
    let labels = object.metadata.labels.as_ref()?;
    if labels.contains_key(SERVICE_PROXY_NAME) || labels.contains_key(HEADLESS) {
        return None;
    }
    let name = labels.get(SERVICE_NAME).filter(|name| !name.is_empty())?;
    Some(ServiceKey::new(object.metadata.namespace.as_deref()?, name))
}

/// When the slice's change was triggered, as its annotation says.
pub(crate) fn trigger_time(object: &discovery::EndpointSlice) -> Option<jiff::Timestamp> {
    object.metadata.annotations.as_ref()?.get(ENDPOINTS_LAST_CHANGE)?.parse().ok()
}

/// Reads a slice; `None` where it holds no IP addresses.
pub(crate) fn parse(owner: &ServiceKey, object: &discovery::EndpointSlice, node: &str) -> Option<Slice> {
    let ipv4 = match object.address_type.as_str() {
        "IPv4" => true,
        "IPv6" => false,
        _ => return None,
    };
    let ports = object.ports.iter().flatten().filter_map(|port| {
        // Neither a missing number ("all ports") nor a foreign protocol can be load balanced.
        let number = u16::try_from(port.port?).ok().filter(|number| *number != 0)?;
        let protocol = service::protocol(port.protocol.as_deref())?;
        Some((PortName { name: port.name.clone().unwrap_or_default(), protocol }, number))
    });
    let endpoints = object.endpoints.iter().flatten().filter_map(|endpoint| {
        // The addresses of one endpoint are interchangeable; proxies use the first.
        let text = endpoint.addresses.first()?;
        match text.parse::<IpAddr>() {
            Ok(address) if address.is_ipv4() == ipv4 => Some(parse_endpoint(address, endpoint, node)),
            _ => {
                warn!(service = %owner, address = text, "endpoint address does not fit its slice");
                None
            }
        }
    });
    Some(Slice { ports: ports.collect(), endpoints: endpoints.collect() })
}

fn parse_endpoint(address: IpAddr, endpoint: &discovery::Endpoint, node: &str) -> Endpoint {
    let conditions = endpoint.conditions.as_ref();
    let hints = endpoint.hints.as_ref();
    let nodes = hints.and_then(|hints| hints.for_nodes.as_ref());
    let zones = hints.and_then(|hints| hints.for_zones.as_ref());
    Endpoint {
        address,
        local: endpoint.node_name.as_deref() == Some(node),
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        serving: conditions.and_then(|c| c.serving).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        hints: Hints {
            nodes: nodes.into_iter().flatten().map(|hint| hint.name.as_str().into()).collect(),
            zones: zones.into_iter().flatten().map(|hint| hint.name.as_str().into()).collect(),
        },
    }
}

impl Endpoint {
    /// This endpoint at a port.
    pub(crate) fn backend(&self, port: u16, protocol: Protocol) -> Backend {
        Backend { address: self.address, port, protocol, local: self.local }
    }

    /// It ends but still answers: used where nothing better is left.
    pub(crate) fn drains(&self) -> bool {
        self.serving && self.terminating
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(json: serde_json::Value) -> discovery::EndpointSlice {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn conditions_default_as_upstream_has_it() {
        let object = slice(serde_json::json!({
            "metadata": {"namespace": "a", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"name": "none"}, {"name": "odd", "port": 1, "protocol": "X"}],
            "endpoints": [
                {"addresses": ["10.0.0.1", "10.0.0.9"], "nodeName": "here"},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": []},
                {"addresses": ["fd00::1"]},
            ],
        }));
        let key = owner(&object).unwrap();
        assert_eq!(key, ServiceKey::new("a", "web"));
        let slice = parse(&key, &object, "here").unwrap();
        assert_eq!(slice.ports.len(), 1);
        let seen: Vec<_> =
            slice.endpoints.iter().map(|e| (e.local, e.ready, e.serving, e.terminating)).collect();
        let expected = [(true, true, true, false), (false, false, true, false), (false, false, true, true)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn slices_of_other_proxies_or_without_ip_addresses_are_skipped() {
        let object = slice(serde_json::json!({"addressType": "FQDN", "endpoints": []}));
        assert!(parse(&ServiceKey::new("a", "b"), &object, "n").is_none());
        assert!(owner(&object).is_none());
        let object = slice(serde_json::json!({
            "metadata": {"namespace": "a", "labels": {
                "kubernetes.io/service-name": "web", "service.kubernetes.io/service-proxy-name": "other"}},
            "addressType": "IPv4", "endpoints": [],
        }));
        assert!(owner(&object).is_none());
    }
}
