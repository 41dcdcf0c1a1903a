//! Small plain HTTP servers: the only place of this crate that listens.
//!
//! In: an address, a function from a request's method and path to an answer. Out: answers, until cancelled. Connections
//! and header times are bounded; a body is never read.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

const BACKLOG: u32 = 128;
const CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Before the next connection where there are no file descriptors: others must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An answer to a GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: String,
}

/// From a path to an answer.
pub(crate) type Handler = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

/// Listens at an address; an IPv6 socket takes no IPv4 connections, which may have a socket of their own.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Answers until cancelled.
pub(crate) async fn serve(listener: TcpListener, handler: Handler, shutdown: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (handler, shutdown) = (Arc::clone(&handler), shutdown.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let reply = answer(&handler, &request);
                async move { Ok::<_, Infallible>(reply) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                outcome = connection => if let Err(error) = outcome { debug!(%error, "connection") },
                () = shutdown.cancelled() => {}
            }
        });
    }
}

fn answer(handler: &Handler, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let reply = match *request.method() {
        Method::GET | Method::HEAD => handler(request.uri().path()),
        _ => Reply::text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.extend(reply.headers);
    response
}

impl Reply {
    pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn json(status: StatusCode, body: &impl serde::Serialize) -> Self {
        // Only maps with keys that are not strings fail.
        let body = serde_json::to_string(body).unwrap_or_default();
        Self { status, content_type: "application/json", headers: Vec::new(), body }
    }

    /// 200 or 503.
    pub(crate) fn status(healthy: bool) -> StatusCode {
        if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }
}
