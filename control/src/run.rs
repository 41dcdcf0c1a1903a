//! `xebec-control run`: store → API server → clients in the process.
//!
//! In: settings. Out: a control plane, until it is told to stop or cannot go on.

use anyhow::{Context, Result, bail};

use crate::cli::RunArgs;
use crate::data_dir::DataDir;
use crate::{log, pki, tls};

pub fn run(arguments: RunArgs) -> Result<()> {
    if let Err(complaint) = arguments.check() {
        bail!("{complaint}");
    }
    log::start(arguments.log_format);
    tls::install_provider();
    let data = DataDir::open(&arguments.data_dir)?;
    let reached_by = arguments.advertise_address.iter().copied();
    let addresses = reached_by.chain(arguments.kubernetes_addresses()).chain(arguments.bind_address);
    let pki = pki::prepare(&data.pki(), &pki::serving_subject(&arguments.cluster_domain, addresses))?;
    let _ = pki;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let _ = runtime;
    Ok(())
}
