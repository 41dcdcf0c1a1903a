//! Whether a certificate on disk is still the one that is wanted.
//!
//! In: certificate, key, what it should say, the CA. Out: yes, or the reason to make another.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::validity::{self, Validity};
use super::{Authority, Pair, Subject, Usage};

pub(super) fn check(pair: &Pair, subject: &Subject, authority: &Authority) -> Result<(), &'static str> {
    let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).map_err(|_| "it cannot be read")?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| "it cannot be read")?;
    let key = KeyPair::from_pem(&pair.key).map_err(|_| "its key cannot be read")?;
    if certificate.public_key().raw != key.subject_public_key_info() {
        return Err("its key is another one");
    }
    if validity::now() >= Validity::from(certificate.validity()).renewal() {
        return Err("it is about to expire");
    }
    let ca = CertificateDer::from_pem_slice(authority.certificate().as_bytes())
        .map_err(|_| "the CA cannot be read")?;
    let (_, ca) = X509Certificate::from_der(&ca).map_err(|_| "the CA cannot be read")?;
    let signer = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    });
    let ca_id = ca.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    if signer.is_none() || signer != ca_id {
        return Err("another CA signed it");
    }
    let usage = certificate.extended_key_usage().ok().flatten();
    if !usage.is_some_and(|usage| match subject.usage {
        Usage::Client => usage.value.client_auth,
        Usage::Server { .. } => usage.value.server_auth,
    }) {
        return Err("it is for another use");
    }
    if let Usage::Server { names, addresses } = &subject.usage
        && said(&certificate) != wanted(names, addresses)
    {
        return Err("its names or addresses have changed");
    }
    Ok(())
}

fn wanted(names: &[String], addresses: &[IpAddr]) -> BTreeSet<String> {
    names.iter().cloned().chain(addresses.iter().map(ToString::to_string)).collect()
}

pub(super) fn said(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return BTreeSet::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    });
    names.collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}
