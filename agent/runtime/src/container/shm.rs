//! The memory that the containers of a pod share: one `/dev/shm` for all of them, as long as the pod.
//!
//! In: the path that the pod's owner chose. Out: a tmpfs mounted there. Whoever removes the pod's folder unmounts it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::mount::{MsFlags, mount};

use crate::error::RuntimeError;

/// As large as every runtime makes it.
const OPTIONS: &str = "mode=1777,size=65536k";

/// Two containers that start at once must not mount two.
static TURN: Mutex<()> = Mutex::new(());

/// Mounts it, unless it is there.
pub(super) fn ensure(path: &Path) -> Result<(), RuntimeError> {
    let io = |source| RuntimeError::Io { path: path.display().to_string(), source };
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir_all(path).map_err(io)?;
    let parent = path.parent().ok_or_else(|| RuntimeError::Config("/ is no /dev/shm".to_owned()))?;
    let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev());
    if device(path).map_err(io)? != device(parent).map_err(io)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    mount(Some("shm"), path, Some("tmpfs"), flags, Some(OPTIONS)).map_err(|errno| io(errno.into()))
}

#[cfg(test)]
mod tests {
    use nix::mount::{MntFlags, umount2};
    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn it_is_mounted_once_whoever_asks() {
        if !geteuid().is_root() {
            println!("skipped: mounting needs root");
            return;
        }
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("pod/shm");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| ensure(&path).unwrap());
            }
        });
        fs::write(path.join("kept"), "x").unwrap();
        ensure(&path).unwrap();
        assert!(path.join("kept").exists());
        umount2(&path, MntFlags::MNT_DETACH).unwrap();
        assert!(!path.join("kept").exists());
        assert!(umount2(&path, MntFlags::MNT_DETACH).is_err(), "there was one");
    }
}
