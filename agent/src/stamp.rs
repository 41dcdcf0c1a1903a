//! Whether a file is still the one that was read.
//!
//! In: a path. Out: a [`Stamp`] that differs once the file was written or replaced. Who uses a file for long compares
//! stamps right before each use: that costs one system call, and nothing has to wait for news.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the kernel tells of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds of the last write.
    modified: (i64, i64),
}

// === impl Stamp ===

impl Stamp {
    /// `None` when there is no such file.
    pub fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self { inode: file.ino(), length: file.len(), modified: (file.mtime(), file.mtime_nsec()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, next) = (folder.path().join("a"), folder.path().join("b"));
        assert_eq!(Stamp::of(&path), None);
        std::fs::write(&path, "same length").unwrap();
        let first = Stamp::of(&path);
        assert_eq!(Stamp::of(&path), first);
        std::fs::write(&next, "same length").unwrap();
        std::fs::rename(&next, &path).unwrap();
        assert_ne!(Stamp::of(&path), first);
    }
}
