//! `subPath`: one path of a volume, resolved inside it and nowhere else.
//!
//! In: the volume's folder, a relative path that the pod may have filled with links. Out: a bind mount of exactly what
//! was opened. The kernel resolves (`openat2` with `RESOLVE_BENEATH`), and the mount is made from the descriptor: what
//! is checked is what is mounted, however fast somebody swaps links meanwhile (CVE-2021-25741).

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use xebec_runtime::open_below;

/// Mounts `sub_path` of the volume at `target`. A path that is not there becomes a folder.
pub(super) fn bind(volume: &Path, sub_path: &Path, target: &Path) -> Result<(), String> {
    let plain = sub_path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain {
        return Err(format!("{} is not a path inside the volume", sub_path.display()));
    }
    let root = fs::File::open(volume).map_err(|e| format!("{}: {e}", volume.display()))?;
    let mode = root.metadata().map_err(|e| e.to_string())?.mode() & 0o7777;
    let found = open_or_make(&root.into(), sub_path, mode)
        .map_err(|errno| format!("{}: {}", sub_path.display(), describe(errno)))?;
    let stat = fstat(&found).map_err(|e| e.to_string())?;
    let is_dir = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    mount_fd(&found, is_dir, target).map_err(|e| format!("{}: {e}", target.display()))
}

fn describe(errno: Errno) -> String {
    match errno {
        Errno::EXDEV | Errno::ELOOP => "leads out of the volume".to_owned(),
        other => other.desc().to_owned(),
    }
}

fn open(dir: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    open_below(dir, path, how)
}

fn open_or_make(root: &OwnedFd, path: &Path, mode: u32) -> Result<OwnedFd, Errno> {
    match open(root, path) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let mut at = root.try_clone().map_err(|_| Errno::EMFILE)?;
    for part in path.components() {
        let Component::Normal(part) = part else { continue };
        at = match open(&at, Path::new(part)) {
            Err(Errno::ENOENT) => {
                match mkdirat(&at, part, Mode::from_bits_truncate(mode)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
                open(&at, Path::new(part))?
            }
            other => other?,
        };
    }
    // Once more from the top: a link inside may point up and down again, never out.
    open(root, path)
}

fn mount_fd(found: &OwnedFd, is_dir: bool, target: &Path) -> std::io::Result<()> {
    match umount2(target, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH) {
        // Left by an earlier run of the container.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if is_dir {
        fs::create_dir_all(target)?;
    } else {
        fs::OpenOptions::new().create(true).append(true).open(target)?;
    }
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source.as_str()), target, None::<&str>, flags, None::<&str>)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::fcntl::{RenameFlags, renameat2};

    use super::*;

    fn resolve(volume: &Path, path: &str) -> Result<OwnedFd, Errno> {
        let root: OwnedFd = fs::File::open(volume).unwrap().into();
        open_or_make(&root, Path::new(path), 0o755)
    }

    #[test]
    fn cve_2021_25741_links_out_of_the_volume_are_not_followed() {
        let tmp = tempfile::tempdir().unwrap();
        let volume = tmp.path().join("v");
        fs::create_dir_all(volume.join("in/deep")).unwrap();
        fs::write(tmp.path().join("secret"), "s").unwrap();
        symlink("/etc", volume.join("abs")).unwrap();
        symlink("../secret", volume.join("up")).unwrap();
        symlink("in/deep", volume.join("inside")).unwrap();
        symlink("../../..", volume.join("in/climb")).unwrap();
        for path in ["abs", "abs/passwd", "up", "in/climb", "in/climb/etc", "in/climb/new"] {
            let errno = resolve(&volume, path).map(drop).unwrap_err();
            assert!(matches!(errno, Errno::EXDEV | Errno::ELOOP), "{path}: {errno}");
        }
        assert!(resolve(&volume, "inside").is_ok());
        assert!(resolve(&volume, "made/by/us").is_ok());
        assert!(volume.join("made/by/us").is_dir());
        assert!(bind(&volume, Path::new("../secret"), &tmp.path().join("t")).is_err());
    }

    #[test]
    fn cve_2021_25741_a_folder_that_becomes_a_link_while_it_is_resolved_leads_nowhere_else() {
        const FLIPS: usize = 100_000;
        let tmp = tempfile::tempdir().unwrap();
        let volume = tmp.path().join("v");
        let outside = tmp.path().join("outside");
        fs::create_dir_all(volume.join("flip/deep")).unwrap();
        fs::create_dir_all(outside.join("deep")).unwrap();
        symlink("../outside", volume.join("spare")).unwrap();
        let flipping = std::thread::scope(|scope| {
            let flipper = scope.spawn(|| {
                let dir = fs::File::open(&volume).unwrap();
                for _ in 0..FLIPS {
                    renameat2(&dir, "flip", &dir, "spare", RenameFlags::RENAME_EXCHANGE).unwrap();
                }
            });
            let mut inside = 0;
            while !flipper.is_finished() {
                for path in ["flip", "flip/deep", "flip/made/here"] {
                    let Ok(found) = resolve(&volume, path) else { continue };
                    let found = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).unwrap();
                    assert!(found.starts_with(&volume), "{path} led to {}", found.display());
                    inside += 1;
                }
            }
            inside
        });
        assert!(flipping > 0, "it was resolved in between");
        let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["deep"], "nothing is made outside");
    }
}
