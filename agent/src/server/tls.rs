//! TLS of the kubelet API: which certificate it shows, whom it believes.
//!
//! In: PEM files. Out: a server configuration; the user that a client's certificate names.

use std::path::PathBuf;
use std::sync::Arc;

use super::authn::User;
use anyhow::{Context, Result};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Files of the serving side.
pub struct ServerFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client_ca: PathBuf,
}

/// # Errors
/// Names the file that cannot be used.
pub fn config(files: &ServerFiles) -> Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&files.client_ca)
        .with_context(|| format!("--client-ca {}", files.client_ca.display()))?
    {
        roots.add(certificate?)?;
    }
    // Without a certificate a client is told 401 instead of a broken handshake.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .with_context(|| format!("--client-ca {}", files.client_ca.display()))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&files.certificate)
        .with_context(|| format!("--tls-cert {}", files.certificate.display()))?
        .collect();
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("--tls-key {}", files.key.display()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain?, key)
        .with_context(|| format!("{} does not fit {}", files.certificate.display(), files.key.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Common name and organisations of the client's certificate, which the handshake has verified; `None` without one.
pub fn client(connection: &ServerConnection) -> Option<User> {
    let certificate = connection.peer_certificates()?.first()?;
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().ok().map(str::to_owned);
    let mut groups: Vec<String> = subject.iter_organization().filter_map(text).collect();
    groups.push("system:authenticated".to_owned());
    let name = subject.iter_common_name().next().and_then(text)?;
    Some(User { name, groups, ..User::default() })
}
