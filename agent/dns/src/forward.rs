//! Names outside the cluster: asked of the node's resolvers.
//!
//! In: a query's bytes. Out: the first resolver's answer; over TCP when it was cut short. Bounded in time and number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Per resolver; clients themselves give up after five seconds.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Queries under way at once; upstream's default of CoreDNS's forward plugin is 1000.
const IN_FLIGHT: usize = 1000;
const MAX_UDP: usize = 4096;
/// Resolvers used of a resolv.conf (resolver(5): MAXNS).
const MAX_RESOLVERS: usize = 3;

pub(crate) struct Forwarder {
    resolvers: Vec<SocketAddr>,
    room: Semaphore,
}

impl Forwarder {
    /// Resolvers of a `resolv.conf`, less our own addresses: they would make a loop.
    pub(crate) fn new(resolv_conf: &str, own: &[SocketAddr]) -> Self {
        let resolvers = resolv_conf
            .lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver"))
            .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
            .map(|address| SocketAddr::new(address, 53))
            .filter(|address| !own.contains(address))
            .take(MAX_RESOLVERS)
            .collect();
        Self { resolvers, room: Semaphore::new(IN_FLIGHT) }
    }

    /// `None`: there is no resolver, none answered, or too many queries are under way.
    pub(crate) async fn ask(&self, query: &[u8]) -> Option<Vec<u8>> {
        let _permit = self.room.try_acquire().ok()?;
        for resolver in &self.resolvers {
            match timeout(TIMEOUT, ask_udp(*resolver, query)).await {
                Ok(Ok(answer)) if is_truncated(&answer) => {
                    let whole = timeout(TIMEOUT, ask_tcp(*resolver, query)).await;
                    return whole.ok().and_then(Result::ok).or(Some(answer));
                }
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        None
    }
}

async fn ask_udp(resolver: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let any = if resolver.is_ipv4() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    // A fresh socket each: its random port is what makes forged answers hard (RFC 5452).
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(query).await?;
    let mut answer = vec![0; MAX_UDP];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Something else than the answer to this query is waited out.
        if length >= 12 && answer[..2] == query[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(query.len()).map_err(std::io::Error::other)?;
    stream.write_u16(length).await?;
    stream.write_all(query).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The TC bit (RFC 1035 §4.1.1).
fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_address_is_never_a_resolver() {
        let own = ["10.0.0.1:53".parse().unwrap()];
        let forwarder = Forwarder::new("nameserver 10.0.0.1\nnameserver 10.0.0.2\n", &own);
        assert_eq!(forwarder.resolvers, ["10.0.0.2:53".parse().unwrap()]);
    }

    #[tokio::test]
    async fn without_resolvers_there_is_no_answer() {
        assert_eq!(Forwarder::new("", &[]).ask(&[0; 12]).await, None);
    }
}
