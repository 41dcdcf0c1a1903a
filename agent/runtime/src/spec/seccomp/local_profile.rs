//! Seccomp profiles from the node's own folder.
//!
//! In: the folder, the path that a pod names. Out: the profile. The path is the pod's: the kernel resolves it inside the
//! folder (`openat2`), and only a regular file of bounded size is read.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use oci_spec::runtime::LinuxSeccomp;

use crate::resolve::open_below;

/// Larger profiles are none.
const MAX_PROFILE: u64 = 1 << 20;

/// Reads a profile below `folder`.
///
/// # Errors
/// One sentence that names the profile.
pub(crate) fn read(folder: &Path, profile: &Path) -> Result<LinuxSeccomp, String> {
    let failed =
        |why: &str| format!("cannot load seccomp profile {:?}: {why}", profile.display().to_string());
    let folder = File::open(folder).map_err(|error| failed(&format!("{}: {error}", folder.display())))?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = open_below(&folder, profile, how).map_err(|errno| match errno {
        Errno::EXDEV | Errno::ELOOP => failed("it is not below the node's seccomp folder"),
        other => failed(other.desc()),
    })?;
    let file = File::from(file);
    let is_file = file.metadata().map_err(|error| failed(&error.to_string()))?.is_file();
    if !is_file {
        return Err(failed("not a regular file"));
    }
    let mut text = Vec::new();
    file.take(MAX_PROFILE + 1).read_to_end(&mut text).map_err(|error| failed(&error.to_string()))?;
    if text.len() as u64 > MAX_PROFILE {
        return Err(failed("it is too large"));
    }
    serde_json::from_slice(&text).map_err(|error| failed(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_profile_is_read_below_the_nodes_folder_only() {
        let tmp = tempfile::tempdir().unwrap();
        let folder = tmp.path().join("seccomp");
        fs::create_dir_all(folder.join("in")).unwrap();
        let profile = r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#;
        fs::write(folder.join("in/strict.json"), profile).unwrap();
        fs::write(tmp.path().join("outside.json"), profile).unwrap();
        fs::write(folder.join("empty.json"), "{}").unwrap();
        symlink("../outside.json", folder.join("up.json")).unwrap();
        mkfifo(&folder.join("fifo"), Mode::S_IRWXU).unwrap();
        assert!(read(&folder, Path::new("in/strict.json")).is_ok());
        let absolute = tmp.path().join("outside.json");
        for (bad, why) in [
            ("../outside.json", "not below"),
            ("up.json", "not below"),
            (absolute.to_str().unwrap(), "not below"),
            ("fifo", "not a regular file"),
            ("in", "not a regular file"),
            ("none.json", "No such file"),
            ("empty.json", "defaultAction"),
        ] {
            let said = read(&folder, Path::new(bad)).unwrap_err();
            assert!(said.contains(why) && said.contains("cannot load seccomp profile"), "{bad}: {said}");
        }
    }
}
