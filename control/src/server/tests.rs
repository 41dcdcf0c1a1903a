//! Real clients over real TLS on loopback.

use std::net::SocketAddr;

use http::StatusCode;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use xebec_apiserver::authn::Peer;

use super::*;
use crate::pki::{self, Pki, Subject, Usage};
use crate::tls;

/// Answers with the user's name; `/slow` only once released.
#[derive(Clone)]
struct Names {
    entered: Arc<Notify>,
    release: watch::Receiver<bool>,
}

impl Handler for Names {
    async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        if request.uri().path() == "/slow" {
            self.entered.notify_one();
            let mut release = self.release.clone();
            release.wait_for(|released| *released).await.unwrap();
        }
        let peer = request.extensions().get::<Peer>().unwrap();
        let name = peer.certificate.as_ref().map_or("nobody", |user| &user.name).to_owned();
        Response::new(Full::from(name).map_err(|never| match never {}).boxed_unsync())
    }
}

struct Fixture {
    pki: Pki,
    address: SocketAddr,
    stop: CancellationToken,
    entered: Arc<Notify>,
    release: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

async fn start(limits: Limits) -> Fixture {
    tls::install_provider();
    let folder = tempfile::tempdir().unwrap();
    let pki = pki::prepare(folder.path(), pki::serving_subject("cluster.local", []), pki::LIFE).unwrap();
    let listener = bind(Some("127.0.0.1".parse().unwrap()), 0).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (release, released) = watch::channel(false);
    let stop = CancellationToken::new();
    let entered = Arc::new(Notify::new());
    let handler = Names { entered: entered.clone(), release: released };
    let server = tokio::spawn(serve(
        listener,
        tls::server(&pki, tls::Live::new(&pki.serving).unwrap()).unwrap(),
        limits,
        handler,
        stop.clone(),
    ));
    Fixture { pki, address, stop, entered, release, server, _folder: folder }
}

impl Fixture {
    async fn connect(&self, user: Option<&str>, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.pki.authority.certificate().as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match user {
            None => config.with_no_client_auth(),
            Some(name) => {
                let subject = Subject { name: name.into(), groups: Vec::new(), usage: Usage::Client };
                let pair = self.pki.authority.issue(&subject, pki::LIFE).unwrap();
                let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = "kubernetes.default.svc".try_into().unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn get(&self, user: Option<&str>, protocol: &[u8], path: &str) -> (StatusCode, String) {
        let io = TokioIo::new(self.connect(user, protocol).await.unwrap());
        let request = Request::get(format!("https://kubernetes{path}")).body(Empty::<Bytes>::new()).unwrap();
        let response = if protocol == b"h2" {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.into()).unwrap())
    }
}

#[tokio::test]
async fn request_carries_who_sent_it() {
    let fixture = start(Limits::default()).await;
    for protocol in [&b"h2"[..], b"http/1.1"] {
        assert_eq!(fixture.get(Some("jane"), protocol, "/").await, (StatusCode::OK, "jane".into()));
        assert_eq!(fixture.get(None, protocol, "/").await, (StatusCode::OK, "nobody".into()));
    }
}

#[tokio::test]
async fn certificate_of_another_authority_is_refused() {
    let (ours, theirs) = (start(Limits::default()).await, start(Limits::default()).await);
    let subject = Subject { name: "jane".into(), groups: Vec::new(), usage: Usage::Client };
    let pair = theirs.pki.authority.issue(&subject, pki::LIFE).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ours.pki.authority.certificate().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let stream = TcpStream::connect(ours.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    // TLS 1.3 tells a client only after its own handshake is done.
    let mut answer = Vec::new();
    assert!(stream.read_to_end(&mut answer).await.is_err(), "{answer:?}");
}

#[tokio::test]
async fn silent_clients_are_cut() {
    let limits = Limits {
        handshake: Duration::from_millis(50),
        request_head: Duration::from_millis(50),
        ..Limits::default()
    };
    let fixture = start(limits).await;
    let mut mute = TcpStream::connect(fixture.address).await.unwrap();
    assert_eq!(mute.read(&mut [0; 64]).await.unwrap_or(0), 0, "no handshake");
    let mut slow = fixture.connect(None, b"http/1.1").await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    let mut answer = Vec::new();
    // A cut without a word and a 408 are both fine; an answer is not.
    let cut = tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut answer)).await;
    cut.expect("cut in time").ok();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{answer:?}");
}

#[tokio::test]
async fn stopping_lets_requests_finish_and_refuses_new_ones() {
    let fixture = start(Limits::default()).await;
    for protocol in [&b"h2"[..], b"http/1.1"] {
        assert_eq!(fixture.get(None, protocol, "/").await.0, StatusCode::OK);
    }
    let slow = fixture.get(None, b"h2", "/slow");
    let stop = async {
        fixture.entered.notified().await;
        fixture.stop.cancel();
        while TcpStream::connect(fixture.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        fixture.release.send_replace(true);
    };
    let (answer, ()) = tokio::join!(slow, stop);
    assert_eq!(answer, (StatusCode::OK, "nobody".into()));
    fixture.server.await.unwrap();
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let fixture = start(Limits { drain: Duration::from_millis(50), ..Limits::default() }).await;
    let idle = fixture.connect(None, b"http/1.1").await.unwrap();
    fixture.stop.cancel();
    fixture.server.await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn taken_port_is_one_sentence() {
    let held = bind(Some("127.0.0.1".parse().unwrap()), 0).await.unwrap();
    let port = held.local_addr().unwrap().port();
    let refused = bind(Some("127.0.0.1".parse().unwrap()), port).await.unwrap_err().to_string();
    let wanted = format!("cannot listen on 127.0.0.1:{port}: another process has the port");
    assert!(refused.starts_with(&wanted), "{refused}");
}
