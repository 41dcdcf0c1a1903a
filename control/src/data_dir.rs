//! The data folder: one process at a time.
//!
//! In: its path. Out: the folder, made, private, locked; the paths in it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

const LOCK: &str = "lock";

/// Held while the process runs; the kernel lets go of the lock when it ends, however it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

// === impl DataDir ===

impl DataDir {
    pub fn open(path: &Path) -> Result<Self> {
        let advice = || {
            format!(
                "cannot use the data folder {}: uid {} needs to be able to write to it",
                path.display(),
                geteuid()
            )
        };
        make(path).with_context(advice)?;
        close_to_others(path)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .with_context(advice)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("the data folder {} is in use by another xebec-control", path.display());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        make(&pki(path)).with_context(advice)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub fn store(&self) -> PathBuf {
        store(&self.path)
    }

    pub fn pki(&self) -> PathBuf {
        pki(&self.path)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The store of the control plane with this data folder.
pub fn store(data_dir: &Path) -> PathBuf {
    data_dir.join("store.redb")
}

/// Where the keys of the control plane with this data folder are.
pub fn pki(data_dir: &Path) -> PathBuf {
    data_dir.join("pki")
}

/// The folder holds the cluster's keys: nobody else may enter it. One that was made for us is closed; one that holds
/// other things is somebody's, who has to decide.
fn close_to_others(path: &Path) -> Result<()> {
    let complaint = || format!("cannot look into the data folder {}", path.display());
    let permissions = fs::metadata(path).with_context(complaint)?.permissions();
    if permissions.mode() & 0o077 == 0 {
        return Ok(());
    }
    let is_empty = fs::read_dir(path).with_context(complaint)?.next().is_none();
    if !is_empty && !store(path).exists() && !path.join(LOCK).exists() {
        bail!(
            "the data folder {} is open to other users and holds other files: give an empty folder, or `chmod 700` this one",
            path.display()
        );
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .with_context(|| format!("cannot close the data folder {} to other users", path.display()))
}

fn make(path: &Path) -> std::io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_is_for_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let held = DataDir::open(&path).unwrap();
        let refused = DataDir::open(&path).unwrap_err().to_string();
        assert!(refused.ends_with("is in use by another xebec-control"), "{refused}");
        drop(held);
        assert_eq!(DataDir::open(&path).unwrap().store(), path.join("store.redb"));
    }

    #[test]
    fn folder_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        fs::create_dir(&path).unwrap();
        let open = || fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        for _ in 0..2 {
            open();
            drop(DataDir::open(&path).unwrap());
            assert_eq!(mode(), 0o700);
        }
        fs::remove_file(path.join(LOCK)).unwrap();
        open();
        let refused = DataDir::open(&path).unwrap_err().to_string();
        assert!(refused.contains("is open to other users and holds other files"), "{refused}");
        assert_eq!(mode(), 0o755, "left as it was");
    }

    #[test]
    fn folder_that_cannot_be_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = DataDir::open(&file.path().join("data")).unwrap_err().to_string();
        assert!(refused.starts_with("cannot use the data folder"), "{refused}");
    }
}
