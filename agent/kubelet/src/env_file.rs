//! Variables from a file that another container of the pod wrote (`env[].valueFrom.fileKeyRef`).
//!
//! In: the volume's folder, a relative path, a key. Out: the value. The file was written by the pod: it is opened inside
//! its volume and nowhere else, it is a regular file, and only a bounded part of it is read.
//!
//! The format is the part of a shell's that leaves no doubt: `NAME='value'` lines, a value may span lines and holds no
//! quote; `#` begins a comment line.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use xebec_runtime::open_below;

/// Larger files are refused.
const MAX_SIZE: u64 = 1 << 20;

/// `Ok(None)`: there is no such file or no such key in it.
pub(crate) fn value(volume: &Path, path: &str, key: &str) -> Result<Option<String>, String> {
    let text = match read(volume, path) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(None),
        Err(reason) => return Err(format!("failed to read env file {path:?}: {reason}")),
    };
    let variables = parse(&text).map_err(|reason| format!("failed to parse env file {path:?}: {reason}"))?;
    Ok(variables.into_iter().rev().find(|(name, _)| *name == key).map(|(_, value)| value.to_owned()))
}

fn read(volume: &Path, path: &str) -> Result<Option<String>, String> {
    let root: OwnedFd = File::open(volume).map_err(|e| e.to_string())?.into();
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut file: File = match open_below(&root, path, how) {
        Ok(fd) => fd.into(),
        Err(Errno::ENOENT) => return Ok(None),
        Err(Errno::EXDEV | Errno::ELOOP) => return Err("leads out of the volume".to_owned()),
        Err(errno) => return Err(errno.desc().to_owned()),
    };
    let meta = file.metadata().map_err(|e| e.to_string())?;
    if !meta.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(format!("larger than {MAX_SIZE} bytes"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| "not UTF-8".to_owned())
}

fn parse(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            rest = after;
            continue;
        }
        let malformed = || format!("invalid line {line:?}: must be NAME='value'");
        let (name, quoted) = rest.split_once("='").ok_or_else(malformed)?;
        if name.is_empty() || name.contains(['\n', ' ', '\t', '\'']) {
            return Err(malformed());
        }
        let (value, after) = quoted.split_once('\'').ok_or_else(malformed)?;
        let (tail, after) = after.split_once('\n').unwrap_or((after, ""));
        if !tail.trim().is_empty() {
            return Err(malformed());
        }
        out.push((name, value));
        rest = after;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn values_are_read_and_what_is_not_there_is_none() {
        let tmp = tempfile::tempdir().unwrap();
        let text = "# made by init\n\nA='1'\nLINES='x\ny = \"z\"'  \nA='2'";
        std::fs::write(tmp.path().join("e.env"), text).unwrap();
        let get = |key: &str| value(tmp.path(), "e.env", key);
        assert_eq!(get("A").unwrap().as_deref(), Some("2"));
        assert_eq!(get("LINES").unwrap().as_deref(), Some("x\ny = \"z\""));
        assert_eq!(get("B").unwrap(), None);
        assert_eq!(value(tmp.path(), "none", "A").unwrap(), None);
    }

    #[test]
    fn malformed_lines_are_refused() {
        for bad in ["A=1", "A = '1'", "='1'", "A='1", "A='1' x", "just words", "export A='1'"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn links_out_of_the_volume_and_other_than_files_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let volume = tmp.path().join("v");
        std::fs::create_dir_all(volume.join("dir")).unwrap();
        std::fs::write(tmp.path().join("secret"), "A='1'").unwrap();
        symlink("../secret", volume.join("up")).unwrap();
        symlink("/etc/passwd", volume.join("abs")).unwrap();
        for path in ["up", "abs", "dir", "../secret"] {
            assert!(value(&volume, path, "A").is_err(), "{path}");
        }
    }
}
