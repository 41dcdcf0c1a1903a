//! `fsGroup`: the group that may read (and write) a volume.
//!
//! In: paths the kubelet made itself. Out: group and mode bits.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

use super::VolumeError;

/// Read for the group on content that the kubelet owns.
const GROUP_READ: u32 = 0o440;
const GROUP_WRITE: u32 = 0o660;
const SETGID: u32 = 0o2000;
const GROUP_ENTER: u32 = 0o110;

fn gid(fs_group: Option<i64>) -> Option<u32> {
    fs_group.and_then(|g| u32::try_from(g).ok())
}

/// Mode of a content file once the group was let in.
pub(super) fn file_mode(mode: u32, fs_group: Option<i64>) -> u32 {
    if gid(fs_group).is_some() { mode | GROUP_READ } else { mode }
}

fn own(path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<(), VolumeError> {
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    lchown(path, uid, gid).map_err(VolumeError::io(path))
}

fn chmod(path: &Path, mode: u32) -> Result<(), VolumeError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(VolumeError::io(path))
}

/// Owner and mode of a content file.
pub(super) fn set_file(
    path: &Path,
    mode: u32,
    uid: Option<u32>,
    fs_group: Option<i64>,
) -> Result<(), VolumeError> {
    own(path, uid, gid(fs_group))?;
    chmod(path, file_mode(mode, fs_group))
}

/// Group and mode of a content folder.
pub(super) fn set_dir(path: &Path, fs_group: Option<i64>) -> Result<(), VolumeError> {
    let Some(group) = gid(fs_group) else { return Ok(()) };
    own(path, None, Some(group))?;
    chmod(path, 0o755 | GROUP_READ | GROUP_ENTER | SETGID)
}

/// The folder of a content volume.
pub(super) fn set_volume_root(path: &Path, fs_group: Option<i64>) -> Result<(), VolumeError> {
    let Some(group) = gid(fs_group) else { return Ok(()) };
    own(path, None, Some(group))?;
    chmod(path, 0o777 | SETGID)
}

/// Group and mode of a writable volume that the pod fills itself.
pub(super) fn writable_root(fs_group: Option<i64>) -> (Option<u32>, u32) {
    match gid(fs_group) {
        None => (None, 0o777),
        group => (group, 0o777 | SETGID | GROUP_WRITE),
    }
}

/// Gives a folder what [`writable_root`] says.
pub(super) fn set_writable_root(path: &Path, fs_group: Option<i64>) -> Result<(), VolumeError> {
    let (group, mode) = writable_root(fs_group);
    own(path, None, group)?;
    chmod(path, mode)
}
