//! The way to the API server.
//!
//! In: a kubeconfig file, or what a pod is given. Out: a client with timeouts that suit an agent, which goes over to new
//! credentials when the file is written anew: certificates are renewed while watches go on. A watch that began with the
//! old ones ends by itself within five minutes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use http::{Request, Response, Uri};
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::service_fn;

use crate::client_counts::ClientCounts;
use crate::connection;
use crate::stamp::Stamp;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Watches are quiet for long, but bookmarks come every minute: a connection silent for longer than this is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(295);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A way in, and whom it trusts.
pub struct Access {
    pub client: Client,
    /// The cluster's CAs, DER.
    pub roots: Vec<Vec<u8>>,
    pub counts: ClientCounts,
}

/// A client that follows a file.
struct Followed {
    kubeconfig: PathBuf,
    held: Mutex<Held>,
}

struct Held {
    client: Client,
    stamp: Option<Stamp>,
}

/// # Errors
/// When the file is missing or names no usable credentials.
pub async fn access(kubeconfig: &Path) -> Result<Access> {
    // Before it is read: a write in between is seen at the first request.
    let stamp = Stamp::of(kubeconfig);
    let config = config(kubeconfig).await?;
    let (roots, namespace) = (config.root_cert.clone().unwrap_or_default(), config.default_namespace.clone());
    let counts = ClientCounts::new(host(&config));
    let client = open(config).with_context(|| format!("--kubeconfig {}", kubeconfig.display()))?;
    let followed =
        Arc::new(Followed { kubeconfig: kubeconfig.to_owned(), held: Mutex::new(Held { client, stamp }) });
    let counted = counts.clone();
    let service = service_fn(move |request: Request<Body>| {
        let (followed, counts) = (Arc::clone(&followed), counted.clone());
        async move { send(&followed.current().await, request, &counts).await }
    });
    Ok(Access { client: Client::new(service, namespace), roots, counts })
}

/// What a pod is given: its service account's token, which is read anew as it is renewed.
///
/// # Errors
/// Outside of a pod.
pub fn access_of_pod() -> Result<Access> {
    let config = kube::Config::incluster().context("using the pod's service account")?;
    let (roots, namespace) = (config.root_cert.clone().unwrap_or_default(), config.default_namespace.clone());
    let counts = ClientCounts::new(host(&config));
    let (client, counted) = (open(config).context("using the pod's service account")?, counts.clone());
    let service = service_fn(move |request: Request<Body>| {
        let (client, counts) = (client.clone(), counted.clone());
        async move { send(&client, request, &counts).await }
    });
    Ok(Access { client: Client::new(service, namespace), roots, counts })
}

/// The API server's URL as a pod is told it.
///
/// # Errors
/// Outside of a pod.
pub fn server_of_pod() -> Result<Uri> {
    Ok(kube::Config::incluster().context("using the pod's service account")?.cluster_url)
}

/// Whether this process runs in a pod that has a service account.
pub fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        && Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()
}

/// The API server's URL in a kubeconfig.
///
/// # Errors
/// When the file is missing or names none.
pub fn server_of(kubeconfig: &Path) -> Result<Uri> {
    let why = || format!("reading {}", kubeconfig.display());
    let file = Kubeconfig::read_from(kubeconfig).with_context(why)?;
    let current = file.current_context.unwrap_or_default();
    let context = file.contexts.into_iter().find(|context| context.name == current).and_then(|c| c.context);
    let name = context.with_context(|| format!("{}: it has no current context", why()))?.cluster;
    let cluster = file.clusters.into_iter().find(|cluster| cluster.name == name).and_then(|c| c.cluster);
    let server = cluster.and_then(|cluster| cluster.server);
    let server = server.with_context(|| format!("{}: cluster {name:?} names no server", why()))?;
    server.parse().with_context(|| format!("{}: {server:?} is no URL", why()))
}

/// Host and port of the API server, as counts name it.
fn host(config: &kube::Config) -> &str {
    config.cluster_url.authority().map_or("", http::uri::Authority::as_str)
}

async fn send(
    client: &Client,
    request: Request<Body>,
    counts: &ClientCounts,
) -> kube::Result<Response<Body>> {
    let method = request.method().clone();
    let answer = client.send(request).await;
    counts.answered(&method, answer.as_ref().ok().map(|answer| answer.status().as_u16()));
    answer
}

async fn config(kubeconfig: &Path) -> Result<kube::Config> {
    let why = || format!("--kubeconfig {}", kubeconfig.display());
    let file = Kubeconfig::read_from(kubeconfig).with_context(why)?;
    kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.with_context(why)
}

fn open(mut config: kube::Config) -> kube::Result<Client> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.write_timeout = Some(WRITE_TIMEOUT);
    connection::client(config)
}

// === impl Followed ===

impl Followed {
    /// The client of the file as it is now. A file that cannot be used changes nothing.
    async fn current(&self) -> Client {
        let stamp = Stamp::of(&self.kubeconfig);
        {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if stamp.is_none() || held.stamp == stamp {
                return held.client.clone();
            }
            // Said once for a bad file, and opened once for a good one, whoever else asks meanwhile.
            held.stamp = stamp;
        }
        let opened = match config(&self.kubeconfig).await {
            Ok(config) => open(config).map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match opened {
            Ok(client) => {
                tracing::info!(kubeconfig = %self.kubeconfig.display(), "new credentials are used");
                held.client = client;
            }
            Err(error) => tracing::warn!("the old credentials are used: {error:#}"),
        }
        held.client.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(token: &str) -> String {
        crate::kubeconfig::of_token("https://192.0.2.1:6443", "", token).to_string()
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again_and_a_bad_one_is_not_used() {
        crate::run::install_crypto();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let write = |text: &str| crate::private_file::write(&path, text.as_bytes()).unwrap();
        let text = |token: &str| kubeconfig(token).replace("\"certificate-authority-data\":\"\",", "");
        write(&text("a"));
        assert_eq!(server_of(&path).unwrap().host(), Some("192.0.2.1"));
        let client = open(config(&path).await.unwrap()).unwrap();
        let held = Mutex::new(Held { client, stamp: Stamp::of(&path) });
        let followed = Followed { kubeconfig: path.clone(), held };
        let stamp = |followed: &Followed| followed.held.lock().unwrap().stamp;
        let first = stamp(&followed);
        followed.current().await;
        assert_eq!(stamp(&followed), first);
        write(&text("b"));
        followed.current().await;
        assert_ne!(stamp(&followed), first);
        write("no kubeconfig");
        followed.current().await;
        std::fs::remove_file(&path).unwrap();
        followed.current().await;
    }
}
