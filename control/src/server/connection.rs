//! One connection, from handshake to end.
//!
//! In: a socket. Out: requests with a [`Peer`], answers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Request;
use http_body_util::BodyExt;
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

use super::activity::{Activity, Heard, Work};
use super::{Handler, Limits, ResponseBody, answer, listener};

/// How long a client that is sent away may take to hear of it.
const LINGER: Duration = Duration::from_secs(1);

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

    let activity = Activity::new();
    let stream = Heard { stream, activity: (!http2).then(|| activity.clone()) };
    let at_work = activity.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer::clone(&peer));
        let (work, answer) = (at_work.begin(), answer(handler.clone(), request));
        // Ends with the answer's body.
        async move { answer.await.map(|response| response.map(|body| held(body, work))) }
    });
    let builder = builder(limits, http2);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = activity.overdue(&limits) => {
            connection.as_mut().graceful_shutdown();
            timeout(LINGER, connection).await.unwrap_or(Ok(()))
        }
    };
    outcome.map_err(|error| anyhow::anyhow!(error))
}

/// A body that keeps its request among those at work.
fn held(body: ResponseBody, work: Work) -> ResponseBody {
    body.map_frame(move |frame| {
        let _until_dropped = &work;
        frame
    })
    .boxed_unsync()
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
    // Heads have their time by `Activity`, which tells them from idling.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(
        // hyper's smallest is 8 KiB; a head has to fit into the buffer.
        limits.header_bytes as usize,
    );
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes)
        .keep_alive_interval(Duration::from_secs(15))
        .keep_alive_timeout(Duration::from_secs(15));
    if http2 { builder.http2_only() } else { builder.http1_only() }
}
