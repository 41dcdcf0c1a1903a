//! Files with keys in them: for root only, whole or not there.
//!
//! In: a path, bytes. Out: the file, mode 0600, on disk under its name. A crash leaves the old one or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Writes a file; folders on its way are made.
///
/// # Errors
/// Names the file.
pub fn write(path: &Path, contents: &[u8]) -> Result<()> {
    try_write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

fn try_write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&draft)?;
    // A draft that a crash left keeps the mode it was made with.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_for_its_owner_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pki/key");
        write(&path, b"old").unwrap();
        fs::write(folder.path().join("pki/key.new"), "left by a crash").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.path().join("pki")).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(folder.path().join("pki")).unwrap().count(), 1);
    }
}
