//! What a request asks to have certified.
//!
//! In: a CertificateSigningRequest. Out: the subject and the names in it, as the rules judge them and as they are
//! signed: a certificate is made of what is read here, never of the request once more, since two readers of one request
//! may differ (the first of two common names is not the last).

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{DistinguishedName, DnType, SanType};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509CertificationRequest};
use x509_parser::x509::X509Name;

const LABEL: &str = "CERTIFICATE REQUEST";

/// The content of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub der: Vec<u8>,
    pub name: String,
    pub organizations: Vec<String>,
    pub dns: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub mails: Vec<String>,
    pub uris: Vec<String>,
    /// What it asks for and no certificate from here can say.
    pub fault: Option<&'static str>,
}

// === impl Asked ===

impl Asked {
    pub fn of(request: &CertificateSigningRequest) -> Result<Self> {
        let (_, block) =
            x509_parser::pem::parse_x509_pem(&request.spec.request.0).context("the request is no PEM")?;
        if block.label != LABEL {
            bail!("the request is no PEM encoded certificate request");
        }
        Self::from_der(block.contents)
    }

    fn from_der(der: Vec<u8>) -> Result<Self> {
        let (rest, parsed) =
            X509CertificationRequest::from_der(&der).context("the request cannot be read")?;
        if !rest.is_empty() {
            bail!("something follows the request");
        }
        let mut asked = Self::default();
        asked.read_subject(&parsed.certification_request_info.subject);
        for extension in parsed.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                asked.read_name(name);
            }
        }
        drop(parsed);
        asked.der = der;
        Ok(asked)
    }

    fn read_subject(&mut self, subject: &X509Name<'_>) {
        let mut names = 0;
        for attribute in subject.iter_attributes() {
            let Ok(text) = attribute.as_str() else {
                self.fault = Some("subject: an attribute is no readable text");
                continue;
            };
            let kind = attribute.attr_type();
            if *kind == OID_X509_COMMON_NAME {
                text.clone_into(&mut self.name);
                names += 1;
            } else if *kind == OID_X509_ORGANIZATION_NAME {
                self.organizations.push(text.to_owned());
            } else {
                self.fault = Some("subject: only a common name and an organization can be certified");
            }
        }
        if names != 1 {
            self.fault = Some("subject: exactly one common name is needed");
        } else if self.organizations.len() > 1 {
            self.fault = Some("subject: at most one organization can be certified");
        }
    }

    fn read_name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns.push((*name).to_owned()),
            GeneralName::RFC822Name(mail) => self.mails.push((*mail).to_owned()),
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::IPAddress(bytes) => match address(bytes) {
                Some(address) => self.addresses.push(address),
                None => self.fault = Some("subject alternative names: an address is neither IPv4 nor IPv6"),
            },
            _ => {
                self.fault =
                    Some("subject alternative names: only DNS names, addresses, mail addresses and URIs");
            }
        }
    }

    pub fn has_names(&self) -> bool {
        self.has_other_names() || !self.dns.is_empty() || !self.addresses.is_empty()
    }

    /// It asks for names that no server has: mail addresses, URIs.
    pub fn has_other_names(&self) -> bool {
        !self.mails.is_empty() || !self.uris.is_empty()
    }

    /// The subject as it is signed.
    pub fn subject(&self) -> DistinguishedName {
        let mut subject = DistinguishedName::new();
        for organization in &self.organizations {
            subject.push(DnType::OrganizationName, organization);
        }
        subject.push(DnType::CommonName, &self.name);
        subject
    }

    /// The names besides the subject as they are signed.
    pub fn alternative_names(&self) -> Result<Vec<SanType>> {
        let text = |text: &String| text.as_str().try_into().with_context(|| format!("{text:?} is no name"));
        let mut names = Vec::new();
        for name in &self.dns {
            names.push(SanType::DnsName(text(name)?));
        }
        for mail in &self.mails {
            names.push(SanType::Rfc822Name(text(mail)?));
        }
        for uri in &self.uris {
            names.push(SanType::URI(text(uri)?));
        }
        names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        Ok(names)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(ipv4) = <[u8; 4]>::try_from(bytes) {
        return Some(ipv4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
    const ORGANIZATION: &[u64] = &[2, 5, 4, 10];

    /// A request whose subject holds these attributes in this order.
    pub(crate) fn asked(subject: &[(DnType, &str)], names: Vec<SanType>) -> Asked {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, text) in subject {
            params.distinguished_name.push(kind.clone(), *text);
        }
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        let request = params.serialize_request(&key).unwrap();
        Asked::from_der(request.der().to_vec()).unwrap()
    }

    #[test]
    fn only_a_subject_of_one_name_can_be_certified() {
        let name = || (DnType::CommonName, "system:node:n1");
        let nodes = || (DnType::OrganizationName, "system:nodes");
        let good = asked(&[nodes(), name()], Vec::new());
        assert_eq!((&*good.name, good.fault), ("system:node:n1", None));
        assert_eq!(good.organizations, ["system:nodes"]);
        let second = |kind: &[u64], text| (DnType::CustomDnType(kind.to_vec()), text);
        for (subject, told) in [
            (
                vec![name(), second(COMMON_NAME, "system:kube-controller-manager"), nodes()],
                "exactly one common name",
            ),
            (
                vec![second(COMMON_NAME, "system:kube-controller-manager"), name(), nodes()],
                "exactly one common name",
            ),
            (vec![nodes()], "exactly one common name"),
            (vec![name(), nodes(), second(ORGANIZATION, "system:masters")], "at most one organization"),
            (vec![name(), nodes(), (DnType::OrganizationalUnitName, "x")], "only a common name"),
        ] {
            let asked = asked(&subject, Vec::new());
            assert!(asked.fault.is_some_and(|fault| fault.contains(told)), "{subject:?}: {:?}", asked.fault);
        }
    }

    #[test]
    fn names_are_signed_as_they_were_read() {
        let names = vec![
            SanType::DnsName("n1".try_into().unwrap()),
            SanType::Rfc822Name("a@b".try_into().unwrap()),
            SanType::URI("spiffe://a/b".try_into().unwrap()),
            SanType::IpAddress("192.0.2.1".parse().unwrap()),
        ];
        let asked = asked(&[(DnType::CommonName, "jane")], names.clone());
        assert_eq!(asked.alternative_names().unwrap(), names);
        assert!(asked.has_names() && asked.has_other_names());
    }
}
