//! TLS at the front door.
//!
//! In: the serving pair and the CA. Out: a server that speaks HTTP/2 and HTTP/1.1 and asks for, but does not insist on,
//! a client certificate of the cluster's CA; and what the API server talks to kubelets with. Both show what [`Live`] holds
//! at each handshake.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result};
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::pki::{Pair, Pki};

/// A certificate that is renewed while it is used.
#[derive(Debug)]
pub struct Live {
    shown: RwLock<Arc<CertifiedKey>>,
}

/// One cryptography library in the process, said once and for all.
pub fn install_provider() {
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub fn server(pki: &Pki, serving: Arc<Live>) -> Result<ServerConfig> {
    let provider = provider();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pki)?), provider.clone())
        .allow_unauthenticated()
        .build()
        .context("cannot verify client certificates")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// How the API server reaches kubelets.
pub fn kubelet_client(pki: &Pki, shown: Arc<Live>) -> Result<ClientConfig> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(pki)?)
        .with_client_cert_resolver(shown))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(pki: &Pki) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pki.authority.certificate().as_bytes()) {
        roots.add(certificate.context("the cluster CA cannot be read")?)?;
    }
    Ok(roots)
}

fn certified(pair: &Pair) -> Result<Arc<CertifiedKey>> {
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .context("a certificate cannot be read")?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).context("a key cannot be read")?;
    let certified =
        CertifiedKey::from_der(chain, key, &provider()).context("a certificate does not fit its key")?;
    Ok(Arc::new(certified))
}

// === impl Live ===

impl Live {
    pub fn new(pair: &Pair) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { shown: RwLock::new(certified(pair)?) }))
    }

    /// From the next handshake on the pair is shown.
    pub fn replace(&self, pair: &Pair) -> Result<()> {
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = certified(pair)?;
        Ok(())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Live {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
