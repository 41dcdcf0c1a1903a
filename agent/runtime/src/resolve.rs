//! Paths that others may change while they are resolved.
//!
//! In: a folder, a path below it, how to resolve it (`openat2`, Linux 5.6). Out: a descriptor, or why there is none.

use std::os::fd::{AsFd, OwnedFd};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{OpenHow, openat2};

/// A rename or mount anywhere on the host makes the kernel give up what it has to be sure of. That many in a row are
/// somebody's intent.
const ATTEMPTS: usize = 128;

/// `openat2`, tried again where the kernel says that something was renamed meanwhile (`EAGAIN`).
///
/// # Errors
/// Those of `openat2`; `EAGAIN` when it never became quiet.
pub fn open_below<P: NixPath + ?Sized>(dir: impl AsFd, path: &P, how: OpenHow) -> Result<OwnedFd, Errno> {
    for _ in 1..ATTEMPTS {
        match openat2(dir.as_fd(), path, how) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    openat2(dir, path, how)
}
