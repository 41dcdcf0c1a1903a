//! A Service as the proxy sees it.
//!
//! In: `v1.Service`. Out: [`Service`], or nothing where the object is not for this proxy: headless, ExternalName, or
//! labelled for another one. Pure.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use tracing::warn;
use xebec_api::wellknown::labels::{HEADLESS, SERVICE_PROXY_NAME};
use xebec_datapath::lb::Protocol;

use crate::types::ServiceKey;

/// The older form of `loadBalancerSourceRanges`; the field goes first.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// `sessionAffinityConfig.clientIP.timeoutSeconds` where it is not given.
const DEFAULT_AFFINITY: Duration = Duration::from_secs(10_800);

/// What of a Service decides about its tables. Two equal ones have equal tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// Seconds since 1970: of two services that claim one frontend the older one has it.
    pub(crate) created: i64,
    pub(crate) cluster_ips: Vec<IpAddr>,
    pub(crate) ports: Vec<Port>,
    pub(crate) external_ips: Vec<IpAddr>,
    pub(crate) load_balancer_ips: Vec<IpAddr>,
    pub(crate) affinity: Option<Duration>,
    /// `internalTrafficPolicy: Local`.
    pub(crate) internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub(crate) external_local: bool,
    /// Where load balancers ask for endpoints on this node.
    pub(crate) health_check_port: Option<u16>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: PortName,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
}

/// What joins a Service's port to the ports of its slices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PortName {
    /// Empty for the only port of a Service that does not name it.
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
}

/// Reads a Service; `None` where it has no tables here.
pub(crate) fn parse(key: &ServiceKey, object: &core::Service) -> Option<Service> {
    let labels = object.metadata.labels.as_ref();
    if labels.is_some_and(|l| l.contains_key(SERVICE_PROXY_NAME) || l.contains_key(HEADLESS)) {
        return None;
    }
    let spec = object.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let cluster_ips = cluster_ips(key, spec);
    if cluster_ips.is_empty() {
        return None;
    }
    Some(Service {
        created: object.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
        cluster_ips,
        ports: spec.ports.iter().flatten().filter_map(|port| parse_port(key, port)).collect(),
        external_ips: addresses(key, "external IP", spec.external_ips.iter().flatten()),
        load_balancer_ips: load_balancer_ips(key, object, spec),
        affinity: affinity(spec),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        health_check_port: health_check_port(spec),
    })
}

/// Reads a protocol; nothing means TCP.
pub(crate) fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("TCP" | "") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn cluster_ips(key: &ServiceKey, spec: &core::ServiceSpec) -> Vec<IpAddr> {
    let single = || spec.cluster_ip.iter().collect::<Vec<_>>();
    let given = match &spec.cluster_ips {
        Some(many) if !many.is_empty() => many.iter().collect(),
        _ => single(),
    };
    given
        .into_iter()
        .filter(|text| !text.is_empty() && text.as_str() != "None")
        .filter_map(|text| address(key, "cluster IP", text))
        .collect()
}

fn parse_port(key: &ServiceKey, port: &core::ServicePort) -> Option<Port> {
    let Some(protocol) = protocol(port.protocol.as_deref()) else {
        warn!(service = %key, protocol = port.protocol, "service port with an unknown protocol is skipped");
        return None;
    };
    let number = u16::try_from(port.port).ok().filter(|number| *number != 0)?;
    let node_port =
        port.node_port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0);
    let name = PortName { name: port.name.clone().unwrap_or_default(), protocol };
    Some(Port { name, port: number, node_port })
}

/// Addresses of the load balancer that are to be served here: those whose packets arrive with the address still in
/// them, unless source ranges bind their family. Ranges are not enforced yet, and an open door is worse than a closed one.
fn load_balancer_ips(key: &ServiceKey, object: &core::Service, spec: &core::ServiceSpec) -> Vec<IpAddr> {
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref());
    let texts = ingress
        .into_iter()
        .flatten()
        .filter(|ingress| ingress.ip_mode.as_deref().unwrap_or("VIP") == "VIP")
        .filter_map(|ingress| ingress.ip.as_ref());
    let mut ips = addresses(key, "load balancer IP", texts);
    let bound = bound_families(key, object, spec);
    let all = ips.len();
    ips.retain(|ip| !bound.contains(&ip.is_ipv4()));
    if ips.len() < all {
        warn!(service = %key, "load balancer IPs with source ranges are not served");
    }
    ips
}

/// Families (is it IPv4?) of which only some sources may reach the load balancer. A range that cannot be read binds both.
fn bound_families(key: &ServiceKey, object: &core::Service, spec: &core::ServiceSpec) -> Vec<bool> {
    let field = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let annotation = object.metadata.annotations.as_ref().and_then(|all| all.get(SOURCE_RANGES));
    let texts: Vec<&str> = match annotation {
        Some(list) if field.is_empty() => list.split(',').collect(),
        _ => field.iter().map(String::as_str).collect(),
    };
    let texts: Vec<_> = texts.into_iter().map(str::trim).filter(|text| !text.is_empty()).collect();
    let ranges: Result<Vec<IpNet>, _> = texts.iter().map(|text| text.parse()).collect();
    let Ok(ranges) = ranges else {
        warn!(service = %key, ranges = texts.join(","), "source ranges cannot be read: the load balancer IPs are not served");
        return vec![true, false];
    };
    let of_family = |v4: bool| ranges.iter().filter(move |range| range.addr().is_ipv4() == v4);
    let open = |v4: bool| of_family(v4).any(|range| range.prefix_len() == 0);
    [true, false].into_iter().filter(|v4| of_family(*v4).next().is_some() && !open(*v4)).collect()
}

/// Only a load balancer that must find nodes with endpoints asks.
fn health_check_port(spec: &core::ServiceSpec) -> Option<u16> {
    let asked = spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local");
    spec.health_check_node_port
        .filter(|_| asked)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
}

fn affinity(spec: &core::ServiceSpec) -> Option<Duration> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).and_then(|s| u64::try_from(s).ok());
    Some(seconds.filter(|s| *s > 0).map_or(DEFAULT_AFFINITY, Duration::from_secs))
}

/// Addresses that come from outside of the cluster; those that would reach into a host are refused.
fn addresses<'a>(key: &ServiceKey, what: &str, texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    let parsed = texts.filter_map(|text| address(key, what, text));
    parsed
        .filter(|ip| {
            let usable = !is_reserved(*ip);
            if !usable {
                warn!(service = %key, address = %ip, "{what} of a reserved range is not served");
            }
            usable
        })
        .collect()
}

fn address(key: &ServiceKey, what: &str, text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        warn!(service = %key, address = text, "{what} cannot be read");
    }
    parsed
}

fn is_reserved(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    link_local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: serde_json::Value) -> Option<Service> {
        let object: core::Service = serde_json::from_value(json).unwrap();
        parse(&ServiceKey::new("default", "web"), &object)
    }

    #[test]
    fn dual_stack_service_with_every_field_is_read() {
        let service = parsed(serde_json::json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"],
                "ports": [
                    {"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"},
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                ],
                "externalIPs": ["192.0.2.1", "127.0.0.1", "169.254.169.254", "::ffff:1.2.3.4", "junk"],
                "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster",
            },
            "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.7"}, {"ip": "192.0.2.8", "ipMode": "Proxy"}, {"hostname": "x"},
            ]}},
        }))
        .unwrap();
        assert_eq!(service.cluster_ips, ["10.96.0.9", "fd00::9"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        let tcp = PortName { name: "http".into(), protocol: Protocol::Tcp };
        let udp = PortName { name: "dns".into(), protocol: Protocol::Udp };
        let ports = [
            Port { name: tcp, port: 80, node_port: Some(30_080) },
            Port { name: udp, port: 53, node_port: None },
        ];
        assert_eq!(service.ports, ports);
        assert_eq!(service.external_ips, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(service.load_balancer_ips, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(service.affinity, Some(DEFAULT_AFFINITY));
        assert!(service.external_local && !service.internal_local);
    }

    #[test]
    fn services_that_are_not_ours_have_no_tables() {
        let spec = serde_json::json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]});
        assert!(parsed(serde_json::json!({"spec": spec})).is_some());
        for label in [SERVICE_PROXY_NAME, HEADLESS] {
            assert!(parsed(serde_json::json!({"metadata": {"labels": {label: ""}}, "spec": spec})).is_none());
        }
        for spec in [
            serde_json::json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}),
            serde_json::json!({"clusterIP": "", "ports": [{"port": 80}]}),
            serde_json::json!({"type": "ExternalName", "externalName": "x.y", "clusterIP": "10.0.0.1"}),
        ] {
            assert!(parsed(serde_json::json!({"spec": spec})).is_none(), "{spec}");
        }
    }

    #[test]
    fn load_balancer_with_source_ranges_is_not_left_open() {
        let served = |ranges: &[&str], annotation: &str| {
            let service = parsed(serde_json::json!({
                "metadata": {"annotations": {SOURCE_RANGES: annotation}},
                "spec": {
                    "type": "LoadBalancer", "clusterIP": "10.96.0.9", "ports": [{"port": 80}],
                    "loadBalancerSourceRanges": ranges,
                },
                "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}, {"ip": "2001:db8::1"}]}},
            }));
            service.unwrap().load_balancer_ips.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let both = ["203.0.113.1", "2001:db8::1"];
        assert_eq!(served(&[], ""), both);
        assert_eq!(served(&["192.0.2.0/24"], ""), ["2001:db8::1"], "ranges bind their own family");
        assert_eq!(served(&[" 192.0.2.0/24", "0.0.0.0/0"], ""), both, "everybody is in a range");
        assert_eq!(served(&["2001:db8::/32", "192.0.2.0/24"], ""), [""; 0]);
        assert_eq!(served(&[], "192.0.2.0/24, 2001:db8::/32"), [""; 0], "the annotation counts");
        assert_eq!(served(&["0.0.0.0/0"], "192.0.2.0/24"), both, "the field goes first");
        assert_eq!(served(&["junk"], ""), [""; 0]);
    }

    #[test]
    fn health_check_port_is_for_load_balancers_with_a_local_policy() {
        let port = |kind: &str, policy: &str| {
            let service = parsed(serde_json::json!({"spec": {
                "type": kind, "clusterIP": "10.96.0.9", "ports": [{"port": 80}],
                "externalTrafficPolicy": policy, "healthCheckNodePort": 31000,
            }}));
            service.unwrap().health_check_port
        };
        assert_eq!(port("LoadBalancer", "Local"), Some(31_000));
        assert_eq!((port("LoadBalancer", "Cluster"), port("NodePort", "Local")), (None, None));
    }

    #[test]
    fn affinity_timeout_is_taken_as_given() {
        let service = parsed(serde_json::json!({"spec": {
            "clusterIP": "10.96.0.9", "ports": [{"port": 80, "protocol": "QUIC"}], "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}},
        }}))
        .unwrap();
        assert_eq!(service.affinity, Some(Duration::from_secs(7)));
        assert!(service.ports.is_empty(), "an unknown protocol is skipped");
    }
}
