//! The way to the API server.
//!
//! In: a kubeconfig file. Out: a client with timeouts that suit an agent.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::connection;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Watches are quiet for long, but bookmarks come every minute: a connection silent for longer than this is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(295);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// # Errors
/// When the file is missing or names no usable credentials.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let why = || format!("--kubeconfig {}", kubeconfig.display());
    let file = Kubeconfig::read_from(kubeconfig).with_context(why)?;
    let mut config =
        kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.with_context(why)?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.write_timeout = Some(WRITE_TIMEOUT);
    connection::client(config).with_context(why)
}
