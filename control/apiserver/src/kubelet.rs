//! The way to a node's kubelet API.
//!
//! In: a node, a path. Out: the kubelet's answer as a stream. One connection per request: they are few and long.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::{self, Body};
use crate::config::ApiServerConfig;
use crate::dial;
use crate::meta;
use crate::status::ApiError;

/// Time to connect and to shake hands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time until the answer begins.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_PORT: u16 = 10250;

/// Where a kubelet listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    address: IpAddr,
    port: u16,
}

// === impl Target ===

impl Target {
    /// From the status the kubelet wrote.
    pub(crate) fn of(node: &Value) -> Result<Self, ApiError> {
        let of_type = |wanted: &str| {
            meta::items(node, &["status", "addresses"])
                .filter(|address| meta::text(address, &["type"]) == wanted)
                .find_map(|address| meta::text(address, &["address"]).parse().ok())
        };
        let address = of_type("InternalIP").or_else(|| of_type("ExternalIP")).ok_or_else(|| {
            ApiError::internal(format!("node {:?} has told no address of its kubelet", meta::name(node)))
        })?;
        let port = meta::at(node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"])
            .and_then(Value::as_u64)
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0);
        Ok(Self { address, port: port.unwrap_or(DEFAULT_PORT) })
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn authority(&self) -> String {
        std::net::SocketAddr::new(self.address, self.port).to_string()
    }
}

/// Sends a GET and answers as soon as the head of the answer is there.
pub(crate) async fn get(
    config: &ApiServerConfig,
    target: &Target,
    path: &str,
) -> Result<Response<Body>, ApiError> {
    let request = Request::get(path).body(body::empty());
    let request = request.map_err(|error| ApiError::internal(format!("{path:?}: {error}")))?;
    Ok(send(config, target, request).await?.map(|body| body.map_err(Into::into).boxed_unsync()))
}

/// Sends a request whose URI is a path; the answer may be an upgrade.
pub(crate) async fn send(
    config: &ApiServerConfig,
    target: &Target,
    request: Request<Body>,
) -> Result<Response<Incoming>, ApiError> {
    let authority = target.authority();
    let url = format!("https://{authority}{}", request.uri());
    let refuse = |what: &str| ApiError::internal(format!("error dialing backend: {url}: {what}"));
    let Some(tls) = config.kubelet_tls.clone() else {
        return Err(refuse("this API server has no credentials for kubelets"));
    };
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect(target, tls))
        .await
        .map_err(|_| refuse(&format!("dial tcp {authority}: i/o timeout")))?
        .map_err(|error| refuse(&format!("dial tcp {authority}: {error}")))?;
    exchange(stream, &authority, request).await.map_err(|why| refuse(&why))
}

/// One request over a connection of its own, and the head of the answer.
pub(crate) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    authority: &str,
    mut request: Request<Body>,
) -> Result<Response<Incoming>, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with the answer's body, or with the body dropped by a client that left.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a node or a pod ended");
        }
    });
    let host = HeaderValue::from_str(authority).map_err(|error| error.to_string())?;
    request.headers_mut().insert(header::HOST, host);
    tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request))
        .await
        .map_err(|_| "it did not answer in time".to_owned())?
        .map_err(|error| error.to_string())
}

async fn connect(
    target: &Target,
    tls: Arc<rustls::ClientConfig>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = dial::connect((target.address, target.port).into()).await?;
    TlsConnector::from(tls).connect(ServerName::from(target.address), stream).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_target_is_what_the_node_says() {
        let node = json!({"metadata": {"name": "n"}, "status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "fd00::1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10300}},
        }});
        assert_eq!(Target::of(&node).expect("an address").authority(), "[fd00::1]:10300");
        let silent = json!({"metadata": {"name": "n"}, "status": {}});
        assert_eq!(Target::of(&silent).expect_err("none").code(), 500);
    }
}
