//! `xebec-agent dns`: the node's DNS, a process of its own that is not restarted with the agent.
//!
//! In: flags. Out: answers until SIGTERM. It uses the credentials that `xebec-agent run` keeps, and waits for the first.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Uri;
use tokio_util::sync::CancellationToken;
use xebec_dns::DnsConfig;

use crate::cli::DnsArgs;
use crate::place::Place;
use crate::{cluster, credentials, run};

/// A machine may take as long to join.
const CREDENTIALS_WITHIN: Duration = Duration::from_secs(20 * 60);
/// Where the `kube-dns` Service's slices point to, unless `run` was told otherwise.
const PORT: u16 = 10053;

pub fn main(args: &DnsArgs) -> Result<()> {
    run::install_crypto();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::spawn(run::cancel_on_signal(shutdown.clone()));
        serve(args, shutdown).await
    })
}

async fn serve(args: &DnsArgs, shutdown: CancellationToken) -> Result<()> {
    let kubeconfig = args.place.kubeconfig();
    let (client, server) = if !kubeconfig.exists() && cluster::in_pod() {
        (cluster::access_of_pod()?.client, cluster::server_of_pod()?)
    } else {
        tokio::select! {
            found = credentials::wait_for(&kubeconfig, CREDENTIALS_WITHIN) => found?,
            () = shutdown.cancelled() => return Ok(()),
        }
        (cluster::access(&kubeconfig).await?.client, cluster::server_of(&kubeconfig)?)
    };
    let config = DnsConfig {
        listen: listen(args, &server).await?,
        cluster_domain: args.cluster_domain.clone(),
        resolv_conf: args.resolv_conf.clone(),
    };
    xebec_dns::run(client, config, shutdown).await.context("serving DNS")
}

async fn listen(args: &DnsArgs, server: &Uri) -> Result<Vec<SocketAddr>> {
    if !args.listen.is_empty() {
        return Ok(args.listen.clone());
    }
    let place = Place::find(&args.place.told(), server).await?;
    Ok(place.addresses.into_iter().map(|address| SocketAddr::new(address, PORT)).collect())
}
