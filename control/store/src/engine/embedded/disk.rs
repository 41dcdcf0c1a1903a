//! The file below the embedded engine.
//!
//! In: positioned reads, writes and syncs. Out: the file's bytes. The file is private to its owner, locked against
//! a second process, and remembers that a sync failed: what the kernel then still shows may never reach the disk,
//! so nothing read back can be trusted.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How much of what the file grows by is written at once.
const FILLED: u64 = 64 << 20;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

#[derive(Debug)]
pub(super) struct DiskFile {
    file: File,
    sync_failed: Arc<AtomicBool>,
}

// === impl DiskFile ===

impl DiskFile {
    pub(super) fn open(path: &Path, sync_failed: Arc<AtomicBool>) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(Self { file, sync_failed })
    }

    /// Writes zeros to where nothing was written yet: a commit into blocks that the file has already is synced without
    /// the file system's journal, for half the price. A disk without room for that says so at the write that needs it.
    fn fill(&self, mut from: u64, to: u64) {
        while from < to {
            let length = (to - from).min(ZEROS.len() as u64);
            if self.file.write_all_at(&ZEROS[..length as usize], from).is_err() {
                return;
            }
            from += length;
        }
    }
}

impl redb::StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let grown_from = self.len()?;
        self.file.set_len(len)?;
        self.fill(grown_from, len.min(grown_from + FILLED));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|_| self.sync_failed.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use redb::StorageBackend;

    use super::*;

    #[test]
    fn what_the_file_grows_by_has_its_blocks_and_what_it_held_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store");
        let file = DiskFile::open(&path, Arc::default()).expect("opens");
        file.set_len(4096).expect("grows");
        file.write(0, b"kept").expect("writes");
        file.set_len(1 << 20).expect("grows");
        let mut held = [0; 4];
        file.read(0, &mut held).expect("reads");
        assert_eq!(&held, b"kept");
        assert!(std::fs::metadata(&path).expect("is there").blocks() * 512 >= 1 << 20);
        file.set_len(8192).expect("shrinks");
        assert_eq!(file.len().expect("has a length"), 8192);
    }
}
