//! What can go wrong on the way to a pod's network.
//!
//! In: errors of netlink, files, namespaces and the datapath. Out: one enum whose text names the step that failed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// Errors of `datapath` as this crate passes them on.
pub type DatapathError = Box<dyn std::error::Error + Send + Sync>;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed step of pod networking.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured uplink is not there.
    #[error("uplink interface {0:?} does not exist in the node's network namespace")]
    NoUplink(String),
    /// An interface vanished while it was being set up.
    #[error("interface {0} is gone right after it was made")]
    NoInterface(String),
    /// A setting that cannot work.
    #[error("network configuration: {0}")]
    Config(String),
    /// The uid would not be a safe file name.
    #[error("pod uid {0:?} is not usable as a file name")]
    Uid(String),
    /// Every address of a range belongs to a pod.
    #[error("no free pod address in {range}: all {size} are in use")]
    Exhausted {
        /// The range.
        range: IpNet,
        /// How many addresses it can give to pods.
        size: u32,
    },
    /// The kernel refused a netlink request.
    #[error("{action}: {source}")]
    Netlink {
        /// What was asked.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file could not be read or written.
    #[error("{action} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A namespace could not be made or entered.
    #[error("{action}: {source}")]
    Namespace {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Pods are running whose addresses are not known any more.
    #[error(
        "{path} cannot be used ({reason}) while {pods} pods hold namespaces pinned beside it; \
         stop these pods and remove the folder, then start the agent again",
        path = path.display()
    )]
    Checkpoint {
        /// The checkpoint file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Live pinned namespaces.
        pods: usize,
    },
    /// The datapath refused.
    #[error("datapath: {action}: {source}")]
    Datapath {
        /// What was asked.
        action: String,
        /// Its answer.
        source: DatapathError,
    },
    /// No answer in time.
    #[error("{action}: no answer within {} s", after.as_secs())]
    Timeout {
        /// What was waited for.
        action: String,
        /// How long.
        after: Duration,
    },
    /// Detaching went on to the end but not every step worked; calling it again is safe.
    #[error("pod {uid} is not wholly detached: {}", join(errors))]
    Detach {
        /// Whose pod.
        uid: String,
        /// Every step that failed.
        errors: Vec<Error>,
    },
    /// Some routes to peers could not be set; the others are.
    #[error("routes to peers: {}", join(errors))]
    Peers {
        /// Every route that failed.
        errors: Vec<Error>,
    },
}

impl Error {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { action, path: path.into(), source }
    }

    /// The kernel's error number, where it gave one.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Netlink { source, .. } | Self::Namespace { source, .. } | Self::File { source, .. } => {
                source.raw_os_error()
            }
            _ => None,
        }
    }
}

fn join(errors: &[Error]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
