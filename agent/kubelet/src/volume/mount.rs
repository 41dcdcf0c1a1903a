//! Mounts of volumes, and taking folders away without following a mount.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::lstat;

use super::VolumeError;

/// Mount points below a folder, deepest first.
fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    let table = "/proc/self/mountinfo";
    let text = fs::read_to_string(table).map_err(VolumeError::io(table))?;
    let mut points: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|point| point.starts_with(dir))
        .collect();
    points.reverse();
    Ok(points)
}

/// `mountinfo` writes blanks and the like as three octal digits.
fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let bytes = field.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let octal = (bytes[i] == b'\\')
            .then(|| field.get(i + 1..i + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Asks the file itself: the list of mounts is long on a node with many pods.
fn is_mount_point(path: &Path) -> Result<bool, VolumeError> {
    let errno = |errno: nix::errno::Errno| VolumeError::Io { path: path.to_owned(), source: errno.into() };
    let Some(parent) = path.parent() else { return Ok(true) };
    let stat = |path: &Path| lstat(path).map_err(errno);
    // Mounts of our own are filesystems of their own.
    Ok(stat(path)?.st_dev != stat(parent)?.st_dev)
}

/// A tmpfs at `path`, unless there is one; `root` is its root's group and mode, from the first moment.
pub(super) fn tmpfs(
    path: &Path,
    size: Option<u64>,
    root: Option<(Option<u32>, u32)>,
) -> Result<(), VolumeError> {
    fs::create_dir_all(path).map_err(VolumeError::io(path))?;
    if is_mount_point(path)? {
        return Ok(());
    }
    let (group, mode) = root.map_or((None, None), |(group, mode)| (group, Some(mode)));
    let options = [
        size.map(|bytes| format!("size={bytes}")),
        group.map(|group| format!("gid={group}")),
        mode.map(|mode| format!("mode={mode:o}")),
    ];
    let options = options.into_iter().flatten().collect::<Vec<_>>().join(",");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|errno| VolumeError::Io { path: path.to_owned(), source: errno.into() })
}

/// Takes away every mount at or below `dir`. What is still busy in a dying container is detached.
pub(super) fn unmount_below(dir: &Path) -> Result<(), VolumeError> {
    for point in mounts_below(dir)? {
        match umount2(&point, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(errno) => return Err(VolumeError::Io { path: point, source: errno.into() }),
        }
    }
    Ok(())
}

/// Removes a folder; refuses while something is mounted in it, lest another's files go.
pub(super) fn remove_tree(dir: &Path) -> Result<(), VolumeError> {
    if let Some(point) = mounts_below(dir)?.into_iter().next() {
        let source = std::io::Error::other("is still mounted");
        return Err(VolumeError::Io { path: point, source });
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(VolumeError::io(dir)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_escapes_of_mountinfo_are_read() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
        assert_eq!(unescape("/plain\\"), "/plain\\");
    }
}
