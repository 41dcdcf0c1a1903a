//! TLS at the front door.
//!
//! In: the serving pair and the CA. Out: a server that speaks HTTP/2 and HTTP/1.1 and asks for, but does not insist on,
//! a client certificate of the cluster's CA; and what the API server talks to kubelets with.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::pki::{Pair, Pki};

/// One cryptography library in the process, said once and for all.
pub fn install_provider() {
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub fn server(pki: &Pki) -> Result<ServerConfig> {
    let provider = provider();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pki)?), provider.clone())
        .allow_unauthenticated()
        .build()
        .context("cannot verify client certificates")?;
    let (chain, key) = identity(&pki.serving)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .context("the API server's certificate does not fit its key")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// How the API server reaches kubelets.
pub fn kubelet_client(pki: &Pki) -> Result<ClientConfig> {
    let (chain, key) = identity(&pki.kubelet_client)?;
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(pki)?)
        .with_client_auth_cert(chain, key)
        .context("the kubelet client certificate does not fit its key")
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

fn identity(pair: &Pair) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .context("a certificate cannot be read")?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).context("a key cannot be read")?;
    Ok((chain, key))
}
