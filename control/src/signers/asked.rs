//! What a request asks to have certified.
//!
//! In: a CertificateSigningRequest. Out: the subject and the names in it.

use std::net::IpAddr;

use anyhow::{Context, Result};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509CertificationRequest};

/// The content of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub pem: String,
    pub name: String,
    pub organizations: Vec<String>,
    pub dns: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// It asks for names of other sorts: mail addresses, URIs.
    pub other_names: bool,
}

// === impl Asked ===

impl Asked {
    pub fn of(request: &CertificateSigningRequest) -> Result<Self> {
        let pem = super::text(request)?;
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).context("the request is no PEM")?;
        let (_, parsed) =
            X509CertificationRequest::from_der(&block.contents).context("the request cannot be read")?;
        let subject = &parsed.certification_request_info.subject;
        let text =
            |name: &x509_parser::x509::AttributeTypeAndValue<'_>| name.as_str().map(str::to_owned).ok();
        let mut asked = Self {
            name: subject.iter_common_name().find_map(text).unwrap_or_default(),
            organizations: subject.iter_organization().filter_map(text).collect(),
            ..Self::default()
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => asked.dns.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => match address(bytes) {
                        Some(address) => asked.addresses.push(address),
                        None => asked.other_names = true,
                    },
                    _ => asked.other_names = true,
                }
            }
        }
        asked.pem = pem;
        Ok(asked)
    }

    pub fn has_names(&self) -> bool {
        self.other_names || !self.dns.is_empty() || !self.addresses.is_empty()
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(ipv4) = <[u8; 4]>::try_from(bytes) {
        return Some(ipv4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}
