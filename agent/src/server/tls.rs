//! TLS of the kubelet API: which certificate it shows, whom it believes.
//!
//! In: PEM files. Out: a server configuration; the user that a client's certificate names. A file that was written anew is
//! read at the next handshake: certificates are renewed without a restart.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::authn::User;
use anyhow::{Context, Result};
use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificates;
use crate::stamp::Stamp;

/// What the serving side shows.
#[derive(Clone, Debug)]
pub enum Shown {
    /// Files that somebody else keeps; they must be there.
    Given { certificate: PathBuf, key: PathBuf },
    /// One file that the cluster's signer fills. Until then the node vouches for itself: who checks certificates refuses
    /// it, who does not (other vendors' API servers, by default) is served.
    Signed { file: PathBuf, name: String, addresses: Vec<IpAddr> },
}

/// Whom the serving side believes.
#[derive(Clone, Debug)]
pub enum ClientCa {
    File(PathBuf),
    /// Certificates, DER.
    Known(Vec<Vec<u8>>),
}

/// The certificate that is shown, as its files are now.
struct Resolver {
    shown: Shown,
    held: Mutex<(Vec<Option<Stamp>>, Arc<CertifiedKey>)>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("shown", &self.shown).finish_non_exhaustive()
    }
}

/// # Errors
/// Names the file that cannot be used.
pub fn config(shown: Shown, client_ca: &ClientCa) -> Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // Without a certificate a client is told 401 instead of a broken handshake.
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_ca)?), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .context("--client-ca")?;
    let resolver = Resolver::new(shown)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(client_ca: &ClientCa) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match client_ca {
        ClientCa::File(file) => {
            let why = || format!("--client-ca {}", file.display());
            for certificate in CertificateDer::pem_file_iter(file).with_context(why)? {
                roots.add(certificate.with_context(why)?).with_context(why)?;
            }
        }
        ClientCa::Known(certificates) => {
            for certificate in certificates {
                roots.add(certificate.clone().into()).context("the cluster's CA")?;
            }
        }
    }
    Ok(roots)
}

// === impl Shown ===

impl Shown {
    fn files(&self) -> Vec<&Path> {
        match self {
            Self::Given { certificate, key } => vec![certificate, key],
            Self::Signed { file, .. } => vec![file],
        }
    }

    fn read(&self) -> Result<CertifiedKey> {
        let (certificate, key) = match self {
            Self::Given { certificate, key } => (certificate, key),
            Self::Signed { file, .. } => (file, file),
        };
        let why = || format!("the certificate {}", certificate.display());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
            .with_context(why)?
            .collect::<Result<_, _>>()
            .with_context(why)?;
        let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("the key {}", key.display()))?;
        certified(chain, key).with_context(why)
    }

    /// What is shown while there is no file.
    fn own(&self) -> Result<CertifiedKey> {
        let Self::Signed { name, addresses, .. } = self else { return self.read() };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{name}@self-signed"));
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.subject_alt_names.extend(name.as_str().try_into().map(SanType::DnsName));
        let key = certificates::generate()?;
        let certificate = params.self_signed(&key).context("cannot make a certificate")?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        certified(vec![certificate.der().clone()], key)
    }
}

fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey> {
    let certified = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?;
    certified.keys_match().context("it does not fit its key")?;
    Ok(certified)
}

// === impl Resolver ===

impl Resolver {
    fn new(shown: Shown) -> Result<Self> {
        let stamps = Self::stamps(&shown);
        let waits = matches!(shown, Shown::Signed { .. });
        let first = match shown.read() {
            Err(error) if waits => {
                tracing::debug!("the kubelet API vouches for itself: {error:#}");
                shown.own()?
            }
            read => read?,
        };
        Ok(Self { shown, held: Mutex::new((stamps, Arc::new(first))) })
    }

    fn stamps(shown: &Shown) -> Vec<Option<Stamp>> {
        shown.files().into_iter().map(Stamp::of).collect()
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let stamps = Self::stamps(&self.shown);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 != stamps {
            held.0 = stamps;
            match self.shown.read() {
                Ok(new) => {
                    tracing::info!("the kubelet API shows a new certificate");
                    held.1 = Arc::new(new);
                }
                // Half of a pair is there, or it was taken away: what was good goes on.
                Err(error) => tracing::warn!("the kubelet API keeps its certificate: {error:#}"),
            }
        }
        Arc::clone(&held.1)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_file;

    #[test]
    fn a_new_file_is_shown_at_the_next_handshake_and_a_bad_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kubelet-server-current.pem");
        let shown = Shown::Signed {
            file: file.clone(),
            name: "n1".into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
        };
        let resolver = Resolver::new(shown).unwrap();
        let own = resolver.current();
        assert_eq!(resolver.current().cert, own.cert, "it is made once");
        let pair = certificates::made("n1", (2020, 2200));
        private_file::write(&file, pair.text().as_bytes()).unwrap();
        let signed = resolver.current();
        assert_ne!(signed.cert, own.cert);
        private_file::write(&file, b"nonsense").unwrap();
        assert_eq!(resolver.current().cert, signed.cert);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(resolver.current().cert, signed.cert);
    }

    #[test]
    fn given_files_must_be_there_and_fit() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let given = || Shown::Given { certificate: path("tls.crt"), key: path("tls.key") };
        assert!(Resolver::new(given()).unwrap_err().to_string().contains("tls.crt"));
        let (pair, other) = (certificates::made("n1", (2020, 2200)), certificates::made("n1", (2020, 2200)));
        std::fs::write(path("tls.crt"), &pair.certificate).unwrap();
        std::fs::write(path("tls.key"), &other.key).unwrap();
        assert!(Resolver::new(given()).is_err(), "the key is another certificate's");
        std::fs::write(path("tls.key"), &pair.key).unwrap();
        assert!(Resolver::new(given()).is_ok());
    }
}
