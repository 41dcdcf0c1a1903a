//! The cluster's keys: what is in `pki/` of the data folder.
//!
//! In: the folder, the names this control plane is reached by. Out: keys and certificates, made when absent, made anew
//! when they no longer fit or are about to expire: at start and, by [`Pki::renewed`], while the process runs. The CA and
//! the service-account key are never replaced.

mod authority;
mod current;
mod validity;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use xebec_apiserver::authn::MASTERS_GROUP;
use xebec_apiserver::token::SigningKey;

use crate::files::{self, Access};

pub use authority::Authority;
pub use validity::{Validity, now};

/// Names of certificates and their files.
pub const CA: &str = "ca";
pub const SERVING: &str = "apiserver";
pub const KUBELET_CLIENT: &str = "apiserver-kubelet-client";

/// How long a certificate lives that nobody asked to live shorter.
pub const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// What a certificate is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Common name: the user.
    pub name: String,
    /// Organizations: the groups.
    pub groups: Vec<String>,
    pub usage: Usage,
}

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server { names: Vec<String>, addresses: Vec<IpAddr> },
}

/// All of them.
pub struct Pki {
    pub authority: Arc<Authority>,
    /// What the API server shows to clients.
    pub serving: Pair,
    /// What the API server shows to kubelets.
    pub kubelet_client: Pair,
    /// Signs service-account tokens.
    pub service_accounts: Arc<SigningKey>,
    folder: PathBuf,
    serving_subject: Subject,
    life: Duration,
}

/// Loads what is there and makes the rest.
///
/// `life` is how long the API server's own certificates live.
pub fn prepare(folder: &Path, serving: Subject, life: Duration) -> Result<Pki> {
    let authority = Arc::new(Authority::load_or_create(folder)?);
    Ok(Pki {
        serving: pair(folder, SERVING, &authority, &serving, life)?,
        kubelet_client: pair(folder, KUBELET_CLIENT, &authority, &kubelet_client_subject(), life)?,
        service_accounts: Arc::new(service_account_key(folder)?),
        authority,
        folder: folder.to_owned(),
        serving_subject: serving,
        life,
    })
}

fn kubelet_client_subject() -> Subject {
    Subject {
        name: "kube-apiserver-kubelet-client".into(),
        groups: vec![MASTERS_GROUP.into()],
        usage: Usage::Client,
    }
}

// === impl Pki ===

impl Pki {
    /// Makes anew what is about to expire; says of `serving` and `kubelet_client` whether they are others now.
    pub fn renewed(&mut self) -> Result<(bool, bool)> {
        let serving = pair(&self.folder, SERVING, &self.authority, &self.serving_subject, self.life)?;
        let client =
            pair(&self.folder, KUBELET_CLIENT, &self.authority, &kubelet_client_subject(), self.life)?;
        let changed = (
            serving.certificate != self.serving.certificate,
            client.certificate != self.kubelet_client.certificate,
        );
        (self.serving, self.kubelet_client) = (serving, client);
        Ok(changed)
    }
}

/// The API server's own certificate: every name and address a client may use.
pub fn serving_subject(cluster_domain: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Subject {
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
    let mut names: Vec<String> = names.map(str::to_owned).into();
    names.push(format!("kubernetes.default.svc.{cluster_domain}"));
    let mut all = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for address in addresses {
        if !all.contains(&address) && !address.is_unspecified() {
            all.push(address);
        }
    }
    Subject {
        name: "kube-apiserver".into(),
        groups: Vec::new(),
        usage: Usage::Server { names, addresses: all },
    }
}

/// A certificate from the folder, if it still says what it should, else a new one.
fn pair(folder: &Path, name: &str, authority: &Authority, subject: &Subject, life: Duration) -> Result<Pair> {
    let (certificate_path, key_path) =
        (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    if let (Some(certificate), Some(key)) = (files::read(&certificate_path)?, files::read(&key_path)?) {
        let pair = Pair { certificate, key };
        match current::check(&pair, subject, authority) {
            Ok(()) => return Ok(pair),
            Err(reason) => tracing::info!(certificate = name, %reason, "certificate is made anew"),
        }
    }
    let pair = authority.issue(subject, life)?;
    // A crash between the two leaves a pair that does not match, which the check above finds.
    files::write(&key_path, pair.key.as_bytes(), Access::Owner)?;
    files::write(&certificate_path, pair.certificate.as_bytes(), Access::All)?;
    Ok(pair)
}

fn service_account_key(folder: &Path) -> Result<SigningKey> {
    let path = folder.join("sa.key");
    let pem = match files::read(&path)? {
        Some(pem) => pem,
        None => {
            let pem = SigningKey::generate_pem()?;
            files::write(&path, pem.as_bytes(), Access::Owner)?;
            pem
        }
    };
    SigningKey::from_pem(&pem).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests;
