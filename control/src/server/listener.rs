//! The listening socket and what is asked of each connection's.
//!
//! In: an address and a port. Out: a listener, or one sentence.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};

/// A peer that vanished without a word is noticed after idle + interval × probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// A peer that takes nothing of what it is sent is cut after this.
const UNREAD: Duration = Duration::from_secs(60);

/// Listens on one address, or on all of them.
pub async fn bind(address: Option<IpAddr>, port: u16) -> Result<TcpListener> {
    let wanted = SocketAddr::new(address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), port);
    let outcome = match TcpListener::bind(wanted).await {
        // A host without IPv6.
        Err(error) if address.is_none() && is_no_ipv6(&error) => {
            TcpListener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)).await
        }
        outcome => outcome,
    };
    outcome.map_err(|error| explain(wanted, &error))
}

fn is_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EAFNOSUPPORT))
        || error.kind() == ErrorKind::AddrNotAvailable
}

fn explain(wanted: SocketAddr, error: &io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => "another process has the port; stop it or choose another with --secure-port",
        ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose another with --secure-port",
        ErrorKind::AddrNotAvailable => "this host has no such address; choose another with --bind-address",
        _ => return anyhow!("cannot listen on {wanted}: {error}"),
    };
    anyhow!("cannot listen on {wanted}: {advice}")
}

/// Makes a connection's socket notice that its peer is gone.
pub(super) fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &(KEEPALIVE_IDLE.as_secs() as u32))?;
    setsockopt(stream, sockopt::TcpKeepInterval, &(KEEPALIVE_INTERVAL.as_secs() as u32))?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &(UNREAD.as_millis() as u32))?;
    Ok(())
}
