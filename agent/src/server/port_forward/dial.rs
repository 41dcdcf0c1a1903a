//! Connections into a pod's network namespace.
//!
//! In: a pod, a port. Out: a connection to the pod's own loopback address. A socket belongs to the namespace it was
//! made in, so only its making happens there: on a thread that ends with it.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Destination, Loopback};

/// Loopback answers at once or never.
const CONNECT: Duration = Duration::from_secs(10);
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Connects to `localhost:port` of a running pod, IPv4 first.
///
/// # Errors
/// One sentence that names pod and port.
pub async fn connect(destination: &Destination, port: u16) -> Result<TcpStream, String> {
    let Destination { pod, uid, loopback } = destination;
    let failed = |why: String| format!("error forwarding port {port} to pod {pod}, uid {uid}: {why}");
    let loopback = loopback().ok_or_else(|| failed("the pod is not running".to_owned()))?;
    let mut why = None;
    for address in LOOPBACK {
        match connect_to(&loopback, SocketAddr::new(address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => why = why.or(Some(error)),
        }
    }
    let why = why.map(|error| error.to_string()).unwrap_or_default();
    Err(failed(format!("failed to connect to localhost:{port}: {why}")))
}

async fn connect_to(loopback: &Loopback, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match loopback {
        Loopback::Pod(netns) => socket_in(File::open(netns)?, address.is_ipv6()).await?,
        Loopback::Host if address.is_ipv6() => TcpSocket::new_v6()?,
        Loopback::Host => TcpSocket::new_v4()?,
    };
    let stream = timeout(CONNECT, socket.connect(address)).await.map_err(io::Error::from)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn socket_in(netns: File, ipv6: bool) -> io::Result<TcpSocket> {
    let (sender, made) = oneshot::channel();
    std::thread::Builder::new().name("netns".into()).spawn(move || {
        // The receiver is gone when the client is.
        sender.send(make(&netns, ipv6)).ok();
    })?;
    let fd = made.await.map_err(io::Error::other)??;
    Ok(TcpSocket::from_std_stream(std::net::TcpStream::from(fd)))
}

fn make(netns: &File, ipv6: bool) -> io::Result<OwnedFd> {
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    let family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    Ok(socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_pod_that_does_not_run_is_not_the_host() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let to = |loopback: Option<Loopback>| Destination {
            pod: "p".into(),
            uid: "u".into(),
            loopback: Arc::new(move || loopback.clone()),
        };
        let why = connect(&to(None), port).await.unwrap_err();
        assert_eq!(why, format!("error forwarding port {port} to pod p, uid u: the pod is not running"));
        assert!(connect(&to(Some(Loopback::Host)), port).await.is_ok());
    }
}
