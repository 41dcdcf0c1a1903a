//! The DNS process: sockets, watches, shutdown.
//!
//! In: [`DnsConfig`], an API client. Out: answers on UDP and TCP until shut down.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use hickory_server::Server;
use kube::Client;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::forward::Forwarder;
use crate::handler::Handler;
use crate::sync::{self, Synced};
use crate::zone::Zone;

/// An idle TCP connection is closed after this.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers waiting for a slow TCP client.
const TCP_ANSWERS: usize = 32;

/// Settings of a node's DNS.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Where to answer, UDP and TCP.
    pub listen: Vec<SocketAddr>,
    pub cluster_domain: String,
    /// Resolvers for all other names.
    pub resolv_conf: PathBuf,
}

/// Serves until shut down.
///
/// # Errors
/// When a socket cannot be had or the settings make no sense.
pub async fn run(client: Client, config: DnsConfig, shutdown: CancellationToken) -> Result<()> {
    let domain = labels_of(&config.cluster_domain)?;
    let resolv_conf = std::fs::read_to_string(&config.resolv_conf)
        .map_err(|source| Error::ResolvConf { path: config.resolv_conf.clone(), source })?;
    let forwarder = Forwarder::new(&resolv_conf, &config.listen);
    let zone = Arc::new(RwLock::new(Zone::new(domain.clone())));
    let synced = Synced::default();
    let handler = Handler::new(Arc::clone(&zone), synced.clone(), forwarder, &domain)?;
    let mut server = Server::new(handler);
    for address in &config.listen {
        let failed = |source| Error::Listen { address: *address, source };
        server.register_socket(UdpSocket::bind(address).await.map_err(failed)?);
        server.register_listener(TcpListener::bind(address).await.map_err(failed)?, TCP_IDLE, TCP_ANSWERS);
    }
    tokio::spawn(sync::services(client.clone(), Arc::clone(&zone), synced.clone(), shutdown.clone()));
    tokio::spawn(sync::slices(client, zone, synced, shutdown.clone()));
    tracing::info!(listen = ?config.listen, domain = config.cluster_domain, "answering DNS");
    tokio::select! {
        ended = server.block_until_done() => ended.map_err(|e| Error::Serve(e.to_string())),
        () = shutdown.cancelled() => Ok(()),
    }
}

fn labels_of(domain: &str) -> Result<Vec<String>> {
    let complaints = xebec_api::names::dns1123_subdomain(domain);
    if complaints.is_empty() {
        Ok(domain.split('.').map(str::to_owned).collect())
    } else {
        Err(Error::Domain { domain: domain.to_owned(), reason: complaints.join("; ") })
    }
}
