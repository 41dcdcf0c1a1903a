//! HTTP(S) checks of probes and hooks.
//!
//! In: address, path, headers. Out: a finding. A certificate is not verified: the address says who is meant.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Finding, joined, port_of};

const MAX_BODY: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;

/// A request to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpCheck {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl HttpCheck {
    pub(crate) fn of(
        action: &HTTPGetAction,
        container: &Container,
        pod_ip: Option<IpAddr>,
    ) -> Result<Self, String> {
        let port = port_of(&action.port, container).ok_or_else(|| format!("no port {:?}", action.port))?;
        let host = action.host.clone().filter(|h| !h.is_empty());
        let host = host
            .or_else(|| pod_ip.map(|ip| ip.to_string()))
            .ok_or_else(|| "the pod has no address".to_owned())?;
        let path = action.path.clone().unwrap_or_default();
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let headers = action.http_headers.iter().flatten();
        Ok(Self {
            https: action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host,
            port,
            path,
            headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
        })
    }

    fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", joined(&self.host, self.port), self.path)
    }
}

/// Success is a status from 200 to 399; redirects on the same host are followed.
pub(crate) async fn get(check: &HttpCheck, timeout: Duration) -> Finding {
    let url = check.url();
    match tokio::time::timeout(timeout, follow(check.clone())).await {
        Ok(Ok((status, _))) if (200..400).contains(&status) => Finding::Success,
        Ok(Ok((status, _))) => Finding::Failure(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Err(reason)) => Finding::Failure(format!("Get \"{url}\": {reason}")),
        Err(_) => Finding::Failure(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

async fn follow(mut check: HttpCheck) -> Result<(u16, Bytes), String> {
    for _ in 0..=MAX_REDIRECTS {
        let (status, location, body) = once(&check).await?;
        let target = match location {
            Some(target) if matches!(status, 301 | 302 | 303 | 307 | 308) => target,
            _ => return Ok((status, body)),
        };
        let uri: Uri = target.parse().map_err(|e| format!("redirect to {target:?}: {e}"))?;
        let host = uri.host().map(|h| h.trim_matches(['[', ']']).to_owned());
        if host.is_some_and(|host| host != check.host) {
            // Elsewhere is not probed: that the container answered is enough.
            return Ok((status, body));
        }
        if let Some(scheme) = uri.scheme_str() {
            check.https = scheme == "https";
            check.port = uri.port_u16().unwrap_or(if check.https { 443 } else { 80 });
        }
        check.path = uri.path_and_query().map_or("/".to_owned(), ToString::to_string);
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

async fn once(check: &HttpCheck) -> Result<(u16, Option<String>, Bytes), String> {
    let tcp = TcpStream::connect((check.host.as_str(), check.port))
        .await
        .map_err(|e| format!("dial tcp {}: connect: {e}", joined(&check.host, check.port)))?;
    if check.https {
        let name = ServerName::try_from(check.host.clone()).map_err(|e| e.to_string())?;
        let tls = TlsConnector::from(tls_config()?).connect(name, tcp).await.map_err(|e| e.to_string())?;
        exchange(check, TokioIo::new(tls)).await
    } else {
        exchange(check, TokioIo::new(tcp)).await
    }
}

async fn exchange<T>(check: &HttpCheck, io: T) -> Result<(u16, Option<String>, Bytes), String>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|e| e.to_string())?;
    let connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let own = |name: &str| check.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let mut request = Request::get(&check.path);
    if !own("host") {
        request = request.header("Host", joined(&check.host, check.port));
    }
    if !own("user-agent") {
        request = request.header("User-Agent", "kube-probe/1.37");
    }
    if !own("accept") {
        request = request.header("Accept", "*/*");
    }
    request = request.header("Connection", "close");
    for (name, value) in &check.headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = response.status().as_u16();
    let location = response.headers().get("location").and_then(|v| v.to_str().ok()).map(str::to_owned);
    // Only so much is read as a message may show; a longer body is no failure.
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
    drop(connection);
    Ok((status, location, body.map(http_body_util::Collected::to_bytes).unwrap_or_default()))
}

fn tls_config() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|e| e.to_string())?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth();
            Ok(Arc::new(config))
        })
        .clone()
}

/// Probes ask "does it answer", not "who are you".
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request after the other with the given heads.
    async fn server(answers: Vec<&'static str>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 2048];
                let _read = stream.read(&mut buffer).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        port
    }

    fn check(port: u16) -> HttpCheck {
        HttpCheck {
            https: false,
            host: "127.0.0.1".into(),
            port,
            path: "/healthz".into(),
            headers: vec![("X-Own".into(), "1".into())],
        }
    }

    #[tokio::test]
    async fn statuses_below_400_are_success_and_redirects_on_the_host_are_followed() {
        let ok = "HTTP/1.1 204 No Content\r\n\r\n";
        let timeout = Duration::from_secs(5);
        let port =
            server(vec!["HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n", ok]).await;
        assert_eq!(get(&check(port), timeout).await, Finding::Success);
        let port = server(vec!["HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"]).await;
        let failure = Finding::Failure("HTTP probe failed with statuscode: 503".into());
        assert_eq!(get(&check(port), timeout).await, failure);
        let away = "HTTP/1.1 301 Moved\r\nLocation: http://192.0.2.1/x\r\nContent-Length: 0\r\n\r\n";
        let port = server(vec![away]).await;
        assert_eq!(get(&check(port), timeout).await, Finding::Success);
    }

    #[tokio::test]
    async fn a_refused_connection_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let finding = get(&check(port), Duration::from_secs(5)).await;
        assert!(matches!(finding, Finding::Failure(m) if m.contains("dial tcp 127.0.0.1")));
    }
}
