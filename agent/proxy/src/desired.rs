//! What the tables should hold for one service.
//!
//! In: a [`Service`], its slices, this node. Out: [`Desired`]: frontends grouped by the run of backends they share, and
//! the backends whose flows may go on. Pure; one service at a time, so that one change costs one service.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use xebec_datapath::lb::{Backend, Frontend, FrontendKind, Protocol, Scope};

use crate::endpoints::{Endpoint, Slice};
use crate::observe::{HealthCheck, NoLocalEndpoints};
use crate::service::{Port, PortName, Service};
use crate::topology::{self, Pools};
use crate::types::NodeView;

/// This node and what is allowed on it.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) node_name: &'a str,
    pub(crate) node: &'a NodeView,
    pub(crate) external_ips: bool,
}

/// Tables of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) created: i64,
    pub(crate) ports: Vec<DesiredPort>,
    /// Ports with endpoints elsewhere but none here, for IPv4 and IPv6.
    pub(crate) no_local_endpoints: [NoLocalEndpoints; 2],
    pub(crate) health_check: Option<HealthCheck>,
}

/// Tables of one service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DesiredPort {
    pub(crate) name: PortName,
    pub(crate) affinity: Option<Duration>,
    pub(crate) pools: Vec<Pool>,
    /// Endpoints whose established flows go on, whether or not new ones reach them. Sorted.
    pub(crate) alive: Vec<Backend>,
}

/// Frontends that share one run of slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    /// Sorted, without duplicates.
    pub(crate) backends: Vec<Backend>,
    pub(crate) frontends: Vec<DesiredFrontend>,
}

/// One frontend, but for where its run lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DesiredFrontend {
    pub(crate) frontend: Frontend,
    pub(crate) kind: FrontendKind,
    pub(crate) masquerade: bool,
    pub(crate) drop_when_empty: bool,
}

/// Which endpoints a frontend's traffic may reach.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Cluster,
    Local,
}

/// Computes the tables of a service.
pub(crate) fn desired(context: Context<'_>, service: &Service, slices: &[&Slice]) -> Desired {
    let mut result = Desired { created: service.created, ..Desired::default() };
    for port in &service.ports {
        let mut desired = DesiredPort {
            name: port.name.clone(),
            affinity: service.affinity,
            pools: Vec::new(),
            alive: Vec::new(),
        };
        for (ipv4, no_local) in [true, false].into_iter().zip(&mut result.no_local_endpoints) {
            let endpoints = endpoints_of(&port.name, ipv4, slices);
            family(context, service, port, ipv4, &endpoints, &mut desired, no_local);
        }
        desired.alive.sort_unstable();
        desired.alive.dedup();
        result.ports.push(desired);
    }
    result.health_check = health_check(service, slices);
    result
}

/// What load balancers are told: the addresses of this node's ready endpoints, whatever their ports.
fn health_check(service: &Service, slices: &[&Slice]) -> Option<HealthCheck> {
    let port = service.health_check_port?;
    let count = |ipv4: bool| {
        service.cluster_ips.iter().any(|ip| ip.is_ipv4() == ipv4).then(|| {
            let named =
                |slice: &&&Slice| service.ports.iter().any(|p| slice.ports.iter().any(|(n, _)| *n == p.name));
            let endpoints = slices.iter().filter(named).flat_map(|slice| &slice.endpoints);
            let here = endpoints.filter(|e| e.local && e.ready && e.address.is_ipv4() == ipv4);
            here.map(|e| e.address).collect::<BTreeSet<_>>().len()
        })
    };
    Some(HealthCheck { port, ready: [count(true), count(false)] })
}

/// Endpoints of one port and family over all slices, one per address and port.
fn endpoints_of(name: &PortName, ipv4: bool, slices: &[&Slice]) -> Vec<(u16, Endpoint)> {
    let mut found: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
    for slice in slices {
        let Some((_, number)) = slice.ports.iter().find(|(port, _)| port == name) else { continue };
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.address.is_ipv4() == ipv4) {
            // An endpoint that moves between slices is in both for a moment; an address used again belongs for a while
            // to the ending pod and to the new one, which wins even before it is ready.
            let rank = |e: &Endpoint| (!e.terminating, e.ready, e.serving, e.local);
            let better = |other: &Endpoint| rank(endpoint) > rank(other);
            let slot = found.entry((endpoint.address, *number));
            match slot {
                MapEntry::Vacant(vacant) => {
                    vacant.insert(endpoint.clone());
                }
                MapEntry::Occupied(mut held) if better(held.get()) => {
                    held.insert(endpoint.clone());
                }
                MapEntry::Occupied(_) => {}
            }
        }
    }
    found.into_iter().map(|((_, port), endpoint)| (port, endpoint)).collect()
}

fn family(
    context: Context<'_>,
    service: &Service,
    port: &Port,
    ipv4: bool,
    endpoints: &[(u16, Endpoint)],
    desired: &mut DesiredPort,
    no_local: &mut NoLocalEndpoints,
) {
    let frontends = frontends(context, service, port, ipv4);
    if frontends.is_empty() {
        return;
    }
    let protocol = port.name.protocol;
    let bare: Vec<Endpoint> = endpoints.iter().map(|(_, endpoint)| endpoint.clone()).collect();
    let pools = topology::choose(&bare, context.node_name, context.node.zone.as_deref());
    let backends = |chosen: &[usize]| -> Vec<Backend> {
        let mut chosen: Vec<_> =
            chosen.iter().map(|index| endpoints[*index].1.backend(endpoints[*index].0, protocol)).collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    };
    let alive = endpoints.iter().filter(|(_, endpoint)| flows_go_on(protocol, endpoint));
    desired.alive.extend(alive.map(|(number, endpoint)| endpoint.backend(*number, protocol)));
    count_no_local(service, &pools, &frontends, no_local);
    for (policy, chosen) in [(Policy::Cluster, &pools.cluster), (Policy::Local, &pools.local)] {
        let backends = backends(chosen);
        let drop_when_empty = policy == Policy::Local && backends.is_empty() && pools.any;
        let frontends: Vec<_> = frontends
            .iter()
            .filter(|(own, _)| *own == policy)
            .map(|(_, frontend)| DesiredFrontend { drop_when_empty, ..*frontend })
            .collect();
        if !frontends.is_empty() {
            desired.pools.push(Pool { backends, frontends });
        }
    }
}

/// Flows outlive readiness: a terminating endpoint finishes what it has. A datagram flow has no end of its own, so it
/// goes on only while the endpoint says that it serves.
fn flows_go_on(protocol: Protocol, endpoint: &Endpoint) -> bool {
    protocol != Protocol::Udp || endpoint.serving
}

fn count_no_local(
    service: &Service,
    pools: &Pools,
    frontends: &[(Policy, DesiredFrontend)],
    no_local: &mut NoLocalEndpoints,
) {
    if !pools.any || !pools.local.is_empty() {
        return;
    }
    no_local.internal += usize::from(service.internal_local);
    let external =
        frontends.iter().any(|(policy, f)| *policy == Policy::Local && f.frontend.scope == Scope::External);
    no_local.external += usize::from(external);
}

/// Every address and port that a service port answers at, in one family.
fn frontends(
    context: Context<'_>,
    service: &Service,
    port: &Port,
    ipv4: bool,
) -> Vec<(Policy, DesiredFrontend)> {
    let of_family =
        |ips: &[IpAddr]| -> Vec<IpAddr> { ips.iter().filter(|ip| ip.is_ipv4() == ipv4).copied().collect() };
    let cluster_ips = of_family(&service.cluster_ips);
    if cluster_ips.is_empty() {
        // The service is not of this family, whatever else it carries.
        return Vec::new();
    }
    let mut result = Vec::new();
    let internal = if service.internal_local { Policy::Local } else { Policy::Cluster };
    for address in cluster_ips {
        let entry = Entry { address, port: port.port, kind: FrontendKind::ClusterIp };
        result.push((internal, entry.frontend(port, Scope::Internal, false)));
    }
    let mut outside: Vec<Entry> = Vec::new();
    if let Some(node_port) = port.node_port {
        let node = of_family(&context.node.addresses).into_iter();
        outside.extend(node.map(|address| Entry { address, port: node_port, kind: FrontendKind::NodePort }));
    }
    if context.external_ips {
        let ips = of_family(&service.external_ips).into_iter();
        outside.extend(ips.map(|address| Entry { address, port: port.port, kind: FrontendKind::ExternalIp }));
    }
    let ips = of_family(&service.load_balancer_ips).into_iter();
    outside.extend(ips.map(|address| Entry { address, port: port.port, kind: FrontendKind::LoadBalancer }));
    for entry in outside {
        // From inside the cluster a Local policy does not bind: the source address is kept anyway.
        result.push((Policy::Cluster, entry.frontend(port, Scope::Internal, false)));
        let external = if service.external_local { Policy::Local } else { Policy::Cluster };
        result.push((external, entry.frontend(port, Scope::External, external == Policy::Cluster)));
    }
    result
}

/// An address and port of one kind.
struct Entry {
    address: IpAddr,
    port: u16,
    kind: FrontendKind,
}

impl Entry {
    fn frontend(&self, port: &Port, scope: Scope, masquerade: bool) -> DesiredFrontend {
        let frontend =
            Frontend { address: self.address, port: self.port, protocol: port.name.protocol, scope };
        DesiredFrontend { frontend, kind: self.kind, masquerade, drop_when_empty: false }
    }
}

#[cfg(test)]
mod tests;
