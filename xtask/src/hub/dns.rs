//! The hub's DNS forwarder: bytes in, bytes out, no cache.
//!
//! In: queries from nodes. Out: what the host's first answering resolver says; nothing when none answers in time, and
//! `SERVFAIL` at once when the host has no resolver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(3);
const IN_FLIGHT: usize = 256;

pub async fn serve_udp(socket: UdpSocket, resolvers: Vec<SocketAddr>) {
    let socket = Arc::new(socket);
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut buffer = vec![0_u8; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let query = buffer[..length].to_vec();
        let (socket, resolvers) = (Arc::clone(&socket), resolvers.clone());
        tokio::spawn(async move {
            let _permit = permit;
            if let Some(answer) = ask_udp(&query, &resolvers).await {
                // The node asks again when this is lost.
                socket.send_to(&answer, peer).await.ok();
            }
        });
    }
}

pub async fn serve_tcp(listener: TcpListener, resolvers: Vec<SocketAddr>) {
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let resolvers = resolvers.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // Either side may hang up at any time; the other one notices.
            timeout(TIMEOUT * 4, relay_tcp(stream, &resolvers)).await.ok();
        });
    }
}

async fn ask_udp(query: &[u8], resolvers: &[SocketAddr]) -> Option<Vec<u8>> {
    if resolvers.is_empty() {
        return servfail(query);
    }
    for resolver in resolvers {
        let any = if resolver.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let Ok(socket) = UdpSocket::bind(any).await else { continue };
        if socket.connect(resolver).await.is_err() || socket.send(query).await.is_err() {
            continue;
        }
        let mut buffer = vec![0_u8; 4096];
        if let Ok(Ok(length)) = timeout(TIMEOUT, socket.recv(&mut buffer)).await {
            buffer.truncate(length);
            return Some(buffer);
        }
    }
    servfail(query)
}

/// The query's header turned into an answer with RCODE 2 (RFC 1035 §4.1.1).
fn servfail(query: &[u8]) -> Option<Vec<u8>> {
    let mut answer = query.to_vec();
    *answer.get_mut(2)? |= 0x80;
    *answer.get_mut(3)? = 0x82;
    Some(answer)
}

async fn relay_tcp(mut stream: TcpStream, resolvers: &[SocketAddr]) -> std::io::Result<()> {
    for resolver in resolvers {
        if let Ok(Ok(mut upstream)) = timeout(TIMEOUT, TcpStream::connect(resolver)).await {
            tokio::io::copy_bidirectional(&mut stream, &mut upstream).await?;
            return Ok(());
        }
    }
    let length = stream.read_u16().await?;
    let mut query = vec![0_u8; usize::from(length)];
    stream.read_exact(&mut query).await?;
    if let Some(answer) = servfail(&query) {
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn servfail_keeps_the_id_and_sets_the_code() {
        let answer = super::servfail(&[0x12, 0x34, 0x01, 0x00, 0, 1]).unwrap();
        assert_eq!(answer, [0x12, 0x34, 0x81, 0x82, 0, 1]);
    }
}
