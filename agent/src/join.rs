//! Joining a cluster: from a token to the certificate a node is known by.
//!
//! In: where the API server is, a bootstrap token and whom to trust, or a bootstrap kubeconfig. Out: a kubeconfig with the
//! node's own certificate. What can be tried again is, for a while; a wrong token or another CA ends it at once. The key
//! is on disk before it is asked for, so that a restart goes on with the same request.

mod cluster_info;
mod token;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use http::Uri;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use rcgen::KeyPair;
use tokio::time::Instant;

use crate::certificates::{self, Pair, Subject, Unsigned};
use crate::{cluster, kubeconfig, private_file};

pub use token::{CaHash, Token};

/// From the first try to the signed certificate.
const JOIN_WITHIN: Duration = Duration::from_secs(15 * 60);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The key while its certificate is not signed yet, below the state folder.
const KEY: &str = "pki/kubelet-client.key.tmp";

/// How a machine becomes a node. Looked at only where there is no usable kubeconfig yet.
#[derive(Clone, Debug, Default, Args)]
pub struct JoinArgs {
    /// URL of the API server to join, such as https://192.0.2.1:6443
    #[arg(long, env = "XEBEC_SERVER", value_name = "URL", value_parser = server_url, requires = "token")]
    pub server: Option<Uri>,
    /// Bootstrap token, as `xebec-control token create` or `kubeadm token create` prints it
    #[arg(long, env = "XEBEC_TOKEN", hide_env_values = true, value_name = "TOKEN", requires = "server")]
    pub token: Option<Token>,
    /// What the public key of the cluster's CA is; may be repeated
    #[arg(
        long,
        env = "XEBEC_CA_CERT_HASH",
        value_name = "sha256:HEX",
        value_delimiter = ',',
        requires = "token"
    )]
    pub ca_cert_hash: Vec<CaHash>,
    /// The cluster's CA, in place of its hash
    #[arg(
        long,
        env = "XEBEC_CA_FILE",
        value_name = "FILE",
        requires = "token",
        conflicts_with = "ca_cert_hash"
    )]
    pub ca_file: Option<PathBuf>,
    /// A kubeconfig that may ask for a node's certificate, in place of server and token
    #[arg(long, env = "XEBEC_BOOTSTRAP_KUBECONFIG", value_name = "FILE", conflicts_with = "server")]
    pub bootstrap_kubeconfig: Option<PathBuf>,
}

/// Whom to ask, and with what.
struct Bootstrap {
    server: String,
    ca: String,
    client: Client,
}

/// Trying again does not help.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Hopeless(anyhow::Error);

// === impl JoinArgs ===

impl JoinArgs {
    pub fn is_given(&self) -> bool {
        self.token.is_some() || self.bootstrap_kubeconfig.is_some()
    }

    /// Says what is missing.
    pub fn check(&self) -> Result<()> {
        if self.token.is_some() && self.ca_cert_hash.is_empty() && self.ca_file.is_none() {
            bail!(
                "--token needs --ca-cert-hash or --ca-file: without either anybody could pretend to be the cluster"
            );
        }
        Ok(())
    }

    /// Where the API server is, as far as flags say.
    ///
    /// # Errors
    /// When the bootstrap kubeconfig cannot be used.
    pub fn server(&self) -> Result<Option<Uri>> {
        match (&self.server, &self.bootstrap_kubeconfig) {
            (Some(server), _) => Ok(Some(server.clone())),
            (None, Some(file)) => cluster::server_of(file).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// Asks for a certificate and writes the kubeconfig that holds it.
///
/// # Errors
/// When the cluster refuses, is another one, or does not answer for long.
pub async fn join(args: &JoinArgs, node: &str, state_dir: &Path, kubeconfig: &Path) -> Result<()> {
    args.check()?;
    tracing::info!(node, "joining the cluster");
    let deadline = Instant::now() + JOIN_WITHIN;
    let key_path = state_dir.join(KEY);
    let key = key(&key_path)?;
    let bootstrap = again(deadline, "finding the cluster", || bootstrap(args)).await?;
    let subject = Subject::Client { node: node.to_owned() };
    let pair: Pair = again(deadline, "asking for a certificate", || async {
        let left = deadline.saturating_duration_since(Instant::now());
        let asked = certificates::request(&bootstrap.client, &subject, &key, left).await;
        asked.map_err(|error| match error {
            Unsigned::NotTaken(kube::Error::Api(status)) if matches!(status.code, 400..=422) => {
                Hopeless(anyhow!(
                    "the API server takes no request for a certificate: {} ({}); is the token still valid?",
                    status.message,
                    status.code
                ))
                .into()
            }
            error @ (Unsigned::Refused { .. } | Unsigned::Waited { .. }) => Hopeless(error.into()).into(),
            error => anyhow::Error::from(error),
        })
    })
    .await?;
    let user = format!("system:node:{node}");
    let text = kubeconfig::of_node(&bootstrap.server, &bootstrap.ca, &user, &pair)?;
    private_file::write(kubeconfig, text.as_bytes())?;
    // It is in the kubeconfig now; where it stays it is overwritten by the next join.
    std::fs::remove_file(&key_path).ok();
    tracing::info!(node, kubeconfig = %kubeconfig.display(), "joined the cluster");
    Ok(())
}

/// The key of an unfinished join, or a new one, which is on disk before it is used.
fn key(path: &Path) -> Result<KeyPair> {
    let held = std::fs::read_to_string(path).ok().and_then(|text| KeyPair::from_pem(&text).ok());
    if let Some(key) = held {
        return Ok(key);
    }
    let key = certificates::generate()?;
    private_file::write(path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

/// Tries until it works, it is hopeless, or the time is over.
async fn again<T, F: Future<Output = Result<T>>>(
    deadline: Instant,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if error.is::<Hopeless>() => return Err(error.context(what.to_owned())),
            Err(error) => error,
        };
        if Instant::now() + pause > deadline {
            return Err(error.context(format!("{what}: given up after {JOIN_WITHIN:?}")));
        }
        tracing::warn!("{what}: {error:#}; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn bootstrap(args: &JoinArgs) -> Result<Bootstrap> {
    if let Some(file) = &args.bootstrap_kubeconfig {
        return of_kubeconfig(file).await.map_err(|error| Hopeless(error).into());
    }
    let (Some(server), Some(token)) = (&args.server, &args.token) else {
        bail!("there is nothing to join with: give --server and --token");
    };
    let server = server.to_string().trim_end_matches('/').to_owned();
    let ca = match &args.ca_file {
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("--ca-file {}", file.display()))
            .map_err(Hopeless)?,
        None => discover(&server, token, &args.ca_cert_hash).await?,
    };
    let client = client(kubeconfig::of_token(&server, &ca, &token.bearer())).await?;
    Ok(Bootstrap { server, ca, client })
}

async fn of_kubeconfig(file: &Path) -> Result<Bootstrap> {
    let why = || format!("--bootstrap-kubeconfig {}", file.display());
    let config = Kubeconfig::read_from(file).with_context(why)?;
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .with_context(why)?;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let roots = config.root_cert.clone().with_context(|| format!("{} names no CA", why()))?;
    let ca = roots.iter().map(|der| pem(der)).collect();
    Ok(Bootstrap { server, ca, client: Client::try_from(config).with_context(why)? })
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// Reads the CA from the server itself; then reads it again from a server that has proved to have that CA.
async fn discover(server: &str, token: &Token, hashes: &[CaHash]) -> Result<String> {
    let mut strangers = kube::Config::new(server.parse().context("--server is no URL")?);
    strangers.accept_invalid_certs = true;
    let ca = trusted(&bounded(strangers)?, token, hashes).await?;
    let mut known = kube::Config::new(server.parse().context("--server is no URL")?);
    known.root_cert = Some(ders(&ca)?);
    let again =
        trusted(&bounded(known)?, token, hashes).await.context("asking again, over a trusted connection")?;
    if again != ca {
        bail!("cluster-info changed while it was read");
    }
    Ok(ca)
}

async fn trusted(client: &Client, token: &Token, hashes: &[CaHash]) -> Result<String> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    let map = tokio::time::timeout(CALL_TIMEOUT, maps.get("cluster-info"))
        .await
        .with_context(|| format!("no answer within {CALL_TIMEOUT:?}"))?
        .context("reading cluster-info")?;
    let data = map.data.unwrap_or_default();
    // A token of this moment may not have its signature yet: everything else will not change.
    let fresh = !data.contains_key(&format!("jws-kubeconfig-{}", token.id));
    cluster_info::trusted_ca(&data, token, hashes)
        .map_err(|error| if fresh { error } else { Hopeless(error).into() })
}

fn ders(pem: &str) -> Result<Vec<Vec<u8>>> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    certificates.map(|der| Ok(der.context("the CA cannot be read")?.to_vec())).collect()
}

async fn client(config: serde_json::Value) -> Result<Client> {
    let config: Kubeconfig = serde_json::from_value(config).context("a kubeconfig cannot be made")?;
    bounded(kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)
}

fn bounded(mut config: kube::Config) -> Result<Client> {
    config.connect_timeout = Some(CALL_TIMEOUT);
    config.read_timeout = Some(JOIN_WITHIN);
    config.write_timeout = Some(CALL_TIMEOUT);
    Ok(Client::try_from(config)?)
}

fn server_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|_| format!("{text:?} is no URL"))?;
    if url.scheme_str() != Some("https") || url.host().is_none_or(str::is_empty) {
        return Err(format!("{text:?} does not begin with https:// and a host"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_alone_is_no_reason_to_trust() {
        let token = Some("abcdef.0123456789abcdef".parse().unwrap());
        let alone = JoinArgs { token: token.clone(), ..JoinArgs::default() };
        assert!(alone.check().unwrap_err().to_string().contains("--ca-cert-hash or --ca-file"));
        let with_file = JoinArgs { token, ca_file: Some("ca.crt".into()), ..JoinArgs::default() };
        assert!(with_file.check().is_ok() && with_file.is_given());
        assert!(!JoinArgs::default().is_given());
    }

    #[test]
    fn the_key_of_an_unfinished_join_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY);
        let first = key(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(key(&path).unwrap().serialize_pem(), first.serialize_pem());
        std::fs::write(&path, "damaged").unwrap();
        assert_ne!(key(&path).unwrap().serialize_pem(), first.serialize_pem());
    }

    #[test]
    fn certificates_are_written_as_pem() {
        let key = certificates::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        assert_eq!(ders(&pem(ca.der())).unwrap(), [ca.der().to_vec()]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_hopeless_ends_at_once_and_the_rest_in_time() {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut tries = 0;
        let outcome: Result<()> = again(deadline, "joining", || {
            tries += 1;
            async { Err(Hopeless(anyhow!("refused")).into()) }
        })
        .await;
        assert_eq!((tries, format!("{:#}", outcome.unwrap_err())), (1, "joining: refused".to_owned()));
        let mut tries = 0;
        let outcome: Result<()> = again(deadline, "joining", || {
            tries += 1;
            async { bail!("nobody there") }
        })
        .await;
        assert!((10..30).contains(&tries), "{tries}");
        assert!(Instant::now() <= deadline && outcome.is_err());
    }
}
