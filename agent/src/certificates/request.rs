//! Asking the cluster for a certificate.
//!
//! In: who asks, a key, how long to wait. Out: the signed certificate, or why there is none. A request that is made again
//! for the same key (after a restart) is the same request.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType};
use sha2::{Digest, Sha256};

use super::pair::Pair;

pub(super) const NODE_PREFIX: &str = "system:node:";
pub(super) const NODES: &str = "system:nodes";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What is to be certified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The node as a client of the API server.
    Client { node: String },
    /// The node's kubelet API under its names and addresses.
    Serving { node: String, names: Vec<String>, addresses: Vec<IpAddr> },
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Unsigned {
    #[error("signing request {name} was refused: {why}")]
    Refused { name: String, why: String },
    #[error(
        "signing request {name} was not signed within {waited:?}: `kubectl certificate approve {name}` approves it"
    )]
    Waited { name: String, waited: Duration },
    #[error("signing request {name} is gone")]
    Gone { name: String },
    #[error("the API server does not take a signing request: {0}")]
    NotTaken(kube::Error),
    #[error("no answer to a signing request within {CALL_TIMEOUT:?}")]
    NoAnswer,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

// === impl Subject ===

impl Subject {
    fn signer(&self) -> &'static str {
        match self {
            Self::Client { .. } => CLIENT_SIGNER,
            Self::Serving { .. } => SERVING_SIGNER,
        }
    }

    fn usages(&self) -> Vec<String> {
        let purpose = match self {
            Self::Client { .. } => "client auth",
            Self::Serving { .. } => "server auth",
        };
        vec!["digital signature".to_owned(), purpose.to_owned()]
    }

    fn node(&self) -> &str {
        let (Self::Client { node } | Self::Serving { node, .. }) = self;
        node
    }

    /// The request as PEM.
    fn pem(&self, key: &KeyPair) -> Result<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, NODES);
        params.distinguished_name.push(DnType::CommonName, format!("{NODE_PREFIX}{}", self.node()));
        if let Self::Serving { names, addresses, .. } = self {
            for name in names {
                let name = name.as_str().try_into().with_context(|| format!("{name:?} is no host name"))?;
                params.subject_alt_names.push(SanType::DnsName(name));
            }
            params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        }
        let request = params.serialize_request(key).context("cannot make a signing request")?;
        request.pem().context("cannot make a signing request")
    }

    fn object(&self, key: &KeyPair) -> Result<CertificateSigningRequest> {
        Ok(CertificateSigningRequest {
            metadata: ObjectMeta { name: Some(name(self, key)), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(self.pem(key)?.into_bytes()),
                signer_name: self.signer().to_owned(),
                usages: Some(self.usages()),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        })
    }
}

/// The same for the same key and purpose, so that a restart finds what it has asked for.
fn name(subject: &Subject, key: &KeyPair) -> String {
    let mut digest = Sha256::new();
    digest.update(key.subject_public_key_info());
    digest.update(subject.signer());
    digest.update(subject.node());
    let digest: [u8; 32] = digest.finalize().into();
    let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    match subject {
        Subject::Client { .. } => format!("node-csr-{hex}"),
        Subject::Serving { .. } => format!("csr-{hex}"),
    }
}

/// Asks, and waits until it is signed.
///
/// # Errors
/// [`Unsigned`] says whether it is worth trying again.
pub async fn request(
    client: &Client,
    subject: &Subject,
    key: &KeyPair,
    wait: Duration,
) -> Result<Pair, Unsigned> {
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let object = subject.object(key)?;
    let name = object.name_any();
    let params = PostParams::default();
    let created = tokio::time::timeout(CALL_TIMEOUT, requests.create(&params, &object)).await;
    match created.map_err(|_| Unsigned::NoAnswer)? {
        Ok(_) => tracing::info!(request = name, signer = subject.signer(), "a certificate is asked for"),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
        Err(error) => return Err(Unsigned::NotTaken(error)),
    }
    let signed = tokio::time::timeout(wait, signed(requests, &name)).await;
    let certificate = signed.map_err(|_| Unsigned::Waited { name: name.clone(), waited: wait })??;
    Ok(Pair::new(certificate, key)?)
}

async fn signed(requests: Api<CertificateSigningRequest>, name: &str) -> Result<String, Unsigned> {
    let changes = watcher::watch_object(requests, name).default_backoff();
    let mut changes = std::pin::pin!(changes);
    while let Some(change) = changes.next().await {
        match change {
            Ok(Some(request)) => {
                if let Some(outcome) = outcome(&request) {
                    return outcome;
                }
            }
            Ok(None) => return Err(Unsigned::Gone { name: name.to_owned() }),
            Err(error) => tracing::debug!(%error, "the watch of a signing request goes on"),
        }
    }
    Err(anyhow!("the watch of signing request {name} ended").into())
}

/// The end of a request, once it has one.
fn outcome(request: &CertificateSigningRequest) -> Option<Result<String, Unsigned>> {
    let status = request.status.as_ref()?;
    let name = request.name_any();
    let ends = |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    if let Some(condition) = ends("Denied").or_else(|| ends("Failed")) {
        let why = condition.message.clone().filter(|message| !message.is_empty());
        let why = why.or_else(|| condition.reason.clone()).unwrap_or_else(|| condition.type_.clone());
        return Some(Err(Unsigned::Refused { name, why }));
    }
    let certificate = status.certificate.as_ref().filter(|certificate| !certificate.0.is_empty())?;
    let text = String::from_utf8(certificate.0.clone()).context("the signed certificate is no PEM");
    Some(text.map_err(Unsigned::from))
}

#[cfg(test)]
mod tests {
    use super::super::pair::generate;
    use super::*;
    use serde_json::json;
    use x509_parser::prelude::{FromDer, X509CertificationRequest};

    fn with_status(status: &serde_json::Value) -> CertificateSigningRequest {
        serde_json::from_value(json!({
            "metadata": {"name": "r"}, "spec": {"request": "", "signerName": "s"}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_request_ends_when_it_is_signed_denied_or_failed() {
        assert!(outcome(&with_status(&json!({}))).is_none());
        assert!(
            outcome(&with_status(&json!({"conditions": [{"type": "Approved", "status": "True"}]}))).is_none()
        );
        let signed = outcome(&with_status(&json!({"certificate": "cGVt"}))).unwrap();
        assert_eq!(signed.unwrap(), "pem");
        for (kind, why) in [("Denied", "not you"), ("Failed", "not this")] {
            let condition = json!({"conditions": [{"type": kind, "status": "True", "message": why}]});
            let refused = outcome(&with_status(&condition)).unwrap().unwrap_err().to_string();
            assert_eq!(refused, format!("signing request r was refused: {why}"));
        }
    }

    #[test]
    fn a_request_says_what_the_signers_look_for() {
        let key = generate().unwrap();
        let serving = Subject::Serving {
            node: "n1".into(),
            names: vec!["h1".into()],
            addresses: vec!["192.0.2.1".parse().unwrap()],
        };
        let object = serving.object(&key).unwrap();
        assert_eq!(object.spec.signer_name, "kubernetes.io/kubelet-serving");
        assert_eq!(
            object.spec.usages.as_deref(),
            Some(&["digital signature".to_owned(), "server auth".into()][..])
        );
        let (_, pem) = x509_parser::pem::parse_x509_pem(&object.spec.request.0).unwrap();
        let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        let subject = parsed.certification_request_info.subject.to_string();
        assert_eq!(subject, "O=system:nodes, CN=system:node:n1");
        assert!(parsed.verify_signature().is_ok());
    }

    #[test]
    fn the_same_key_asks_once_for_each_purpose() {
        let (key, other) = (generate().unwrap(), generate().unwrap());
        let client = Subject::Client { node: "n1".into() };
        let serving = Subject::Serving { node: "n1".into(), names: Vec::new(), addresses: Vec::new() };
        assert_eq!(name(&client, &key), name(&client, &key));
        assert_ne!(name(&client, &key), name(&client, &other));
        assert_ne!(name(&client, &key), name(&serving, &key));
        assert!(name(&client, &key).starts_with("node-csr-"));
    }
}
