//! What can go wrong in a reconcile, and when to try again.
//!
//! In: errors of the client. Out: [`Error`], which answers [`Error::retry`]. No I/O.

use std::time::Duration;

/// Failure of one reconcile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API refused or could not be reached.
    #[error("cannot {action}: {source}")]
    Api {
        action: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// The object says something no reconcile can act on; only its author can mend it.
    #[error("{object} has an invalid {field}: {reason}")]
    Invalid { object: String, field: &'static str, reason: String },
    /// The world is not yet as the reconcile needs it; said again after the delay.
    #[error("{reason}")]
    NotYet { reason: String, after: Duration },
    /// The reconcile hit its deadline.
    #[error("gave up after {}s", .0.as_secs())]
    TimedOut(Duration),
    /// The reconcile panicked: a bug, contained to one key.
    #[error("panicked: {0}")]
    Panicked(String),
    /// Several parts of one reconcile failed.
    #[error("{first} (and {more} more)")]
    Several {
        #[source]
        first: Box<Error>,
        more: usize,
    },
}

/// When a failed reconcile is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// After the key's exponential backoff.
    Backoff,
    /// After exactly this long.
    After(Duration),
    /// When the object changes, not before.
    OnChange,
}

impl Error {
    pub(crate) fn api(action: impl Into<String>, source: kube::Error) -> Self {
        Self::Api { action: action.into(), source: Box::new(source) }
    }

    /// One error for many; `None` when there were none.
    pub(crate) fn several(errors: Vec<Error>) -> Option<Self> {
        let more = errors.len().saturating_sub(1);
        let first = errors.into_iter().next()?;
        Some(if more == 0 { first } else { Self::Several { first: Box::new(first), more } })
    }

    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Invalid { .. } => Retry::OnChange,
            Self::NotYet { after, .. } => Retry::After(*after),
            Self::Several { first, .. } => match first.retry() {
                Retry::OnChange => Retry::Backoff,
                other => other,
            },
            Self::Api { .. } | Self::TimedOut(_) | Self::Panicked(_) => Retry::Backoff,
        }
    }

    /// The API's own status, if the API answered.
    pub(crate) fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source, .. } => status(source),
            _ => None,
        }
    }

    /// The API answered no: nothing was written.
    pub(crate) fn is_refusal(&self) -> bool {
        self.status().is_some_and(|status| (400..500).contains(&status.code))
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_conflict)
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_not_found)
    }
}

/// The API's status in a client error.
pub(crate) fn status(error: &kube::Error) -> Option<&kube::core::Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

/// The write was refused because the namespace is being deleted: nothing to retry, the object goes too.
pub(crate) fn namespace_is_terminating(error: &kube::Error) -> bool {
    status(error)
        .and_then(|s| s.details.as_ref())
        .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
}

pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    status(error).is_some_and(kube::core::Status::is_not_found)
}

pub(crate) fn is_already_exists(error: &kube::Error) -> bool {
    status(error).is_some_and(kube::core::Status::is_already_exists)
}

pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    status(error).is_some_and(kube::core::Status::is_conflict)
}
