//! Keys, values, revisions and what is said about them.
//!
//! In/out: the vocabulary of [`crate::Store`]. No I/O here.

use bytes::Bytes;

/// Position in the global order of writes. 0 = before the first write. Never goes back, also not over restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A value and where it stands in history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// Revision of the write that created the key (most recent creation).
    pub create_revision: Revision,
    /// Revision of the last write.
    pub mod_revision: Revision,
}

/// What must hold for a write to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The key does not exist.
    Absent,
    /// The key exists and was last written at this revision.
    Unchanged(Revision),
}

/// A write. Both arms are answered with the revision they happened at.
#[derive(Clone, Debug)]
pub enum Write {
    Put { key: Bytes, value: Bytes, precondition: Precondition },
    Delete { key: Bytes, unchanged: Revision },
}

/// One page of a range in key order.
#[derive(Clone, Debug)]
pub struct Page {
    pub items: Vec<KeyValue>,
    /// The revision the page is of.
    pub revision: Revision,
    /// The range has further keys after the last item.
    pub more: bool,
}

/// A change, as watchers see it, in revision order and without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put {
        current: KeyValue,
        previous: Option<KeyValue>,
    },
    /// `previous` is the value that was deleted; `revision` the revision of the deletion.
    Delete {
        previous: KeyValue,
        revision: Revision,
    },
}

/// A write that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// As written, or as it was before it was deleted.
    pub kv: KeyValue,
    /// When it happened. Equals `kv.mod_revision` for a put.
    pub revision: Revision,
}

// === impl Revision ===

impl Revision {
    /// The revision of the write that follows.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Event ===

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { current, .. } => &current.key,
            Self::Delete { previous, .. } => &previous.key,
        }
    }

    /// When it changed.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { current, .. } => current.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }

    /// What the key held before.
    pub fn previous(&self) -> Option<&KeyValue> {
        match self {
            Self::Put { previous, .. } => previous.as_ref(),
            Self::Delete { previous, .. } => Some(previous),
        }
    }
}
