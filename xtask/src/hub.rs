//! The hub process of a development cluster: image registry and DNS forwarder for its nodes.
//!
//! In: requests on sockets inside the hub's network namespace. Out: images of the local layout first, then of the real
//! registry when that can be reached; DNS answers of the host's resolvers. The process itself stays in the host's
//! namespace, so the nodes reach the world only through these two doors and the host needs no forwarding rule.

mod dns;
mod registry;

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::layout::REGISTRY_PORT;
use crate::namespace::in_netns;

/// Settings of the hub process.
pub struct HubConfig {
    pub netns: String,
    pub addresses: Vec<IpAddr>,
    pub images: PathBuf,
    /// Resolvers of the host, from its `/etc/resolv.conf`.
    pub resolvers: Vec<SocketAddr>,
}

/// Serves until killed.
///
/// # Errors
/// When a port in the hub's namespace is taken.
pub fn run(config: HubConfig) -> Result<()> {
    let addresses = config.addresses.clone();
    let (registries, dns_udp, dns_tcp) = in_netns(&config.netns, move || {
        let mut registries: Vec<TcpListener> = Vec::new();
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for address in addresses {
            let at = |port| SocketAddr::new(address, port);
            let why = |port: u16| format!("the hub cannot listen on {address}:{port}");
            registries.push(TcpListener::bind(at(REGISTRY_PORT)).with_context(|| why(REGISTRY_PORT))?);
            udp.push(UdpSocket::bind(at(53)).with_context(|| why(53))?);
            tcp.push(TcpListener::bind(at(53)).with_context(|| why(53))?);
        }
        Ok((registries, udp, tcp))
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async move {
        for listener in registries {
            listener.set_nonblocking(true)?;
            tokio::spawn(registry::serve(
                tokio::net::TcpListener::from_std(listener)?,
                config.images.clone(),
            ));
        }
        for socket in dns_udp {
            socket.set_nonblocking(true)?;
            tokio::spawn(dns::serve_udp(tokio::net::UdpSocket::from_std(socket)?, config.resolvers.clone()));
        }
        for listener in dns_tcp {
            listener.set_nonblocking(true)?;
            tokio::spawn(dns::serve_tcp(
                tokio::net::TcpListener::from_std(listener)?,
                config.resolvers.clone(),
            ));
        }
        std::future::pending::<()>().await;
        Ok(())
    })
}

/// Resolvers named in a `resolv.conf`.
pub fn resolvers(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|address| address.trim().parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn resolvers_are_read_from_resolv_conf() {
        let found = super::resolvers(
            "# x\nnameserver 192.0.2.1\nsearch a b\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\n",
        );
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["192.0.2.1:53", "[2001:db8::1]:53"]
        );
    }
}
