//! The cluster's certificate authority.
//!
//! In: subjects. Out: certificates that every part of the cluster trusts.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
    date_time_ymd,
};

use super::{Pair, Subject, Usage};
use crate::files::{self, Access};

const COMMON_NAME: &str = "kubernetes";
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks behind ours accept a fresh certificate at once. One that lives for less than four times as long begins a quarter
/// of its life earlier: whoever renews at a share of it must not find it old when it is new.
const BACKDATE: Duration = Duration::from_secs(3600);
/// X.520's organizationName, for a second one: a name holds each attribute type once.
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];

pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

// === impl Authority ===

impl Authority {
    /// The authority of a control plane that has run before.
    pub fn load(folder: &Path) -> Result<Self> {
        match Self::find(folder)? {
            Some(authority) => Ok(authority),
            None => bail!(
                "there is no cluster CA in {}: `xebec-control run` with this data folder makes it",
                folder.display()
            ),
        }
    }

    pub(super) fn load_or_create(folder: &Path) -> Result<Self> {
        if let Some(authority) = Self::find(folder)? {
            return Ok(authority);
        }
        let key = generate()?;
        let mut params = params(COMMON_NAME, CA_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).context("cannot make the cluster CA")?.pem();
        // The key first: who sees the certificate may count on the key.
        files::write(&folder.join("ca.key"), key.serialize_pem().as_bytes(), Access::Owner)?;
        files::write(&folder.join("ca.crt"), certificate.as_bytes(), Access::All)?;
        Self::from_pem(certificate, key)
    }

    /// The CA's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A fresh key and a certificate for it.
    pub fn issue(&self, subject: &Subject, life: Duration) -> Result<Pair> {
        let key = generate()?;
        let mut params = params(&subject.name, life);
        match &subject.groups[..] {
            [] => {}
            [group] => params.distinguished_name.push(DnType::OrganizationName, group),
            [first, second] => {
                params.distinguished_name.push(DnType::OrganizationName, first);
                params.distinguished_name.push(DnType::CustomDnType(ORGANIZATION.to_vec()), second);
            }
            more => bail!("a certificate holds two groups at most, not {}", more.len()),
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        match &subject.usage {
            Usage::Client => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server { names, addresses } => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                for name in names {
                    let name =
                        name.as_str().try_into().with_context(|| format!("{name:?} is no host name"))?;
                    params.subject_alt_names.push(SanType::DnsName(name));
                }
                params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
            }
        }
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("cannot sign a certificate for {}", subject.name))?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// A certificate for the key of a request, which must prove to be the requester's, for these uses. Subject and
    /// names are those that were judged, never what is read from the request here.
    pub fn sign_request(
        &self,
        request: &[u8],
        subject: DistinguishedName,
        names: Vec<SanType>,
        usages: &[String],
        life: Duration,
    ) -> Result<String> {
        let asked = CertificateSigningRequestParams::from_der(&request.into())
            .context("the request cannot be read")?;
        let mut params = params("", life);
        params.distinguished_name = subject;
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        for usage in usages {
            match usage.as_str() {
                "digital signature" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "client auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
                "server auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
                other => bail!("certificates for the usage {other:?} are not signed here"),
            }
        }
        let request = CertificateSigningRequestParams { params, public_key: asked.public_key };
        Ok(request.signed_by(&self.issuer).context("the request cannot be signed")?.pem())
    }

    fn find(folder: &Path) -> Result<Option<Self>> {
        let (certificate_path, key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
        let Some(certificate) = files::read(&certificate_path)? else { return Ok(None) };
        let Some(key) = files::read(&key_path)? else {
            bail!("{} is there but {} is not", certificate_path.display(), key_path.display());
        };
        let key = KeyPair::from_pem(&key).with_context(|| format!("{} holds no key", key_path.display()))?;
        Self::from_pem(certificate, key)
            .with_context(|| format!("{} holds no certificate", certificate_path.display()))
            .map(Some)
    }

    fn from_pem(certificate: String, key: KeyPair) -> Result<Self> {
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
        Ok(Self { certificate, issuer })
    }
}

fn generate() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")
}

fn params(common_name: &str, life: Duration) -> CertificateParams {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = epoch + now.saturating_sub(BACKDATE.min(life / 4));
    params.not_after = epoch + now + life;
    params
}
