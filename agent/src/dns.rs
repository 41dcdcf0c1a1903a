//! `xebec-agent dns`: the node's DNS, a process of its own that is not restarted with the agent.
//!
//! In: flags. Out: answers until SIGTERM.

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;
use xebec_dns::DnsConfig;

use crate::cli::DnsArgs;
use crate::{cluster, run};

pub fn main(args: &DnsArgs) -> Result<()> {
    run::install_crypto();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let client = cluster::client(&args.kubeconfig).await?;
        let shutdown = CancellationToken::new();
        tokio::spawn(run::cancel_on_signal(shutdown.clone()));
        let config = DnsConfig {
            listen: args.listen.clone(),
            cluster_domain: args.cluster_domain.clone(),
            resolv_conf: args.resolv_conf.clone(),
        };
        xebec_dns::run(client, config, shutdown).await.context("serving DNS")
    })
}
