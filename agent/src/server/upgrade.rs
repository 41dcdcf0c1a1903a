//! From a request to a connection that carries streams: WebSocket or SPDY.
//!
//! In: the head of a request, the sub-protocols that are spoken. Out: the one to speak and the answer that says so, or
//! a refusal that names what is spoken.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::answer::{self, Body};

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const SPDY: &str = "SPDY/3.1";
/// Messages of a client; they send what they read at once, which is 32 KiB.
const LARGEST_MESSAGE: usize = 4 << 20;
/// A quiet connection is pinged so often: a kernel whose process is gone answers what is sent with a reset.
pub const PING: Duration = Duration::from_secs(10);

/// An upgrade both sides agree on.
#[derive(Debug, PartialEq, Eq)]
pub enum Upgrade {
    WebSocket { protocol: &'static str, accept: String },
    Spdy { protocol: &'static str },
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal(StatusCode, String);

// === impl Upgrade ===

impl Upgrade {
    /// The first of the client's sub-protocols that is spoken here.
    pub fn negotiate(
        headers: &HeaderMap,
        web_socket: &[&'static str],
        spdy: &[&'static str],
    ) -> Result<Self, Refusal> {
        let asked =
            |name: &HeaderName, wanted: &str| tokens(headers, name).any(|t| t.eq_ignore_ascii_case(wanted));
        let upgrade = |wanted: &str| asked(&header::CONNECTION, "upgrade") && asked(&header::UPGRADE, wanted);
        if upgrade("websocket") {
            let key = headers.get(header::SEC_WEBSOCKET_KEY);
            let key = key.ok_or_else(|| Refusal::bad("a WebSocket needs Sec-WebSocket-Key"))?;
            if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
                return Err(Refusal::bad("only version 13 of WebSocket is spoken"));
            }
            let protocol = choose(headers, &header::SEC_WEBSOCKET_PROTOCOL, web_socket)?;
            return Ok(Self::WebSocket { protocol, accept: derive_accept_key(key.as_bytes()) });
        }
        if upgrade(SPDY) {
            return Ok(Self::Spdy { protocol: choose(headers, &STREAM_PROTOCOL, spdy)? });
        }
        Err(Refusal::bad("unable to upgrade: missing upgrade headers in request"))
    }

    /// The answer after which the connection is no longer HTTP.
    pub fn response(&self) -> Response<Body> {
        let mut response = answer::empty(StatusCode::SWITCHING_PROTOCOLS);
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Self::WebSocket { protocol, accept } => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
                // base64, which every header can carry
                if let Ok(accept) = HeaderValue::from_str(accept) {
                    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
                }
            }
            Self::Spdy { protocol } => {
                headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
                headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
            }
        }
        response
    }
}

/// Limits of WebSocket connections.
pub fn web_socket_config() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(LARGEST_MESSAGE)).max_frame_size(Some(LARGEST_MESSAGE))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

fn choose(headers: &HeaderMap, name: &HeaderName, spoken: &[&'static str]) -> Result<&'static str, Refusal> {
    let chosen = tokens(headers, name).find_map(|asked| spoken.iter().find(|known| **known == asked));
    chosen.copied().ok_or_else(|| {
        let asked: Vec<&str> = tokens(headers, name).collect();
        let why = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {asked:?}, server accepts {spoken:?}"
        );
        Refusal(StatusCode::FORBIDDEN, why)
    })
}

// === impl Refusal ===

impl From<Refusal> for (StatusCode, String) {
    fn from(refusal: Refusal) -> Self {
        (refusal.0, refusal.1)
    }
}

impl Refusal {
    fn bad(why: &str) -> Self {
        Self(StatusCode::BAD_REQUEST, why.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn the_clients_first_protocol_that_is_spoken_is_chosen() {
        let asked = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "v6.channel.k8s.io, v5.channel.k8s.io, v4.channel.k8s.io"),
        ]);
        let upgrade = Upgrade::negotiate(&asked, &["v4.channel.k8s.io", "v5.channel.k8s.io"], &[]).unwrap();
        let response = upgrade.response();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        // The example of RFC 6455.
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        let refusal = Upgrade::negotiate(&asked, &["v1"], &[]).unwrap_err();
        assert_eq!(refusal.0, StatusCode::FORBIDDEN);
    }

    #[test]
    fn spdy_is_spoken_and_plain_requests_are_not_upgrades() {
        let asked = headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "portforward.k8s.io"),
        ]);
        let upgrade = Upgrade::negotiate(&asked, &[], &["portforward.k8s.io"]);
        assert_eq!(upgrade, Ok(Upgrade::Spdy { protocol: "portforward.k8s.io" }));
        let plain = Upgrade::negotiate(&HeaderMap::new(), &[], &["portforward.k8s.io"]).unwrap_err();
        assert_eq!(plain.0, StatusCode::BAD_REQUEST);
        let no_key = headers(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        assert!(Upgrade::negotiate(&no_key, &["v5.channel.k8s.io"], &[]).is_err());
    }
}
