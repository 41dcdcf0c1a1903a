//! A client of the API that costs little beside the server it measures.
//!
//! In: a kubeconfig. Out: connections on which one request after the other is answered: HTTP/1.1 over TLS with a client
//! certificate, bodies as bytes, nothing parsed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use kube::Config;
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// What is not answered by then is an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server and who one is to it.
#[derive(Clone)]
pub struct ApiServer {
    address: SocketAddr,
    tls: TlsConnector,
}

/// One connection. Ends when dropped.
pub struct ApiConnection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    driver: AbortHandle,
}

// === impl ApiServer ===

impl ApiServer {
    /// The server, the CA and the certificate that a kubeconfig names.
    ///
    /// # Errors
    /// When it names none, or the server by something else than its address.
    pub async fn from_kubeconfig(path: &Path) -> Result<Self> {
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?;
        let mut tls = config.rustls_client_config()?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let address = config.cluster_url.authority().context("the kubeconfig names a server")?;
        Ok(Self { address: address.as_str().parse()?, tls: TlsConnector::from(Arc::new(tls)) })
    }

    /// # Errors
    /// When the server does not take the connection.
    pub async fn connect(&self) -> Result<ApiConnection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = timeout(PATIENCE, self.tls.connect(name, stream)).await??;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer on it is told.
            connection.await.ok();
        });
        Ok(ApiConnection { sender, host: self.address.to_string(), driver: driver.abort_handle() })
    }
}

// === impl ApiConnection ===

impl ApiConnection {
    /// Sends a request and reads its answer to the end. JSON goes out (a merge patch, if it is one), JSON comes back.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let media_type =
            if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::USER_AGENT, "bench")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, media_type)
            .body(Full::new(body))?;
        let answer = async {
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let status = answer.status();
            Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer,
            Err(_) => bail!("{path}: no answer within {PATIENCE:?}"),
        }
    }

    /// As [`Self::call`], for what must succeed.
    ///
    /// # Errors
    /// When it does not, with what the server said.
    pub async fn must(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let (status, answer) = self.call(method, path, body).await?;
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&answer));
        Ok(answer)
    }
}

impl Drop for ApiConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
