//! Swaps a volume's whole content at once.
//!
//! In: files with modes. Out: on disk
//!
//! ```text
//! volume/..2026_01_02_15_04_05.123456789/a/b   one version, complete before it is seen
//! volume/..data -> ..2026_01_02_…              renamed over: the moment of change
//! volume/a -> ..data/a                         what the container opens; made once
//! ```
//!
//! A reader sees the old version or the new one, never a mixture. The same content again changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path};

use jiff::Timestamp;

use super::VolumeError;
use super::ownership;

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
    /// Owner, where the token's reader is not root.
    pub(super) uid: Option<u32>,
}

/// Relative path → file.
pub(super) type Files = BTreeMap<String, File>;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Puts `files` into the volume at `dir`.
pub(super) fn write(dir: &Path, files: &Files, fs_group: Option<i64>) -> Result<(), VolumeError> {
    fs::create_dir_all(dir).map_err(VolumeError::io(dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).map_err(VolumeError::io(dir))?;
    for path in files.keys() {
        check_path(dir, path)?;
    }
    let data = dir.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.is_none() || !same(&data, files, fs_group) {
        let version = Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
        write_version(&dir.join(&version), files, fs_group)?;
        let new = dir.join(NEW_DATA);
        remove_if_there(&new)?;
        symlink(&version, &new).map_err(VolumeError::io(&new))?;
        fs::rename(&new, &data).map_err(VolumeError::io(&data))?;
    }
    link_visible(dir, files)?;
    remove_stale(dir, files)?;
    ownership::set_volume_root(dir, fs_group)
}

fn check_path(dir: &Path, path: &str) -> Result<(), VolumeError> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !plain || path.starts_with("..") || path.len() > 4096 {
        let volume = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Err(VolumeError::Content { volume, reason: format!("invalid path {path:?}") });
    }
    Ok(())
}

/// The current version holds exactly these files with these modes.
fn same(data: &Path, files: &Files, fs_group: Option<i64>) -> bool {
    let mut found = BTreeSet::new();
    if list(data, data, &mut found).is_err() || found.len() != files.len() {
        return false;
    }
    files.iter().all(|(path, file)| {
        let full = data.join(path);
        let mode = ownership::file_mode(file.mode, fs_group);
        found.contains(path)
            && fs::metadata(&full)
                .is_ok_and(|m| m.mode() & 0o7777 == mode && m.size() == file.bytes.len() as u64)
            && fs::read(&full).is_ok_and(|bytes| bytes == file.bytes)
    })
}

fn list(root: &Path, dir: &Path, found: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            list(root, &path, found)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.insert(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

fn write_version(version: &Path, files: &Files, fs_group: Option<i64>) -> Result<(), VolumeError> {
    make_dir(version, fs_group)?;
    for (path, file) in files {
        let full = version.join(path);
        if let Some(parent) = Path::new(path).parent() {
            let mut at = version.to_path_buf();
            for part in parent.components() {
                at.push(part);
                if !at.exists() {
                    make_dir(&at, fs_group)?;
                }
            }
        }
        fs::write(&full, &file.bytes).map_err(VolumeError::io(&full))?;
        ownership::set_file(&full, file.mode, file.uid, fs_group)?;
    }
    Ok(())
}

fn make_dir(dir: &Path, fs_group: Option<i64>) -> Result<(), VolumeError> {
    fs::create_dir(dir).map_err(VolumeError::io(dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(VolumeError::io(dir))?;
    ownership::set_dir(dir, fs_group)
}

/// First path elements become links into `..data`.
fn link_visible(dir: &Path, files: &Files) -> Result<(), VolumeError> {
    for first in tops(files) {
        let link = dir.join(&first);
        if fs::read_link(&link).is_err() {
            let target = Path::new(DATA).join(&first);
            symlink(&target, &link).map_err(VolumeError::io(&link))?;
        }
    }
    Ok(())
}

fn tops(files: &Files) -> BTreeSet<String> {
    files.keys().filter_map(|p| p.split('/').next()).map(str::to_owned).collect()
}

/// Removes links to what is no more and versions that are not the current one.
fn remove_stale(dir: &Path, files: &Files) -> Result<(), VolumeError> {
    let current = fs::read_link(dir.join(DATA)).map_err(VolumeError::io(dir))?;
    let tops = tops(files);
    for entry in fs::read_dir(dir).map_err(VolumeError::io(dir))? {
        let entry = entry.map_err(VolumeError::io(dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == DATA || current.as_os_str() == entry.file_name() || tops.contains(&name) {
            continue;
        }
        let path = entry.path();
        if name.starts_with("..") && entry.file_type().is_ok_and(|t| t.is_dir()) {
            fs::remove_dir_all(&path).map_err(VolumeError::io(&path))?;
        } else {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<(), VolumeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(VolumeError::io(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str, u32)]) -> Files {
        list.iter()
            .map(|(path, text, mode)| {
                ((*path).to_owned(), File { bytes: text.as_bytes().to_vec(), mode: *mode, uid: None })
            })
            .collect()
    }

    fn entries(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn content_is_swapped_whole_and_stale_parts_go() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("v");
        write(&dir, &files(&[("a", "1", 0o644), ("d/b", "2", 0o400)]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("d/b")).unwrap().mode() & 0o777, 0o400);
        let first = fs::read_link(dir.join(DATA)).unwrap();

        write(&dir, &files(&[("a", "1", 0o644), ("d/b", "2", 0o400)]), None).unwrap();
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), first, "the same content is left alone");

        write(&dir, &files(&[("a", "new", 0o644)]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "new");
        let second = fs::read_link(dir.join(DATA)).unwrap();
        assert_eq!(
            entries(&dir),
            ["..data", second.to_str().unwrap(), "a"].map(str::to_owned).to_vec().tap_sorted()
        );
    }

    trait Sorted {
        fn tap_sorted(self) -> Self;
    }

    impl Sorted for Vec<String> {
        fn tap_sorted(mut self) -> Self {
            self.sort();
            self
        }
    }

    #[test]
    fn paths_that_leave_the_volume_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "", "..data"] {
            assert!(write(&tmp.path().join("v"), &files(&[(path, "", 0o644)]), None).is_err(), "{path}");
        }
    }
}
