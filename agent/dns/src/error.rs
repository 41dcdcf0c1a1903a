//! What ends or prevents DNS service.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot answer DNS at {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("{path}: {source}")]
    ResolvConf { path: PathBuf, source: std::io::Error },
    #[error("cluster domain {domain:?} is no DNS name: {reason}")]
    Domain { domain: String, reason: String },
    #[error("serving DNS: {0}")]
    Serve(String),
}
