//! What can go wrong in the runtime and with images.

use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("containerd at {socket} cannot be reached: {reason}")]
    Unreachable { socket: String, reason: String },
    #[error("containerd: {call}: {message}")]
    Call { call: &'static str, message: String },
    #[error("{call} took longer than {after:?}")]
    Timeout { call: &'static str, after: Duration },
    /// The container cannot be made as configured: no use in trying the same again.
    #[error("{0}")]
    Config(String),
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
}

/// Why an image could not be pulled. `kubelet` words the reasons (`InvalidImageName`, `ErrImagePull`, …).
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("couldn't parse image name {image:?}: {reason}")]
    InvalidName { image: String, reason: String },
    #[error("failed to pull image {image:?}: not found")]
    NotFound { image: String },
    #[error("failed to pull image {image:?}: the registry refused: {reason}")]
    Unauthorized { image: String, reason: String },
    #[error("failed to pull image {image:?}: {what} does not match its digest {digest}")]
    Digest { image: String, what: String, digest: String },
    #[error("failed to pull image {image:?}: {reason}")]
    Registry { image: String, reason: String },
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

// === impl RuntimeError ===

impl RuntimeError {
    /// The same error for another caller who waited for the same work.
    fn duplicate(&self) -> Self {
        match self {
            Self::Unreachable { socket, reason } => {
                Self::Unreachable { socket: socket.clone(), reason: reason.clone() }
            }
            Self::Call { call, message } => Self::Call { call, message: message.clone() },
            Self::Timeout { call, after } => Self::Timeout { call, after: *after },
            Self::Config(message) => Self::Config(message.clone()),
            Self::Io { path, source } => {
                let source = std::io::Error::new(source.kind(), source.to_string());
                Self::Io { path: path.clone(), source }
            }
        }
    }
}

// === impl PullError ===

impl PullError {
    /// The same error for another caller who waited for the same pull.
    pub(crate) fn duplicate(&self) -> Self {
        match self {
            Self::InvalidName { image, reason } => {
                Self::InvalidName { image: image.clone(), reason: reason.clone() }
            }
            Self::NotFound { image } => Self::NotFound { image: image.clone() },
            Self::Unauthorized { image, reason } => {
                Self::Unauthorized { image: image.clone(), reason: reason.clone() }
            }
            Self::Digest { image, what, digest } => {
                Self::Digest { image: image.clone(), what: what.clone(), digest: digest.clone() }
            }
            Self::Registry { image, reason } => {
                Self::Registry { image: image.clone(), reason: reason.clone() }
            }
            Self::Runtime(error) => Self::Runtime(error.duplicate()),
        }
    }
}
