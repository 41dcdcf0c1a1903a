//! Opens log files below the node's log folder, and nothing else.
//!
//! In: the log folder, the path of a container's current file. Out: open regular files. Whoever may write below the
//! folder (a pod with a hostPath there) could put a link, a FIFO or a device where a log is expected: the kernel resolves
//! the path without any link (`openat2`), and what is no regular file is refused before it is read.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use xebec_runtime::open_below;

/// The files of one run: the current one and those it was rotated to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFiles {
    /// Trusted: the node's own configuration.
    root: PathBuf,
    /// The current file.
    path: PathBuf,
}

// === impl LogFiles ===

impl LogFiles {
    /// `path` is below `root`.
    pub(super) fn new(root: PathBuf, path: PathBuf) -> Self {
        Self { root, path }
    }

    /// The folder of the files.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// The current file; `None` while there is none.
    pub(super) fn current(&self) -> io::Result<Option<File>> {
        self.open(&self.path)
    }

    /// The number of the current file.
    pub(super) fn inode(&self) -> Option<u64> {
        Some(self.current().ok()??.metadata().ok()?.ino())
    }

    /// Rotated files, oldest first, then the current one. They are opened at once: a rotation meanwhile renames, it does
    /// not change what is open.
    pub(super) fn all(&self) -> io::Result<Vec<File>> {
        let current = self.current()?;
        let inode = current.as_ref().and_then(|f| f.metadata().ok()).map(|m| m.ino());
        let mut files = Vec::new();
        for path in self.rotated()? {
            if let Some(file) = self.open(&path)?
                && file.metadata().is_ok_and(|m| Some(m.ino()) != inode)
            {
                files.push(file);
            }
        }
        files.extend(current);
        Ok(files)
    }

    fn rotated(&self) -> io::Result<Vec<PathBuf>> {
        let Some(name) = self.path.file_name().and_then(|n| n.to_str()) else { return Ok(Vec::new()) };
        let prefix = format!("{name}.");
        let folder = match self.resolve(self.folder(), OFlag::O_DIRECTORY) {
            Ok(folder) => folder,
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(describe(self.folder(), errno)),
        };
        let mut rotated: Vec<PathBuf> = fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))?
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name.to_str().is_some_and(|name| name.starts_with(&prefix)))
            .map(|name| self.folder().join(name))
            .collect();
        rotated.sort();
        Ok(rotated)
    }

    fn open(&self, path: &Path) -> io::Result<Option<File>> {
        // Without waiting: a FIFO has perhaps no writer.
        let file = match self.resolve(path, OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(describe(path, errno)),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other(format!("{}: not a regular file", path.display())));
        }
        Ok(Some(file))
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let below = path.strip_prefix(&self.root).map_err(|_| Errno::EXDEV)?;
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        let root = match File::open(&self.root) {
            Ok(root) => root,
            Err(error) => return Err(Errno::from_raw(error.raw_os_error().unwrap_or_default())),
        };
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | flags)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        open_below(root, below, how)
    }
}

fn describe(path: &Path, errno: Errno) -> io::Error {
    let why = match errno {
        Errno::EXDEV | Errno::ELOOP => "leads out of the log folder, or over a link".to_owned(),
        other => other.desc().to_owned(),
    };
    io::Error::other(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    /// The log of pod `a`, container `c`.
    fn files(root: &Path) -> LogFiles {
        fs::create_dir_all(root.join("a/c")).unwrap();
        LogFiles::new(root.to_owned(), root.join("a/c/0.log"))
    }

    #[test]
    fn a_fifo_or_device_in_place_of_a_log_is_refused_at_once() {
        let tmp = tempfile::tempdir().unwrap();
        let files = files(tmp.path());
        mkfifo(&tmp.path().join("a/c/0.log"), Mode::S_IRWXU).unwrap();
        assert!(files.current().unwrap_err().to_string().contains("not a regular file"));
        assert!(files.all().is_err());
        fs::remove_file(tmp.path().join("a/c/0.log")).unwrap();
        fs::create_dir(tmp.path().join("a/c/0.log")).unwrap();
        assert!(files.current().is_err());
        fs::remove_dir(tmp.path().join("a/c/0.log")).unwrap();
        mkfifo(&tmp.path().join("a/c/0.log.20260101-000001"), Mode::S_IRWXU).unwrap();
        assert!(files.all().is_err(), "a rotated one, too");
    }

    #[test]
    fn links_show_no_other_files() {
        let tmp = tempfile::tempdir().unwrap();
        let files = files(tmp.path());
        fs::write(tmp.path().join("secret"), "s").unwrap();
        symlink("/dev/zero", tmp.path().join("a/c/0.log")).unwrap();
        assert!(files.current().is_err());
        fs::remove_dir_all(tmp.path().join("a/c")).unwrap();
        // Another pod's container folder in place of one's own.
        fs::create_dir_all(tmp.path().join("b/c")).unwrap();
        fs::write(tmp.path().join("b/c/0.log"), "theirs").unwrap();
        symlink("../b/c", tmp.path().join("a/c")).unwrap();
        assert!(files.current().unwrap_err().to_string().contains("over a link"));
        assert!(files.all().is_err());
        let climbing = LogFiles::new(tmp.path().join("a"), tmp.path().join("a/../secret"));
        assert!(climbing.current().is_err());
        fs::remove_file(tmp.path().join("a/c")).unwrap();
        assert!(files.all().unwrap().is_empty(), "no log yet");
        fs::create_dir(tmp.path().join("a/c")).unwrap();
        fs::write(tmp.path().join("a/c/0.log"), "own").unwrap();
        let mut text = String::new();
        files.current().unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "own");
    }
}
