//! Connections to a control plane that a test holds in its own hands: bare TLS, with or without a certificate.
//!
//! In: a [`Control`]'s CA, which the test may also sign with. Out: streams on which anything can be said.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::control::Control;

/// Groups that may do anything.
const MASTERS: &str = "system:masters";

/// A certificate and its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Makes connections to one control plane.
#[derive(Clone)]
pub struct Dialer {
    address: std::net::SocketAddr,
    config: ClientConfig,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// An administrator's certificate, changed by the test before it is signed by the cluster's CA.
///
/// # Panics
/// When the control plane has no CA yet.
pub fn identity(control: &Control, change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let pki = control.data_dir().join("pki");
    let read = |file: &str| std::fs::read_to_string(pki.join(file)).expect("the control plane has run");
    let ca_key = KeyPair::from_pem(&read("ca.key")).expect("a key");
    let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), ca_key).expect("a CA");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "tester");
    params.distinguished_name.push(DnType::OrganizationName, MASTERS);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    Identity {
        chain: vec![certificate.der().clone()],
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    }
}

// === impl Dialer ===

impl Dialer {
    /// # Panics
    /// When the control plane has no CA yet.
    pub fn new(control: &Control, identity: Option<Identity>, protocol: &[u8]) -> Self {
        let pem = std::fs::read(control.data_dir().join("pki/ca.crt")).expect("the control plane has run");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem).expect("a certificate")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("known versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                config.with_client_auth_cert(identity.chain, identity.key).expect("a key that fits")
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Self { address: control.address(), config }
    }

    /// One more connection; its socket may be changed before it is used.
    ///
    /// # Errors
    /// What the socket or the handshake says.
    pub async fn over(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let name = "kubernetes.default.svc".try_into().map_err(std::io::Error::other)?;
        TlsConnector::from(Arc::new(self.config.clone())).connect(name, stream).await
    }

    /// # Errors
    /// What the socket or the handshake says.
    pub async fn dial(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        self.over(stream).await
    }
}

/// Everything until the other side ends it, at most for so long; and whether it did.
pub async fn read_to_end(stream: &mut TlsStream<TcpStream>, limit: Duration) -> (String, bool) {
    let mut all = Vec::new();
    let mut piece = vec![0; 16 << 10];
    let ended = tokio::time::timeout(limit, async {
        while let Ok(length @ 1..) = stream.read(&mut piece).await {
            all.extend_from_slice(&piece[..length]);
        }
    });
    let ended = ended.await.is_ok();
    (String::from_utf8_lossy(&all).into_owned(), ended)
}
