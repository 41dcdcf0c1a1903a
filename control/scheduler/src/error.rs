//! What can go wrong in the scheduler.
//!
//! In: client errors. Out: one sentence each. No I/O.

use std::time::Duration;

/// A write to the API that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The API refused, or could not be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The API did not answer in time; whether it wrote is not known.
    #[error("no answer within {}s", .0.as_secs())]
    TimedOut(Duration),
    /// The request could not be put into words.
    #[error("cannot encode the request: {0}")]
    Encode(#[from] serde_json::Error),
}

impl WriteError {
    /// The pod is gone: nothing is left to do for it.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_not_found())
    }

    /// What is there is not what was meant.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_conflict())
    }
}
