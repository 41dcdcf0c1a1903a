//! Direct routes to the pods of other nodes.
//!
//! In: [`Peer`]s, the routes that are set. Out: a plan of route changes, and its application. A peer must be a
//! neighbour on the uplink's network; the kernel refuses a gateway that is not, and the error says so.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tracing::warn;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::netlink::{Hop, Route};
use crate::types::Peer;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteOp {
    Set(Route),
    Delete(Route),
}

/// Routes that lead to every peer's pods, keyed by destination.
pub(crate) fn desired(uplink: u32, own: &[IpNet], peers: &[Peer]) -> BTreeMap<IpNet, Route> {
    let mut routes = BTreeMap::new();
    for peer in peers {
        for net in &peer.pod_cidrs {
            let destination = net.trunc();
            if own.iter().any(|own| own.contains(&destination) || destination.contains(own)) {
                warn!(node = peer.node, range = %destination, "peer's pod range overlaps ours: no route");
                continue;
            }
            let Some(gateway) = gateway_of(peer, &destination) else {
                warn!(node = peer.node, range = %destination, "peer has no address of this family: no route");
                continue;
            };
            let route = Route { destination, hop: Hop::Gateway { index: uplink, gateway, onlink: false } };
            if routes.insert(destination, route).is_some() {
                warn!(node = peer.node, range = %destination, "two peers claim one pod range: last one wins");
            }
        }
    }
    routes
}

/// New and changed routes first, then those nobody wants any more. Routes that are not to peers are left alone.
pub(crate) fn plan_routes(current: &[Route], desired: &BTreeMap<IpNet, Route>) -> Vec<RouteOp> {
    let to_peers: Vec<_> =
        current.iter().filter(|route| matches!(route.hop, Hop::Gateway { .. })).copied().collect();
    let mut ops: Vec<_> =
        desired.values().filter(|route| !to_peers.contains(route)).copied().map(RouteOp::Set).collect();
    // Setting replaces, so a route is deleted only where its destination is not wanted at all.
    let gone = to_peers.into_iter().filter(|route| !desired.contains_key(&route.destination));
    ops.extend(gone.map(RouteOp::Delete));
    ops
}

/// Applies the difference; goes on past routes that the kernel refuses and tells them all.
pub(crate) async fn apply(host: &Host, peers: &[Peer]) -> Result<()> {
    host.find_uplink().await?;
    let desired = desired(host.uplink(), &host.pod_cidrs, peers);
    let mut errors = Vec::new();
    for op in plan_routes(&host.netlink.routes().await?, &desired) {
        let result = match &op {
            RouteOp::Set(route) => host.netlink.set_route(route).await,
            RouteOp::Delete(route) => host.netlink.delete_route(route).await,
        };
        errors.extend(result.err());
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Peers { errors }) }
}

fn gateway_of(peer: &Peer, destination: &IpNet) -> Option<IpAddr> {
    peer.addresses.iter().find(|address| address.is_ipv4() == destination.addr().is_ipv4()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(node: &str, addresses: &[&str], pod_cidrs: &[&str]) -> Peer {
        Peer {
            node: node.into(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            pod_cidrs: pod_cidrs.iter().map(|n| n.parse().unwrap()).collect(),
        }
    }

    fn route(destination: &str, gateway: &str) -> Route {
        let hop = Hop::Gateway { index: 2, gateway: gateway.parse().unwrap(), onlink: false };
        Route { destination: destination.parse().unwrap(), hop }
    }

    #[test]
    fn peer_gets_a_route_per_family_and_nothing_the_second_time() {
        let peers = [peer("b", &["172.30.0.2", "fd01::2"], &["10.244.2.0/24", "fd00:2::/64"])];
        let desired = desired(2, &["10.244.1.0/24".parse().unwrap()], &peers);
        let ops = plan_routes(&[], &desired);
        let expected = [route("10.244.2.0/24", "172.30.0.2"), route("fd00:2::/64", "fd01::2")];
        assert_eq!(ops, expected.map(RouteOp::Set));
        assert_eq!(plan_routes(&expected, &desired), []);
    }

    #[test]
    fn moved_range_is_replaced_and_a_lost_one_deleted() {
        let current = [route("10.244.2.0/24", "172.30.0.2"), route("10.244.3.0/24", "172.30.0.3")];
        let peers = [peer("b", &["172.30.0.9"], &["10.244.2.0/24"])];
        let ops = plan_routes(&current, &desired(2, &[], &peers));
        let expected = [RouteOp::Set(route("10.244.2.0/24", "172.30.0.9")), RouteOp::Delete(current[1])];
        assert_eq!(ops, expected);
    }

    #[test]
    fn routes_to_local_pods_are_not_touched() {
        let local = Route {
            destination: "10.244.1.5/32".parse().unwrap(),
            hop: Hop::Link { index: 9, source: None },
        };
        let last = Route { destination: "10.244.1.0/24".parse().unwrap(), hop: Hop::Unreachable };
        assert_eq!(plan_routes(&[local, last], &BTreeMap::new()), []);
    }

    #[test]
    fn overlapping_or_unreachable_ranges_get_no_route() {
        let own = ["10.244.1.0/24".parse().unwrap()];
        let peers = [
            peer("b", &["172.30.0.2"], &["10.244.1.0/25"]),
            peer("c", &["172.30.0.3"], &["10.244.0.0/16", "fd00:3::/64"]),
        ];
        assert!(desired(2, &own, &peers).is_empty());
    }
}
