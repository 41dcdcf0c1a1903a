//! The default engine: one redb file, its records in revision order.
//!
//! In: batches. Out: the same after a crash. The record table is keyed by revision, so a commit touches only the
//! tree's right edge however many keys there are; keys are indexed in memory only. A second table holds what no
//! record can tell: the format, how far compaction came, the last revision if its record was compacted away.

mod disk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::{Bounds, Engine, EngineError, FIRST_BOUNDS, Record, Visit};
use crate::types::Revision;
use disk::DiskFile;

const RECORDS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("records");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

const FORMAT: u64 = 1;
/// All reads are answered by the map above, so the cache only has to hold the tree's right edge.
const CACHE_BYTES: usize = 4 << 20;
/// Kind, create revision, key length.
const HEADER_BYTES: usize = 1 + 8 + 4;
const KIND_DELETE: u8 = 0;
const KIND_PUT: u8 = 1;

pub struct EmbeddedEngine {
    path: PathBuf,
    open: Box<dyn Fn() -> Result<Database, redb::Error> + Send>,
    /// `None` only while [`Engine::recover`] has not succeeded.
    database: Option<Database>,
    sync_failed: Arc<AtomicBool>,
}

// === impl EmbeddedEngine ===

impl EmbeddedEngine {
    pub fn open(path: PathBuf) -> Result<Self, EngineError> {
        let sync_failed = Arc::new(AtomicBool::new(false));
        if !path.exists() {
            make(&path)?;
        }
        let (file, flag) = (path.clone(), sync_failed.clone());
        Self::with(path, sync_failed, move || Ok(DiskFile::open(&file, flag.clone())?))
    }

    /// Over any storage: `backend` is called at the start and for each recovery.
    pub(crate) fn with<B: StorageBackend>(
        path: PathBuf,
        sync_failed: Arc<AtomicBool>,
        backend: impl Fn() -> Result<B, redb::Error> + Send + 'static,
    ) -> Result<Self, EngineError> {
        let open = Box::new(move || {
            Ok(Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend()?)?)
        });
        let mut engine = Self { path, open, database: None, sync_failed };
        engine.recover()?;
        Ok(engine)
    }

    fn database(&self) -> Result<&Database, EngineError> {
        self.database.as_ref().ok_or_else(|| EngineError::Io {
            path: self.path.clone(),
            reason: "closed after a failure".into(),
        })
    }

    fn fault(&self, error: impl Into<redb::Error>) -> EngineError {
        let fault = fault(&self.path, &error.into());
        if self.sync_failed.load(Ordering::Acquire) {
            return EngineError::Io {
                path: self.path.clone(),
                reason: format!("the disk refused to make a write durable ({fault})"),
            };
        }
        fault
    }

    /// Creates the tables, or checks that they are of a format this program reads.
    fn prepare(&self, database: &Database) -> Result<(), EngineError> {
        let found = (|| -> Result<u64, redb::Error> {
            let transaction = database.begin_write()?;
            let found = {
                let mut meta = transaction.open_table(META)?;
                let found = meta.get("format")?.map(|format| format.value());
                if found.is_none() {
                    meta.insert("format", FORMAT)?;
                    meta.insert("compacted", FIRST_BOUNDS.compacted.0)?;
                    meta.insert("revision", FIRST_BOUNDS.revision.0)?;
                    transaction.open_table(RECORDS)?;
                }
                found
            };
            if found.is_none() {
                transaction.commit()?;
            }
            Ok(found.unwrap_or(FORMAT))
        })()
        .map_err(|error| self.fault(error))?;
        if found != FORMAT {
            return Err(EngineError::Format { path: self.path.clone(), found, known: FORMAT });
        }
        Ok(())
    }

    fn try_bounds(&self) -> Result<Bounds, redb::Error> {
        let Some(database) = &self.database else { return Err(redb::Error::DatabaseClosed) };
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let value = |name| Ok::<_, redb::Error>(meta.get(name)?.map_or(0, |value| value.value()));
        let (compacted, remembered) = (value("compacted")?, value("revision")?);
        let last = transaction.open_table(RECORDS)?.last()?.map_or(0, |(revision, _)| revision.value());
        Ok(Bounds { compacted: Revision(compacted), revision: Revision(remembered.max(last)) })
    }

    fn try_commit(&self, batch: &[Record]) -> Result<(), redb::Error> {
        let Some(database) = &self.database else { return Err(redb::Error::DatabaseClosed) };
        let transaction = database.begin_write()?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            for record in batch {
                let mut slot = records.insert_reserve(record.revision.0, encoded_len(record))?;
                encode(record, slot.as_mut());
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn try_compact(&self, bounds: Bounds, obsolete: &[Revision]) -> Result<(), redb::Error> {
        let Some(database) = &self.database else { return Err(redb::Error::DatabaseClosed) };
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert("compacted", bounds.compacted.0)?;
            meta.insert("revision", bounds.revision.0)?;
            let mut records = transaction.open_table(RECORDS)?;
            for revision in obsolete {
                records.remove(revision.0)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Engine for EmbeddedEngine {
    fn bounds(&mut self) -> Result<Bounds, EngineError> {
        self.try_bounds().map_err(|error| self.fault(error))
    }

    fn scan(&mut self, from: Revision, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        let transaction = self.database()?.begin_read().map_err(|error| self.fault(error))?;
        let records = transaction.open_table(RECORDS).map_err(|error| self.fault(error))?;
        for entry in records.range(from.0..).map_err(|error| self.fault(error))? {
            let (revision, bytes) = entry.map_err(|error| self.fault(error))?;
            let revision = Revision(revision.value());
            decode(revision, bytes.value())
                .ok_or_else(|| format!("the record of revision {revision} cannot be read"))
                .and_then(&mut *visit)
                .map_err(|reason| self.corrupt(reason))?;
        }
        Ok(())
    }

    fn corrupt(&self, reason: String) -> EngineError {
        EngineError::Corrupt { path: self.path.clone(), reason }
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError> {
        self.try_commit(batch).map_err(|error| self.fault(error))
    }

    fn compact(&mut self, bounds: Bounds, obsolete: &[Revision]) -> Result<(), EngineError> {
        self.try_compact(bounds, obsolete).map_err(|error| self.fault(error))
    }

    fn recover(&mut self) -> Result<(), EngineError> {
        // Dropped first: it holds the lock.
        self.database = None;
        let database = (self.open)().map_err(|error| self.fault(error))?;
        self.prepare(&database)?;
        self.database = Some(database);
        Ok(())
    }
}

/// A file gets its name only once it has been made: a crash half-way leaves none that cannot be opened.
fn make(path: &Path) -> Result<(), EngineError> {
    let draft = path.with_extension("new");
    let (file, flag) = (draft.clone(), Arc::new(AtomicBool::new(false)));
    let io = |error: std::io::Error| EngineError::from_io(path, &error);
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    drop(EmbeddedEngine::with(draft.clone(), flag.clone(), move || {
        Ok(DiskFile::open(&file, flag.clone())?)
    })?);
    std::fs::rename(&draft, path).map_err(io)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

fn fault(path: &Path, error: &redb::Error) -> EngineError {
    let path = path.to_owned();
    match error {
        redb::Error::Io(error) => EngineError::from_io(&path, error),
        redb::Error::DatabaseAlreadyOpen => EngineError::InUse { path },
        redb::Error::Corrupted(reason) => EngineError::Corrupt { path, reason: reason.clone() },
        other => EngineError::Io { path, reason: other.to_string() },
    }
}

fn encoded_len(record: &Record) -> usize {
    HEADER_BYTES + record.key.len() + record.value.as_ref().map_or(0, Bytes::len)
}

fn encode(record: &Record, out: &mut [u8]) {
    let (kind, value) = match &record.value {
        Some(value) => (KIND_PUT, &value[..]),
        None => (KIND_DELETE, &[][..]),
    };
    let key_end = HEADER_BYTES + record.key.len();
    out[0] = kind;
    out[1..9].copy_from_slice(&record.create_revision.0.to_le_bytes());
    // Keys are limited to far less than 4 GiB.
    out[9..13].copy_from_slice(&(record.key.len() as u32).to_le_bytes());
    out[HEADER_BYTES..key_end].copy_from_slice(&record.key);
    out[key_end..].copy_from_slice(value);
}

fn decode(revision: Revision, bytes: &[u8]) -> Option<Record> {
    let (kind, rest) = bytes.split_first()?;
    let (create, rest) = rest.split_first_chunk::<8>()?;
    let (key_len, rest) = rest.split_first_chunk::<4>()?;
    let (key, value) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
    let value = match *kind {
        KIND_PUT => Some(Bytes::copy_from_slice(value)),
        KIND_DELETE if value.is_empty() => None,
        _ => return None,
    };
    Some(Record {
        revision,
        create_revision: Revision(u64::from_le_bytes(*create)),
        key: Bytes::copy_from_slice(key),
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_survives_encoding() {
        for value in [None, Some(Bytes::new()), Some(Bytes::from_static(b"value"))] {
            let record = Record {
                revision: Revision(7),
                create_revision: Revision(3),
                key: Bytes::from_static(b"/a/key"),
                value,
            };
            let mut bytes = vec![0; encoded_len(&record)];
            encode(&record, &mut bytes);
            assert_eq!(decode(Revision(7), &bytes), Some(record));
        }
    }

    #[test]
    fn record_cut_short_is_refused() {
        assert_eq!(decode(Revision(1), &[KIND_PUT, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, b'k']), None);
    }

    fn record(revision: u64, key: &'static str) -> Record {
        let value = Some(Bytes::from_static(b"value"));
        Record { revision: Revision(revision), create_revision: Revision(revision), key: key.into(), value }
    }

    fn kept(engine: &mut EmbeddedEngine) -> Vec<u64> {
        let mut revisions = Vec::new();
        engine
            .scan(Revision(0), &mut |record| {
                revisions.push(record.revision.0);
                Ok(())
            })
            .unwrap();
        revisions
    }

    #[test]
    fn file_is_private_locked_and_keeps_what_was_committed() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let mut engine = EmbeddedEngine::open(path.clone()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(EmbeddedEngine::open(path.clone()).err(), Some(EngineError::InUse { path: path.clone() }));
        assert_eq!(engine.bounds().unwrap(), FIRST_BOUNDS);
        engine.commit(&[record(2, "a"), record(3, "b")]).unwrap();
        engine.compact(Bounds { compacted: Revision(3), revision: Revision(3) }, &[Revision(3)]).unwrap();
        engine.recover().unwrap();
        assert_eq!(kept(&mut engine), [2]);

        drop(engine);
        let mut engine = EmbeddedEngine::open(path).unwrap();
        assert_eq!(engine.bounds().unwrap(), Bounds { compacted: Revision(3), revision: Revision(3) });
        assert_eq!(kept(&mut engine), [2]);
    }

    #[test]
    fn what_is_no_store_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        std::fs::write(&path, "not a database".repeat(1000)).unwrap();
        assert!(EmbeddedEngine::open(path.clone()).is_err());
        assert_eq!(std::fs::read(&path).unwrap().len(), 14_000);
        let absent = folder.path().join("absent/store.redb");
        let refused = EmbeddedEngine::open(absent.clone()).err().unwrap();
        assert_eq!(
            refused.to_string(),
            format!("{}: No such file or directory (os error 2)", absent.with_extension("new").display())
        );
    }
}
