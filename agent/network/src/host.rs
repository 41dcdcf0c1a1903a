//! The node's own part: forwarding, gateway addresses, and what answers for unused pod addresses.
//!
//! In: [`NetworkConfig`]. Out: sysctls, addresses on the loopback interface, unreachable routes; and [`Host`], which
//! the other files ask for indexes and addresses. Everything is set in place, so that a restart changes nothing.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;
use netlink_packet_route::address::AddressScope;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::ipam;
use crate::netlink::{Hop, Netlink, Route};
use crate::sysctl;
use crate::types::NetworkConfig;
use crate::uplink::{self, Uplink};

const LOOPBACK: u32 = 1;

/// Smallest MTU that IPv6 allows.
const MIN_MTU: u32 = 1280;

/// The node's network as pods need to know it.
pub(crate) struct Host {
    pub(crate) netlink: Netlink,
    uplink_name: String,
    uplink_index: AtomicU32,
    pub(crate) mtu: u32,
    pub(crate) node_addresses: Vec<IpAddr>,
    pub(crate) pod_cidrs: Vec<IpNet>,
}

impl Host {
    /// Checks the configuration and sets the node up.
    pub(crate) async fn prepare(config: &NetworkConfig) -> Result<Self> {
        let netlink = Netlink::open(&Handle::current())?.start();
        let uplink =
            netlink.link(&config.uplink).await?.ok_or_else(|| Error::NoUplink(config.uplink.clone()))?;
        let host = Self {
            netlink,
            uplink_name: config.uplink.clone(),
            uplink_index: AtomicU32::new(uplink.index),
            mtu: config.mtu.unwrap_or(uplink.mtu),
            node_addresses: config.node_addresses.clone(),
            pod_cidrs: config.pod_cidrs.iter().map(IpNet::trunc).collect(),
        };
        if host.mtu < MIN_MTU {
            return Err(Error::Config(format!(
                "pod MTU {} is below {MIN_MTU}, the least that IPv6 allows",
                host.mtu
            )));
        }
        host.forward(&config.uplink)?;
        host.netlink.bring_up(LOOPBACK).await?;
        for net in &host.pod_cidrs {
            host.netlink.add_address(LOOPBACK, ipam::gateway(net), AddressScope::Link).await?;
            // Else packets to a pod that is gone would travel to the default gateway and perhaps back.
            host.netlink.set_route(&Route { destination: *net, hop: Hop::Unreachable }).await?;
        }
        Ok(host)
    }

    /// Index of the uplink, as far as is known.
    pub(crate) fn uplink(&self) -> u32 {
        self.uplink_index.load(Ordering::Relaxed)
    }

    /// Looks the uplink up again: one that was made anew has another index.
    pub(crate) async fn find_uplink(&self) -> Result<()> {
        let found = self.netlink.link(&self.uplink_name).await?;
        let uplink = found.ok_or_else(|| Error::NoUplink(self.uplink_name.clone()))?;
        self.uplink_index.store(uplink.index, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) async fn follow_uplink(&self) -> Result<watch::Receiver<Uplink>> {
        uplink::follow(self.netlink.clone(), self.uplink_name.clone()).await
    }

    /// The gateway for a pod that has this address.
    pub(crate) fn gateway_for(&self, address: IpAddr) -> Option<IpAddr> {
        self.pod_cidrs.iter().find(|net| net.addr().is_ipv4() == address.is_ipv4()).map(ipam::gateway)
    }

    /// The source address that the node uses towards a pod address.
    pub(crate) fn source_for(&self, address: IpAddr) -> Option<IpAddr> {
        let own = self.node_addresses.iter().find(|own| own.is_ipv4() == address.is_ipv4());
        own.copied().or_else(|| self.gateway_for(address))
    }

    fn forward(&self, uplink: &str) -> Result<()> {
        let has = |v4: bool| self.pod_cidrs.iter().any(|net| net.addr().is_ipv4() == v4);
        if has(true) {
            unshare_rp_filter()?;
            sysctl::set("ipv4/ip_forward", "1")?;
        }
        if has(false) {
            if !sysctl::has_ipv6() {
                return Err(Error::Config("an IPv6 pod range is given but this kernel has no IPv6".into()));
            }
            // A router ignores router advertisements, and the uplink may live by them.
            let accept_ra = format!("ipv6/conf/{uplink}/accept_ra");
            if sysctl::read(&accept_ra)?.as_deref() == Some("1") {
                sysctl::set(&accept_ra, "2")?;
            }
            sysctl::set("ipv6/conf/all/forwarding", "1")?;
        }
        Ok(())
    }
}

/// The kernel checks by the stricter of `all` and the interface. Moves the value of `all` to the interfaces that
/// exist, so that pods' interfaces can do without and the others keep what they have.
fn unshare_rp_filter() -> Result<()> {
    let level = |value: Option<String>| value.and_then(|v| v.parse::<u8>().ok()).unwrap_or(0);
    let all = level(sysctl::read("ipv4/conf/all/rp_filter")?);
    if all == 0 {
        return Ok(());
    }
    for interface in sysctl::interfaces("ipv4")? {
        // Interface names may hold dots, which is why keys are paths here.
        let key = format!("ipv4/conf/{interface}/rp_filter");
        if interface != "all" && level(sysctl::read(&key)?) < all {
            sysctl::set(&key, &all.to_string())?;
        }
    }
    sysctl::set("ipv4/conf/all/rp_filter", "0")
}
