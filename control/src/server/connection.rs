//! One connection, from handshake to end.
//!
//! In: a socket. Out: requests with a [`Peer`], answers.

use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context, Result};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use xebec_apiserver::authn::{Peer, UserInfo};

use super::{Handler, Limits, answer, listener};

pub(super) async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    limits: Limits,
    handler: impl Handler,
    stop: CancellationToken,
) -> Result<()> {
    let address = stream.peer_addr()?;
    listener::configure(&stream)?;
    let stream = timeout(limits.handshake, acceptor.accept(stream))
        .await
        .context("the TLS handshake took too long")?
        .context("TLS handshake")?;
    let peer = Arc::new(Peer { address, certificate: user(&stream)? });
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");

    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer::clone(&peer));
        answer(handler.clone(), request)
    });
    let builder = builder(limits, http2);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    outcome.map_err(|error| anyhow::anyhow!(error))
}

/// The user a verified client certificate names.
fn user(stream: &TlsStream<TcpStream>) -> Result<Option<UserInfo>> {
    let Some(certificate) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) else {
        return Ok(None);
    };
    Ok(Some(UserInfo::from_certificate(certificate)?))
}

/// The protocol is the one TLS agreed on: nothing is sniffed from bytes that may never come.
fn builder(limits: Limits, http2: bool) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.request_head).max_buf_size(
        // hyper's smallest is 8 KiB; a head has to fit into the buffer.
        limits.header_bytes as usize,
    );
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes)
        .keep_alive_interval(std::time::Duration::from_secs(15))
        .keep_alive_timeout(std::time::Duration::from_secs(15));
    if http2 { builder.http2_only() } else { builder.http1_only() }
}
