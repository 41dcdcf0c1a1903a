//! Files that are whole or not there.
//!
//! In: a path, bytes, who may read. Out: the file, on disk, under its name. A crash leaves the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Owner,
    All,
}

// === impl Access ===

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::All => 0o644,
        }
    }
}

pub fn write(path: &Path, contents: &[u8], access: Access) -> Result<()> {
    try_write(path, contents, access).with_context(|| format!("cannot write {}", path.display()))
}

fn try_write(path: &Path, contents: &[u8], access: Access) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(access.mode()).open(&draft)?;
    // A draft left by a crash keeps its old mode, and the umask narrows a new one's.
    file.set_permissions(fs::Permissions::from_mode(access.mode()))?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_folder_of(path)
}

/// Makes a file's name durable.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// The file's text; `None` when there is no such file.
pub fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_replaced_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert_eq!(read(&path).unwrap(), None);
        fs::write(folder.path().join("key.new"), "left by a crash").unwrap();
        write(&path, b"secret", Access::Owner).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("secret"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let refused = write(&folder.path().join("absent/key"), b"", Access::Owner).unwrap_err();
        assert!(refused.to_string().starts_with("cannot write "));
    }
}
