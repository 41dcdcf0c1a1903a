//! The wire between a pod and its node: veth pair, addresses, routes, neighbours, programs.
//!
//! In: a pod's record, its network namespace. Out: a pod that reaches its gateway, and a node that reaches the pod.
//! Each pod has host addresses (/32, /128) and the gateway behind a permanent neighbour entry, the node a host route
//! and a permanent entry back: no ARP or neighbour discovery is ever needed, and no subnet is shared between pods.

use std::net::IpAddr;
use std::os::fd::AsFd;

use ipnet::IpNet;
use netlink_packet_route::address::AddressScope;
use xebec_datapath::pod::PodEntry;

use crate::checkpoint::Record;
use crate::datapath::PodDatapath;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::names::POD_INTERFACE;
use crate::namespaces::PodNetns;
use crate::netlink::{Hop, Link, Netlink, Route, Veth};
use crate::sysctl;

/// The loopback interface is always the first one of a namespace.
const LOOPBACK: u32 = 1;

/// Builds the whole wire of a pod into its namespace.
pub(crate) async fn connect(
    host: &Host,
    datapath: &dyn PodDatapath,
    record: &Record,
    netns: &PodNetns,
) -> Result<()> {
    let veth = Veth {
        host: &record.interface,
        host_mac: record.host_mac,
        pod: POD_INTERFACE,
        pod_mac: record.mac,
        mtu: host.mtu,
    };
    host.netlink.add_veth(&veth, netns.file.as_fd()).await?;
    let link = host.netlink.link(&record.interface).await?;
    let link = link.ok_or_else(|| Error::NoInterface(record.interface.clone()))?;
    connect_host(host, datapath, record, &link).await?;
    connect_pod(host, &netns.netlink, record).await?;
    for address in &record.addresses {
        netns.netlink.await_local(*address).await?;
    }
    host.netlink.await_operational(&record.interface).await
}

/// The node's half, in which everything is replaced in place: run again at each start.
pub(crate) async fn connect_host(
    host: &Host,
    datapath: &dyn PodDatapath,
    record: &Record,
    link: &Link,
) -> Result<()> {
    quiet_interface(&link.name)?;
    host.netlink.publish(link.index, &format!("{}/{}", record.namespace, record.name)).await?;
    datapath.attach(&link.name).map_err(|source| Error::Datapath {
        action: format!("attaching programs to {}", link.name),
        source,
    })?;
    for address in &record.addresses {
        host.netlink.set_neighbour(link.index, *address, record.mac).await?;
        let hop = Hop::Link { index: link.index, source: host.source_for(*address) };
        host.netlink.set_route(&Route { destination: IpNet::from(*address), hop }).await?;
        let entry = PodEntry {
            address: *address,
            ifindex: link.index,
            mac: record.mac,
            host_mac: record.host_mac,
            netns_cookie: record.netns_cookie,
        };
        datapath
            .put(entry)
            .map_err(|source| Error::Datapath { action: format!("adding pod address {address}"), source })?;
    }
    Ok(())
}

/// The pod's half, after the node's: an interface whose other end is down has no carrier.
async fn connect_pod(host: &Host, netlink: &Netlink, record: &Record) -> Result<()> {
    netlink.bring_up(LOOPBACK).await?;
    let link =
        netlink.link(POD_INTERFACE).await?.ok_or_else(|| Error::NoInterface(POD_INTERFACE.to_owned()))?;
    netlink.bring_up(link.index).await?;
    for address in &record.addresses {
        netlink.add_address(link.index, *address, AddressScope::Universe).await?;
        let Some(gateway) = host.gateway_for(*address) else { continue };
        netlink.set_neighbour(link.index, gateway, record.host_mac).await?;
        let destination = everywhere(*address);
        let hop = Hop::Gateway { index: link.index, gateway, onlink: true };
        netlink.set_route(&Route { destination, hop }).await?;
    }
    Ok(())
}

/// Settings of the host end, made before it comes up.
fn quiet_interface(name: &str) -> Result<()> {
    sysctl::set(&format!("ipv4/conf/{name}/forwarding"), "1")?;
    // Replies that a program translated do not look like what a reverse path check expects.
    sysctl::set(&format!("ipv4/conf/{name}/rp_filter"), "0")?;
    sysctl::set(&format!("ipv4/conf/{name}/send_redirects"), "0")?;
    if sysctl::has_ipv6() {
        sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
        sysctl::set(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        // No link-local address: nobody speaks to this end, and it would chatter.
        sysctl::set(&format!("ipv6/conf/{name}/addr_gen_mode"), "1")?;
    }
    Ok(())
}

fn everywhere(family_of: IpAddr) -> IpNet {
    match family_of {
        IpAddr::V4(_) => ipnet::Ipv4Net::default().into(),
        IpAddr::V6(_) => ipnet::Ipv6Net::default().into(),
    }
}
