//! The front door: sockets, TLS, HTTP.
//!
//! In: a listener, TLS, something that answers requests. Out: answers; each request carries who is at the other end.
//! Everything a client may hold on to has a limit or a time: connections, handshakes, request heads, streams.

mod activity;
mod connection;
mod listener;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use listener::bind;

/// What the handler answers with.
pub type ResponseBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// What one client, and all of them together, may hold on to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    pub handshake: Duration,
    /// From the first byte of a request's head to the last, on HTTP/1.
    pub request_head: Duration,
    /// Without any request.
    pub idle: Duration,
    pub header_bytes: u32,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// How long connections may finish what they began when the server is told to stop.
    pub drain: Duration,
}

/// Answers requests.
pub trait Handler: Clone + Send + Sync + 'static {
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<ResponseBody>> + Send;
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16 * 1024,
            handshake: Duration::from_secs(10),
            request_head: Duration::from_secs(32),
            idle: Duration::from_secs(90),
            // Upstream's is 1 MiB; but so much also waits for each client that does not read.
            header_bytes: 256 << 10,
            streams: 100,
            drain: Duration::from_secs(10),
        }
    }
}

/// Accepts until `stop`, then lets connections finish.
pub async fn serve(
    listener: TcpListener,
    tls: ServerConfig,
    limits: Limits,
    handler: impl Handler,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let places = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    loop {
        let Some((stream, place)) = next(&listener, &places, &stop).await else { break };
        let (acceptor, handler, stop) = (acceptor.clone(), handler.clone(), stop.clone());
        connections.spawn(async move {
            if let Err(error) = connection::serve(stream, acceptor, limits, handler, stop).await {
                tracing::debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.drain, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "connections were cut: they did not finish in time");
    }
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let accept = async {
        // The semaphore is never closed.
        let place = places.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, place)),
                Err(error) => {
                    // Out of descriptors, or the client was faster to leave: neither is a reason to stop.
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => None,
        next = accept => next,
    }
}

/// A handler never fails: what goes wrong is an answer.
async fn answer(
    handler: impl Handler,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    Ok(handler.handle(request).await)
}

#[cfg(test)]
mod tests;
