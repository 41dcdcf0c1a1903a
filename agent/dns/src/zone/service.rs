//! What the zone keeps of a Service and of an EndpointSlice.
//!
//! In: API objects. Out: addresses, named ports, hosts.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// How a Service's name resolves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServiceKind {
    ClusterIp,
    /// To its endpoints.
    Headless,
    /// To another name (`ExternalName`), without the final dot.
    Alias(String),
}

#[derive(Clone, Debug)]
pub(crate) struct ServiceEntry {
    pub(crate) kind: ServiceKind,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<Port>,
}

/// A port that has a name: unnamed ones have no SRV record.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    name: String,
    /// In lower case.
    protocol: String,
    pub(crate) number: u16,
}

#[derive(Clone, Debug)]
pub(crate) struct SliceEntry {
    pub(crate) service: String,
    /// Only the ready ones.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) ports: Vec<Port>,
}

#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) addresses: Vec<IpAddr>,
    hostname: Option<String>,
}

impl ServiceEntry {
    pub(crate) fn of(service: &Service) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let ips = spec
            .cluster_ips
            .filter(|ips| !ips.is_empty())
            .unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
        let addresses: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        let kind = match spec.external_name {
            Some(target) if spec.type_.as_deref() == Some("ExternalName") => {
                ServiceKind::Alias(target.trim_end_matches('.').to_ascii_lowercase())
            }
            _ if addresses.is_empty() => ServiceKind::Headless,
            _ => ServiceKind::ClusterIp,
        };
        let ports = spec.ports.unwrap_or_default().into_iter();
        let ports = ports.filter_map(|p| Port::of(p.name, p.protocol, Some(p.port))).collect();
        Self { kind, addresses, ports }
    }
}

impl SliceEntry {
    pub(crate) fn of(slice: &EndpointSlice, service: String) -> Self {
        let endpoints = slice.endpoints.iter().flatten();
        let ready = endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        let ports = slice.ports.iter().flatten();
        Self {
            service,
            endpoints: ready
                .map(|e| Endpoint {
                    addresses: e.addresses.iter().filter_map(|a| a.parse().ok()).collect(),
                    hostname: e.hostname.clone().filter(|h| !h.is_empty()),
                })
                .collect(),
            ports: ports.filter_map(|p| Port::of(p.name.clone(), p.protocol.clone(), p.port)).collect(),
        }
    }
}

impl Port {
    fn of(name: Option<String>, protocol: Option<String>, number: Option<i32>) -> Option<Self> {
        Some(Self {
            name: name.filter(|n| !n.is_empty())?,
            protocol: protocol.unwrap_or_else(|| "TCP".to_owned()).to_ascii_lowercase(),
            number: u16::try_from(number?).ok()?,
        })
    }

    pub(crate) fn is(&self, name: &str, protocol: &str) -> bool {
        self.name == name && self.protocol == protocol
    }
}

impl Endpoint {
    /// Its host name: the pod's, or the address with dashes.
    pub(crate) fn host(&self, address: IpAddr) -> String {
        self.hostname.clone().unwrap_or_else(|| address.to_string().replace(['.', ':'], "-"))
    }
}
