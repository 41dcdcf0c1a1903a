//! Route netlink requests in this crate's own terms.
//!
//! In: interface indexes, addresses, routes. Out: kernel state of the namespace the connection was opened in. Every
//! request has a timeout, and its error tells what was asked.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressScope};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage, State};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::proto::Connection;
use rtnetlink::sys::TokioSocket;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use tokio::runtime;
use tokio::time::Instant;

use crate::error::{Error, Result};

/// The kernel answers at once unless its routing lock is held by a mass teardown.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the kernel usually takes over work that it deferred; nothing tells of its end.
const DEFERRED_WORK: Duration = Duration::from_millis(1);

/// Marks our routes among everyone else's (`proto 120` in `ip route`).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(120);

/// Metric of the entries that answer for unused pod addresses: any other route wins.
const LAST_RESORT: u32 = u32::MAX - 1;

/// A connection to the kernel that has not been handed to the runtime.
pub(crate) struct Unstarted {
    connection: Connection<netlink_packet_route::RouteNetlinkMessage, TokioSocket>,
    handle: Handle,
}

/// A netlink connection, bound for good to one network namespace.
#[derive(Clone)]
pub(crate) struct Netlink {
    handle: Handle,
}

/// An interface.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    /// It has a carrier and sends: a link that was given its carrier a moment ago still drops.
    pub(crate) operational: bool,
}

/// Both ends of a new veth pair.
pub(crate) struct Veth<'a> {
    pub(crate) host: &'a str,
    pub(crate) host_mac: [u8; 6],
    pub(crate) pod: &'a str,
    pub(crate) pod_mac: [u8; 6],
    pub(crate) mtu: u32,
}

/// A route of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) destination: IpNet,
    pub(crate) hop: Hop,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hop {
    /// Straight to the neighbours on a link; `source` is what the node itself uses towards them.
    Link { index: u32, source: Option<IpAddr> },
    /// Through a neighbour on a link.
    Gateway { index: u32, gateway: IpAddr, onlink: bool },
    /// Nowhere: the sender is told at once.
    Unreachable,
}

impl Unstarted {
    pub(crate) fn start(self) -> Netlink {
        // Ends by itself with the last handle.
        tokio::spawn(self.connection);
        Netlink { handle: self.handle }
    }
}

impl Netlink {
    /// Opens a connection in the calling thread's network namespace, to be served by `runtime`.
    pub(crate) fn open(runtime: &runtime::Handle) -> Result<Unstarted> {
        let _entered = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| Error::Netlink { action: "opening a netlink socket".into(), source })?;
        Ok(Unstarted { connection, handle })
    }

    /// The link of that name, if there is one.
    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>> {
        let request = self.handle.link().get().match_name(name).execute();
        let found = bounded(format!("looking up interface {name}"), async move {
            futures::pin_mut!(request);
            request.try_next().await
        })
        .await;
        match found {
            Ok(message) => Ok(message.as_ref().and_then(link_of)),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every link of the namespace.
    pub(crate) async fn links(&self) -> Result<Vec<Link>> {
        let request = self.handle.link().get().execute();
        let messages: Vec<_> = bounded("listing interfaces".into(), request.try_collect()).await?;
        Ok(messages.iter().filter_map(link_of).collect())
    }

    /// Creates a veth pair, the pod's end straight in its namespace. Both ends are down: a veth cannot be opened
    /// before it has its peer.
    pub(crate) async fn add_veth(&self, veth: &Veth<'_>, netns: BorrowedFd<'_>) -> Result<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(veth.pod)
            .address(veth.pod_mac.to_vec())
            .mtu(veth.mtu)
            .setns_by_fd(netns.as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
            .name(veth.host)
            .address(veth.host_mac.to_vec())
            .mtu(veth.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        bounded(format!("creating interface {}", veth.host), self.handle.link().add(message).execute()).await
    }

    /// Says to people whose interface this is and brings it up.
    pub(crate) async fn publish(&self, index: u32, alias: &str) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).alias(alias).up().build();
        bounded(format!("bringing up the interface of {alias}"), self.handle.link().set(message).execute())
            .await
    }

    pub(crate) async fn bring_up(&self, index: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        bounded(format!("bringing up interface {index}"), self.handle.link().set(message).execute()).await
    }

    /// Waits until packets to an address of this namespace are taken in: the kernel adds an IPv6 address' local
    /// route some time after it has acknowledged the address.
    pub(crate) async fn await_local(&self, address: IpAddr) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let filter = RouteMessageBuilder::<IpAddr>::new()
                .destination_prefix(address, full_length(address))
                .map_err(invalid)?
                .build();
            let request = self.handle.route().get(filter).execute();
            let found = bounded(format!("looking up the route to {address}"), async move {
                futures::pin_mut!(request);
                request.try_next().await
            });
            if found.await?.is_some_and(|route| route.header.kind == RouteType::Local) {
                return Ok(());
            }
            tokio::time::sleep(DEFERRED_WORK).await;
        }
        Err(Error::Timeout { action: format!("waiting for the local route of {address}"), after: PATIENCE })
    }

    /// Waits until a link sends. Its queue is set up by the kernel's link watch some time after it got its carrier,
    /// and what is sent before is dropped; asking for the link makes kernels since 6.8 do it at once.
    pub(crate) async fn await_operational(&self, name: &str) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            match self.link(name).await? {
                Some(link) if link.operational => return Ok(()),
                Some(_) => tokio::time::sleep(DEFERRED_WORK).await,
                None => return Err(Error::NoInterface(name.to_owned())),
            }
        }
        Err(Error::Timeout { action: format!("waiting for the carrier of {name}"), after: PATIENCE })
    }

    /// Deletes a link by name, a veth with its peer. None of that name is fine.
    pub(crate) async fn delete_link(&self, name: &str) -> Result<()> {
        let Some(link) = self.link(name).await? else { return Ok(()) };
        let request = self.handle.link().del(link.index).execute();
        match bounded(format!("deleting interface {name}"), request).await {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Adds a host address that is usable at once (no duplicate address detection). Having it already is fine.
    pub(crate) async fn add_address(&self, index: u32, address: IpAddr, scope: AddressScope) -> Result<()> {
        let mut request = self.handle.address().add(index, address, full_length(address)).replace();
        let message = request.message_mut();
        message.header.scope = scope;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
        bounded(format!("adding address {address} to interface {index}"), request.execute()).await
    }

    /// Sets a neighbour for good: no ARP, no neighbour discovery.
    pub(crate) async fn set_neighbour(&self, index: u32, address: IpAddr, mac: [u8; 6]) -> Result<()> {
        let request = self.handle.neighbours().add(index, address).link_layer_address(&mac).replace();
        bounded(format!("adding neighbour {address} on interface {index}"), request.execute()).await
    }

    pub(crate) async fn set_route(&self, route: &Route) -> Result<()> {
        let request = self.handle.route().add(message_of(route)?).replace();
        bounded(format!("adding route to {}", route.destination), request.execute()).await
    }

    /// Deletes a route. None is fine.
    pub(crate) async fn delete_route(&self, route: &Route) -> Result<()> {
        let request = self.handle.route().del(message_of(route)?).execute();
        match bounded(format!("deleting route to {}", route.destination), request).await {
            Err(error) if error.errno() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Our routes in the main table.
    pub(crate) async fn routes(&self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            let request = self.handle.route().get(filter).execute();
            let messages: Vec<_> = bounded("listing routes".into(), request.try_collect()).await?;
            routes.extend(messages.iter().filter_map(route_of));
        }
        Ok(routes)
    }
}

async fn bounded<T>(
    action: String,
    request: impl Future<Output = std::result::Result<T, rtnetlink::Error>>,
) -> Result<T> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(rtnetlink::Error::NetlinkError(message))) => {
            Err(Error::Netlink { action, source: message.to_io() })
        }
        Ok(Err(error)) => Err(Error::Netlink { action, source: io::Error::other(error) }),
        Err(_) => Err(Error::Timeout { action, after: PATIENCE }),
    }
}

fn full_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

pub(crate) fn link_of(message: &LinkMessage) -> Option<Link> {
    let mut link = Link { index: message.header.index, name: String::new(), mtu: 0, operational: false };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::OperState(state) => link.operational = *state == State::Up,
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// The library does not export this error's type.
fn invalid(error: impl std::error::Error) -> Error {
    Error::Netlink { action: "describing a route".into(), source: io::Error::other(error.to_string()) }
}

fn message_of(route: &Route) -> Result<RouteMessage> {
    let (destination, length) = (route.destination.network(), route.destination.prefix_len());
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .protocol(PROTOCOL)
        .destination_prefix(destination, length)
        .map_err(invalid)?;
    let builder = match route.hop {
        Hop::Link { index, source } => {
            let builder = builder.scope(RouteScope::Link).output_interface(index);
            match source {
                Some(source) => builder.pref_source(source).map_err(invalid)?,
                None => builder,
            }
        }
        Hop::Gateway { index, gateway, onlink } => {
            let builder = builder.output_interface(index).gateway(gateway).map_err(invalid)?;
            if onlink { builder.onlink() } else { builder }
        }
        Hop::Unreachable => builder.kind(RouteType::Unreachable).priority(LAST_RESORT),
    };
    Ok(builder.build())
}

/// `None` for routes of others and for shapes that this crate never makes.
fn route_of(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.protocol != PROTOCOL || header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let (mut destination, mut gateway, mut source, mut index) = (unspecified, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip_of(address)?,
            RouteAttribute::Gateway(address) => gateway = Some(ip_of(address)?),
            RouteAttribute::PrefSource(address) => source = Some(ip_of(address)?),
            RouteAttribute::Oif(oif) => index = *oif,
            _ => {}
        }
    }
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    let hop = match (header.kind, gateway) {
        (RouteType::Unreachable, _) => Hop::Unreachable,
        (RouteType::Unicast, Some(gateway)) => Hop::Gateway { index, gateway, onlink: false },
        (RouteType::Unicast, None) => Hop::Link { index, source },
        _ => return None,
    };
    Some(Route { destination, hop })
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
