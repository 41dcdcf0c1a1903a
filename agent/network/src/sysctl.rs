//! Network sysctls of the namespace the calling thread is in.
//!
//! In: keys below `/proc/sys/net`, values. Out: written files. A value that is already right is not written again:
//! some of these reset others when they are written.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const ROOT: &str = "/proc/sys/net";

/// The kernel knows IPv6.
pub(crate) fn has_ipv6() -> bool {
    Path::new(ROOT).join("ipv6").exists()
}

/// Reads a key; `None` where this kernel has no such key.
pub(crate) fn read(key: &str) -> Result<Option<String>> {
    let path = path(key);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("reading", path, error)),
    }
}

/// Sets a key unless it has this value. A key that this kernel lacks is an error.
pub(crate) fn set(key: &str, value: &str) -> Result<()> {
    if read(key)?.as_deref() == Some(value) {
        return Ok(());
    }
    let path = path(key);
    fs::write(&path, value).map_err(|error| Error::file("setting", path, error))
}

/// Interfaces that have settings in a family's `conf` folder, with `all` and `default`.
pub(crate) fn interfaces(family: &str) -> Result<Vec<String>> {
    let folder = Path::new(ROOT).join(family).join("conf");
    let entries = fs::read_dir(&folder).map_err(|error| Error::file("listing", &folder, error))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

fn path(key: &str) -> PathBuf {
    Path::new(ROOT).join(key)
}
