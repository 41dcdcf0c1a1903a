//! The image's own `/etc/passwd` and `/etc/group`, for `USER` and supplementary groups.
//!
//! In: the chain id of an unpacked image. Out: two bounded texts. The image is hostile: it is mounted read-only in a
//! mount namespace that only one thread sees and that ends with it, paths are resolved inside it by the kernel
//! (`openat2`), only regular files are read, and no more than 1 MiB of each.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use containerd_client::services::v1::snapshots::ViewSnapshotRequest;
use containerd_client::types;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{SFlag, fstat};
use tonic::Code;

use crate::error::RuntimeError;
use crate::resolve::open_below;
use crate::rpc::{Client, rpc};

const MAX_FILE: u64 = 1 << 20;

/// What an image says about users. Empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EtcFiles {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

impl Client {
    /// Reads the files of an unpacked image.
    pub(crate) async fn read_etc(
        &self,
        snapshotter: &str,
        chain_id: &str,
        mount_point: &Path,
    ) -> Result<EtcFiles, RuntimeError> {
        if chain_id.is_empty() {
            return Ok(EtcFiles::default());
        }
        let key = format!("xebec-view {chain_id}");
        // Without the label the garbage collector may take the view before it was read.
        let labels = [("containerd.io/gc.root".to_owned(), jiff::Timestamp::now().to_string())].into();
        let request = ViewSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.clone(),
            parent: chain_id.to_owned(),
            labels,
        };
        let view = || rpc!(self, self.timeouts.metadata, snapshots.view(request.clone()));
        let viewed = match view().await {
            Err(failed) if self.tidied(snapshotter, &failed).await? => view().await,
            viewed => viewed,
        };
        let mounts = match viewed {
            Ok(view) => view.mounts,
            Err(failed) if failed.code == Code::AlreadyExists => {
                self.snapshot_mounts(snapshotter, &key).await?.unwrap_or_default()
            }
            Err(failed) => return Err(failed.into()),
        };
        let folder = mount_point.to_owned();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // A thread of its own, not one of the pool: its mount namespace must end with it.
        let spawned = std::thread::Builder::new().name("image-etc".into()).spawn(move || {
            let _ = sender.send(read_in_namespace(&mounts, &folder));
        });
        let read = match spawned {
            Ok(_) => receiver.await.unwrap_or_else(|_| Err(io(mount_point, ErrorKind::Other.into()))),
            Err(error) => Err(io(mount_point, error)),
        };
        self.remove_snapshot(snapshotter, &key).await?;
        read
    }
}

fn read_in_namespace(mounts: &[types::Mount], folder: &Path) -> Result<EtcFiles, RuntimeError> {
    let fail = |errno: Errno| io(folder, errno.into());
    std::fs::create_dir_all(folder).map_err(|error| io(folder, error))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(fail)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(fail)?;
    let root = attach(mounts, folder)?;
    let root = File::open(&root).map_err(|error| io(&root, error))?;
    Ok(EtcFiles {
        passwd: read_file(&root, "etc/passwd").map_err(|error| io(Path::new("/etc/passwd"), error))?,
        group: read_file(&root, "etc/group").map_err(|error| io(Path::new("/etc/group"), error))?,
    })
}

/// Makes a snapshot's mounts visible; answers where.
fn attach(mounts: &[types::Mount], folder: &Path) -> Result<PathBuf, RuntimeError> {
    let [only] = mounts else {
        return Err(RuntimeError::Config(format!("a snapshot of {} mounts is not supported", mounts.len())));
    };
    match only.r#type.as_str() {
        "bind" | "rbind" => Ok(PathBuf::from(&only.source)),
        "overlay" => {
            let lower: Vec<&str> = only
                .options
                .iter()
                .find_map(|option| option.strip_prefix("lowerdir="))
                .map(|dirs| dirs.split(':').collect())
                .unwrap_or_default();
            let (base, lower) = relative_to_base(&lower);
            // mount(2) takes one page of options: relative names make many layers fit.
            std::env::set_current_dir(&base).map_err(|error| io(&base, error))?;
            let data = format!("lowerdir={}", lower.join(":"));
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("overlay"), folder, Some("overlay"), flags, Some(data.as_str()))
                .map_err(|errno| io(folder, errno.into()))?;
            Ok(folder.to_owned())
        }
        other => Err(RuntimeError::Config(format!("snapshots of type {other:?} are not supported"))),
    }
}

/// The longest folder that is above all paths, and the paths below it.
fn relative_to_base(paths: &[&str]) -> (PathBuf, Vec<String>) {
    let mut base =
        paths.first().and_then(|path| Path::new(path).parent()).unwrap_or(Path::new("/")).to_owned();
    while !paths.iter().all(|path| Path::new(path).starts_with(&base)) && base.pop() {}
    let below = |path: &&str| {
        let below = Path::new(path).strip_prefix(&base).unwrap_or(Path::new(path));
        below.to_string_lossy().into_owned()
    };
    let relative = paths.iter().map(below).collect();
    (base, relative)
}

/// A regular file inside `root`; empty when there is none.
fn read_file(root: &File, path: &str) -> std::io::Result<String> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match open_below(root.as_fd(), path, how) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENXIO) => return Ok(String::new()),
        Err(errno) => return Err(errno.into()),
    };
    if fstat(&file)?.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    File::from(file).take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::new(ErrorKind::InvalidData, format!("longer than {MAX_FILE} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn io(path: &Path, source: std::io::Error) -> RuntimeError {
    RuntimeError::Io { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_named_from_their_common_folder() {
        let (base, lower) = relative_to_base(&["/a/snapshots/12/fs", "/a/snapshots/3/fs"]);
        assert_eq!(base, Path::new("/a/snapshots"));
        assert_eq!(lower, ["12/fs", "3/fs"]);
    }

    #[test]
    fn files_outside_the_image_are_not_read() {
        let dir = std::env::temp_dir().join(format!("xebec-etc-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("root/etc")).unwrap();
        std::fs::write(dir.join("secret"), "outside").unwrap();
        std::os::unix::fs::symlink("../../secret", dir.join("root/etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/etc/real", dir.join("root/etc/group")).unwrap();
        std::fs::write(dir.join("root/etc/real"), "inside").unwrap();
        let root = File::open(dir.join("root")).unwrap();
        assert_eq!(read_file(&root, "etc/passwd").unwrap(), "");
        assert_eq!(read_file(&root, "etc/group").unwrap(), "inside");
        std::fs::write(dir.join("root/etc/big"), vec![b'x'; 2 << 20]).unwrap();
        assert!(read_file(&root, "etc/big").is_err());
        assert_eq!(read_file(&root, "etc").unwrap(), "", "a folder is no file");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
