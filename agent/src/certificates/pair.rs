//! A certificate and its key.
//!
//! In: PEM. Out: what the certificate says of its validity and its subject, whether the two belong together.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::schedule::Validity;

const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY-----";

/// Both PEM. Its text is never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair")
    }
}

// === impl Pair ===

impl Pair {
    /// Puts a certificate to its key.
    ///
    /// # Errors
    /// When it is another key's.
    pub fn new(certificate: String, key: &KeyPair) -> Result<Self> {
        let pem = pem(&certificate)?;
        let (_, parsed) =
            X509Certificate::from_der(&pem.contents).context("the certificate cannot be read")?;
        ensure!(
            parsed.public_key().raw == key.subject_public_key_info(),
            "the certificate is for another key"
        );
        Ok(Self { certificate, key: key.serialize_pem() })
    }

    /// Certificate, then key, as they lie in one file.
    pub fn text(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }

    /// # Errors
    /// When the certificate cannot be read.
    pub fn validity(&self) -> Result<Validity> {
        validity(&self.certificate)
    }

    /// Whether its names and addresses are exactly these.
    pub(super) fn serves(&self, names: &[String], addresses: &[IpAddr]) -> bool {
        let wanted: BTreeSet<String> =
            names.iter().cloned().chain(addresses.iter().map(ToString::to_string)).collect();
        said(&self.certificate).is_some_and(|said| said == wanted)
    }

    /// Whether it is the client certificate of this node.
    pub fn is_of_node(&self, node: &str) -> bool {
        let subject = || -> Option<(String, Vec<String>)> {
            let pem = pem(&self.certificate).ok()?;
            let (_, parsed) = X509Certificate::from_der(&pem.contents).ok()?;
            let text =
                |name: &x509_parser::x509::AttributeTypeAndValue<'_>| name.as_str().map(str::to_owned).ok();
            let name = parsed.subject().iter_common_name().find_map(text)?;
            Some((name, parsed.subject().iter_organization().filter_map(text).collect()))
        };
        subject().is_some_and(|(name, groups)| {
            name == format!("{}{node}", super::request::NODE_PREFIX) && groups == [super::request::NODES]
        })
    }
}

/// Both out of a file that [`Pair::text`] was written to; `None` where they are not.
pub(super) fn of_text(text: &str) -> Option<Pair> {
    let (certificate, key) = text.split_at(text.find(KEY_BEGINS)?);
    Pair::new(certificate.to_owned(), &KeyPair::from_pem(key).ok()?).ok()
}

/// # Errors
/// When the text holds no certificate.
pub(super) fn validity(certificate: &str) -> Result<Validity> {
    let pem = pem(certificate)?;
    let (_, parsed) = X509Certificate::from_der(&pem.contents).context("the certificate cannot be read")?;
    let validity = parsed.validity();
    Ok(Validity { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() })
}

/// Names and addresses a certificate is for.
fn said(certificate: &str) -> Option<BTreeSet<String>> {
    let pem = pem(certificate).ok()?;
    let (_, parsed) = X509Certificate::from_der(&pem.contents).ok()?;
    let Some(extension) = parsed.subject_alternative_name().ok()? else { return Some(BTreeSet::new()) };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
        },
        _ => None,
    });
    Some(names.collect())
}

/// A fresh key of the kind that upstream's kubelet makes.
pub fn generate() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")
}

fn pem(text: &str) -> Result<Pem> {
    let found = Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok);
    found.into_iter().find(|block| block.label == "CERTIFICATE").context("there is no certificate in it")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, date_time_ymd};

    /// A self-signed pair of a node, valid in the given years.
    pub(in crate::certificates) fn made(node: &str, years: (i32, i32)) -> (Pair, KeyPair) {
        let key = generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        let certificate = params.self_signed(&key).unwrap().pem();
        (Pair::new(certificate, &key).unwrap(), key)
    }

    #[test]
    fn a_pair_belongs_together_and_names_its_node() {
        let (pair, _) = made("n1", (2020, 2021));
        assert!(pair.is_of_node("n1") && !pair.is_of_node("n2"));
        assert_eq!(
            pair.validity().unwrap(),
            Validity { not_before: 1_577_836_800, not_after: 1_609_459_200 }
        );
        let other = generate().unwrap();
        let refused = Pair::new(pair.certificate.clone(), &other).unwrap_err().to_string();
        assert_eq!(refused, "the certificate is for another key");
        assert_eq!(format!("{pair:?}"), "Pair");
    }

    #[test]
    fn the_certificate_is_found_before_or_after_its_key() {
        let (pair, _) = made("n1", (2020, 2021));
        for text in [pair.text(), format!("{}{}", pair.key, pair.certificate)] {
            assert!(validity(&text).is_ok());
        }
        assert!(validity(&pair.key).is_err());
    }
}
