//! Connections that stop being HTTP: passed on between a client and a kubelet or a pod, byte for byte.
//!
//! In: a client's request to upgrade, the way to whom it is for. Out: the other side's answer; after a 101 a task that
//! copies both ways until both sides end or nothing passes for [`IDLE`]. Absent: what is spoken there.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::body::{self, Body};
use crate::status::ApiError;

/// Tunnels at a time. They outlive their requests and so are not among the requests at work.
const TUNNELS: usize = 2048;
/// How long the two sides may take to change over after the answer.
const CHANGE_OVER: Duration = Duration::from_secs(10);
/// As upstream's kubelet: a tunnel through which nothing passes is closed after this.
const IDLE: Duration = Duration::from_secs(4 * 3600);
/// Bytes on their way in each direction.
const BUFFER: usize = 32 << 10;
/// What makes an upgrade; nothing else of the client's is passed on, above all not who it is.
const PASSED_ON: [HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_EXTENSIONS,
    HeaderName::from_static("x-stream-protocol-version"),
];
/// Sub-protocols that carry a bearer token.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Room for one tunnel.
pub(crate) type Place = OwnedSemaphorePermit;

/// Takes a place, or 503.
pub(crate) fn place() -> Result<Place, ApiError> {
    static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(TUNNELS)));
    let place = Arc::clone(&PLACES).try_acquire_owned();
    place.map_err(|_| ApiError::service_unavailable("too many streams"))
}

/// Whether the request wants to become something else than HTTP.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let mut tokens = connection.flat_map(|value| value.split(','));
    headers.contains_key(header::UPGRADE) && tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// The headers of the request that is passed on.
pub(crate) fn headers_of(client: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in PASSED_ON {
        for value in client.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    let protocols = client.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let protocols: Vec<&str> = protocols
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty() && !protocol.starts_with(TOKEN_PROTOCOL))
        .collect();
    if let Ok(value) = HeaderValue::from_str(&protocols.join(", "))
        && !protocols.is_empty()
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    headers
}

/// Passes a 101 on, and joins both connections in the background.
pub(crate) fn join(client: OnUpgrade, answer: Response<Incoming>, place: Place) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in answer.headers() {
        if *name != header::DATE && *name != header::CONTENT_LENGTH {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    let other = hyper::upgrade::on(answer);
    tokio::spawn(async move {
        let _place = place;
        let both = async { tokio::try_join!(client, other) };
        match tokio::time::timeout(CHANGE_OVER, both).await {
            Ok(Ok((client, other))) => {
                if let Err(error) = copy(TokioIo::new(client), TokioIo::new(other)).await {
                    tracing::debug!(%error, "a tunnel broke");
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "a connection was not upgraded"),
            Err(_) => tracing::debug!("a connection was not upgraded in time"),
        }
    });
    response
}

/// Copies both ways until both sides end.
async fn copy<A, B>(client: A, other: B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let last = Mutex::new(Instant::now());
    let mut client = Heard { stream: client, last: &last };
    let mut other = Heard { stream: other, last: &last };
    let copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut other, BUFFER, BUFFER);
    tokio::select! {
        copied = copied => copied.map(drop),
        () = idle(&last) => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing passed for hours")),
    }
}

async fn idle(last: &Mutex<Instant>) {
    loop {
        let until = *last.lock().unwrap_or_else(PoisonError::into_inner) + IDLE;
        if Instant::now() >= until {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

/// A stream that notes when something came through it.
struct Heard<'a, S> {
    stream: S,
    last: &'a Mutex<Instant>,
}

// === impl Heard ===

impl<S: AsyncRead + Unpin> AsyncRead for Heard<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_closed_when_nothing_passes_for_hours() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let ((mut client, near), (far, mut pod)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let tunnel = tokio::spawn(async move { copy(near, far).await });
        let begun = Instant::now();
        for _ in 0..3 {
            tokio::time::sleep(IDLE / 2).await;
            client.write_all(b"x").await.expect("open");
            assert_eq!(pod.read_u8().await.expect("passed on"), b'x');
        }
        assert_eq!(tunnel.await.expect("no panic").expect_err("cut").kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), (IDLE * 5 / 2).as_secs());
    }

    #[test]
    fn credentials_are_not_passed_on() {
        let client = HeaderMap::from_iter([
            (header::AUTHORIZATION, HeaderValue::from_static("Bearer secret")),
            (header::COOKIE, HeaderValue::from_static("secret")),
            (header::CONNECTION, HeaderValue::from_static("keep-alive, Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static("base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel.k8s.io"),
            ),
        ]);
        assert!(is_wanted(&client));
        let passed = headers_of(&client);
        assert_eq!(passed[header::SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        assert_eq!(passed[header::UPGRADE], "websocket");
        assert_eq!(passed.len(), 3);
        assert!(!is_wanted(&HeaderMap::new()));
    }
}
