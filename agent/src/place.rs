//! Where this node is: its name, its addresses, its interface towards the others.
//!
//! In: flags, the API server's address, the machine's interfaces. Out: a [`Place`]. What no flag says is taken from the
//! way to the API server: the interface that leads there, and the addresses it would speak from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::Uri;
use nix::ifaddrs::getifaddrs;
use xebec_api::names;

use crate::node;

const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses of documentation: nobody has them, so the way there is the default route.
const SOMEWHERE4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const SOMEWHERE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
/// Any port does: nothing is sent.
const ANY_PORT: u16 = 9;

/// What flags say of it; the rest is found.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub node_name: Option<String>,
    pub addresses: Vec<IpAddr>,
    pub uplink: Option<String>,
}

/// This node on its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub node_name: String,
    /// At most one per family, the primary family first.
    pub addresses: Vec<IpAddr>,
    pub uplink: String,
}

/// An interface and one of its addresses.
type Held = (String, IpAddr);

// === impl Place ===

impl Place {
    /// # Errors
    /// Names the flag to give where something cannot be found.
    pub async fn find(told: &Told, server: &Uri) -> Result<Self> {
        let node_name = name(told)?;
        let families = |v4: bool| told.addresses.iter().filter(|ip| ip.is_ipv4() == v4).count();
        ensure!(families(true) <= 1 && families(false) <= 1, "--node-ip: at most one address per family");
        if let (Some(uplink), false) = (&told.uplink, told.addresses.is_empty()) {
            return Ok(Self { node_name, addresses: told.addresses.clone(), uplink: uplink.clone() });
        }
        let held = held()?;
        let source = match told.addresses.first() {
            Some(address) => *address,
            None => source(target(server).await?)
                .context("there is no way to the API server: give --node-ip and --uplink")?,
        };
        let other = source_towards(if source.is_ipv4() { SOMEWHERE6 } else { SOMEWHERE4 });
        let (addresses, uplink) = choose(told, &held, source, other)?;
        Ok(Self { node_name, addresses, uplink })
    }
}

fn name(told: &Told) -> Result<String> {
    let name = told.node_name.clone().unwrap_or_else(|| node::hostname().trim().to_lowercase());
    let complaints = names::dns1123_subdomain(&name);
    if !complaints.is_empty() {
        bail!("{name:?} is no name of a node: {}; give another with --node-name", complaints.join("; "));
    }
    Ok(name)
}

/// Addresses and interface of the node that speaks from `source`, and in the other family from `other`.
fn choose(
    told: &Told,
    held: &[Held],
    source: IpAddr,
    other: Option<IpAddr>,
) -> Result<(Vec<IpAddr>, String)> {
    let of = |address: IpAddr| held.iter().find(|(_, held)| *held == address).map(|(name, _)| name.as_str());
    let uplink = match &told.uplink {
        Some(uplink) => uplink.as_str(),
        None => {
            of(source).with_context(|| format!("no interface has the address {source}: give --uplink"))?
        }
    };
    if !told.addresses.is_empty() {
        return Ok((told.addresses.clone(), uplink.to_owned()));
    }
    if source.is_loopback() {
        bail!("the API server is asked over loopback, where no other node is: give --node-ip and --uplink");
    }
    ensure!(
        of(source) == Some(uplink),
        "the API server is not reached through {uplink} but from {source}: give --node-ip"
    );
    let mut addresses = vec![source];
    addresses.extend(other.filter(|other| of(*other) == Some(uplink)));
    Ok((addresses, uplink.to_owned()))
}

/// All addresses of this machine.
fn held() -> Result<Vec<Held>> {
    let all = getifaddrs().context("listing interfaces")?;
    Ok(all
        .filter_map(|one| {
            let address = one.address?;
            let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                (Some(v4), _) => IpAddr::V4(v4.ip()),
                (_, Some(v6)) => IpAddr::V6(v6.ip()),
                _ => return None,
            };
            Some((one.interface_name, ip))
        })
        .collect())
}

/// The API server's address.
async fn target(server: &Uri) -> Result<IpAddr> {
    let host = server.host().context("the API server's URL names no host")?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Ok(address);
    }
    let lookup = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((bare, ANY_PORT))).await;
    let mut found = lookup
        .with_context(|| format!("looking up {bare}: no answer within {LOOKUP_TIMEOUT:?}"))?
        .with_context(|| format!("looking up {bare}"))?;
    Ok(found.next().with_context(|| format!("{bare} has no address"))?.ip())
}

/// The address this machine would speak from.
fn source(target: IpAddr) -> Result<IpAddr> {
    let any =
        if target.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    // Chooses a route and sends nothing.
    socket.connect(SocketAddr::new(target, ANY_PORT))?;
    Ok(socket.local_addr()?.ip())
}

fn source_towards(target: IpAddr) -> Option<IpAddr> {
    source(target).ok().filter(|found| !found.is_loopback() && !found.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn held() -> Vec<Held> {
        [("lo", "127.0.0.1"), ("eth0", "198.51.100.7"), ("eth0", "fd00::7"), ("eth1", "203.0.113.7")]
            .map(|(name, address)| (name.to_owned(), ip(address)))
            .into()
    }

    #[test]
    fn the_way_to_the_api_server_says_where_a_node_is() {
        let found = choose(&Told::default(), &held(), ip("198.51.100.7"), Some(ip("fd00::7"))).unwrap();
        assert_eq!(found, (vec![ip("198.51.100.7"), ip("fd00::7")], "eth0".to_owned()));
        let found = choose(&Told::default(), &held(), ip("203.0.113.7"), Some(ip("fd00::7"))).unwrap();
        assert_eq!(found, (vec![ip("203.0.113.7")], "eth1".to_owned()), "another interface's is not taken");
    }

    #[test]
    fn flags_come_first() {
        let told = Told { addresses: vec![ip("203.0.113.7")], ..Told::default() };
        let found = choose(&told, &held(), ip("203.0.113.7"), Some(ip("fd00::7"))).unwrap();
        assert_eq!(found, (vec![ip("203.0.113.7")], "eth1".to_owned()));
        let told = Told { uplink: Some("eth1".into()), ..Told::default() };
        let refused = choose(&told, &held(), ip("198.51.100.7"), None).unwrap_err().to_string();
        assert!(refused.contains("give --node-ip"), "{refused}");
    }

    #[test]
    fn loopback_and_foreign_addresses_are_refused() {
        for (source, advice) in [("127.0.0.1", "--node-ip"), ("192.0.2.99", "give --uplink")] {
            let refused = choose(&Told::default(), &held(), ip(source), None).unwrap_err().to_string();
            assert!(refused.contains(advice), "{refused}");
        }
    }

    #[test]
    fn a_name_must_be_one_the_api_takes() {
        let told = |name: &str| Told { node_name: Some(name.into()), ..Told::default() };
        assert_eq!(name(&told("n1.example")).unwrap(), "n1.example");
        assert!(name(&told("N_1")).unwrap_err().to_string().contains("--node-name"));
    }
}
