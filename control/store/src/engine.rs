//! What keeps records through a crash: the seam between the store and a disk (or a cluster of them).
//!
//! In: batches of records in revision order. Out: the same records after a restart. An engine is called from one
//! thread only and answers no reads but recovery's.

mod embedded;
mod memory;

#[cfg(test)]
pub(crate) mod crash;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;

use crate::types::Revision;

pub use embedded::EmbeddedEngine;
pub use memory::MemoryEngine;

/// One write as the engine keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub revision: Revision,
    /// Of the write that created the key; for a deletion, of the value deleted.
    pub create_revision: Revision,
    pub key: Bytes,
    /// `None` is a deletion.
    pub value: Option<Bytes>,
}

/// How far an engine's history reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Everything after this revision is still there.
    pub compacted: Revision,
    /// The last revision given out. Kept although the write itself may have been compacted.
    pub revision: Revision,
}

/// Where a new store starts. Not 0, because clients read resource version 0 as "any".
pub const FIRST_BOUNDS: Bounds = Bounds { compacted: Revision(0), revision: Revision(1) };

/// Takes in one record, or says why it cannot be one.
pub type Visit<'a> = dyn FnMut(Record) -> Result<(), String> + 'a;

pub trait Engine: Send {
    /// How far history reaches.
    fn bounds(&mut self) -> Result<Bounds, EngineError>;

    /// Calls `visit` with every record kept from revision `from` on, in revision order. What `visit` objects to is
    /// [`EngineError::Corrupt`].
    fn scan(&mut self, from: Revision, visit: &mut Visit<'_>) -> Result<(), EngineError>;

    /// The error for records that cannot be a history.
    fn corrupt(&self, reason: String) -> EngineError;

    /// Makes the whole batch durable, or none of it. On [`EngineError::Full`] the outcome is decided by
    /// [`Engine::recover`] and a scan.
    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError>;

    /// Records, atomically with dropping `obsolete` (ascending), that history starts after `bounds.compacted`.
    fn compact(&mut self, bounds: Bounds, obsolete: &[Revision]) -> Result<(), EngineError>;

    /// Makes the engine usable again after [`EngineError::Full`].
    fn recover(&mut self) -> Result<(), EngineError>;
}

/// Which engine to open.
#[derive(Clone, Debug)]
pub enum EngineConfig {
    /// One file, made when absent, opened by one process at a time.
    Embedded { path: PathBuf },
    /// Nothing survives the process.
    Memory,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    #[error("{}: no space left on the disk", path.display())]
    Full { path: PathBuf },

    #[error("{}: in use by another process", path.display())]
    InUse { path: PathBuf },

    #[error("{}: {reason}", path.display())]
    Io { path: PathBuf, reason: String },

    #[error("{}: damaged: {reason}; restore it from a backup", path.display())]
    Corrupt { path: PathBuf, reason: String },

    #[error("{}: written in format {found}, this program reads format {known}", path.display())]
    Format { path: PathBuf, found: u64, known: u64 },
}

// === impl EngineError ===

impl EngineError {
    pub(crate) fn from_io(path: &std::path::Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            io::ErrorKind::WouldBlock => Self::InUse { path },
            _ => Self::Io { path, reason: error.to_string() },
        }
    }
}

// === impl EngineConfig ===

impl EngineConfig {
    pub(crate) fn open(self) -> Result<Box<dyn Engine>, EngineError> {
        Ok(match self {
            Self::Embedded { path } => Box::new(EmbeddedEngine::open(path)?),
            Self::Memory => Box::new(MemoryEngine::default()),
        })
    }
}
