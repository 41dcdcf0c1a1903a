//! Why the store did not do what it was asked.
//!
//! In: engine faults and failed preconditions. Out: one enum the API server turns into statuses.

use crate::engine::EngineError;
use crate::types::{KeyValue, Revision};

/// Clone, because one engine fault answers every writer of a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// [`crate::Precondition::Absent`] failed.
    #[error("the key exists")]
    Exists { current: KeyValue },

    /// [`crate::Precondition::Unchanged`] failed; `None` when the key is gone.
    #[error("the key was changed by another writer")]
    Conflict { current: Option<KeyValue> },

    /// History before `oldest` was dropped.
    #[error("the requested revision was compacted; the oldest one readable is {}", oldest.0)]
    Compacted { oldest: Revision },

    /// A revision that has not happened.
    #[error("the requested revision is in the future; the store is at {}", current.0)]
    Future { current: Revision },

    #[error("{what} of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge { what: &'static str, size: usize, limit: usize },

    /// Reads go on; writes are accepted again once there is room. What was part of a batch when the disk became full may
    /// show up then: whether the write happened is not known.
    #[error("the disk that holds the store is full")]
    DiskFull,

    /// The store was closed, or its engine failed for good. Whether the write happened is not known.
    #[error("the store is not available: {reason}")]
    Unavailable { reason: String },

    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] EngineError),
}
