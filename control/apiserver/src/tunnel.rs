//! Connections that stop being HTTP: passed on between a client and a kubelet or a pod, byte for byte.
//!
//! In: a client's request to upgrade, the way to whom it is for. Out: the other side's answer; after a 101 a task that
//! copies both ways until one side ends. Absent: what is spoken there.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::{self, Body};
use crate::status::ApiError;

/// Tunnels at a time. They outlive their requests and so are not among the requests at work.
const TUNNELS: usize = 2048;
/// How long the two sides may take to change over after the answer.
const CHANGE_OVER: Duration = Duration::from_secs(10);
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
                let (mut client, mut other) = (TokioIo::new(client), TokioIo::new(other));
                let copied =
                    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut other, BUFFER, BUFFER).await;
                if let Err(error) = copied {
                    tracing::debug!(%error, "a tunnel broke");
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "a connection was not upgraded"),
            Err(_) => tracing::debug!("a connection was not upgraded in time"),
        }
    });
    response
}

#[cfg(test)]
mod tests {
    use super::*;

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
