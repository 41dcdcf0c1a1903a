//! The host's device nodes, for privileged containers.
//!
//! In: `/dev`. Out: device entries of the specification.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};

use crate::error::RuntimeError;

/// Mounts of their own, or the container's own.
const SKIPPED: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".udev", ".lxc", "console"];
/// `/dev` is flat but for a few folders (`mapper`, `net`, `disk` is links only).
const DEEPEST: usize = 4;
const MOST: usize = 4096;

/// All device nodes below `/dev`. Nodes that vanish meanwhile are passed over.
pub(crate) fn of_host() -> Result<Vec<LinuxDevice>, RuntimeError> {
    let mut devices = Vec::new();
    collect(Path::new("/dev"), DEEPEST, &mut devices)?;
    Ok(devices)
}

fn collect(folder: &Path, depth: usize, devices: &mut Vec<LinuxDevice>) -> Result<(), RuntimeError> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        if SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) || devices.len() >= MOST {
            continue;
        }
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        let kind = metadata.file_type();
        let typ = if kind.is_char_device() {
            LinuxDeviceType::C
        } else if kind.is_block_device() {
            LinuxDeviceType::B
        } else {
            if kind.is_dir() && depth > 1 {
                collect(&entry.path(), depth - 1, devices)?;
            }
            continue;
        };
        let (Ok(major), Ok(minor)) =
            (i64::try_from(major(metadata.rdev())), i64::try_from(minor(metadata.rdev())))
        else {
            continue;
        };
        let device = LinuxDeviceBuilder::default()
            .path(entry.path())
            .typ(typ)
            .major(major)
            .minor(minor)
            .file_mode(metadata.mode() & 0o7777)
            .uid(metadata.uid())
            .gid(metadata.gid());
        devices.push(device.build()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_a_character_device_one_three() {
        let devices = of_host().unwrap();
        let null = devices.iter().find(|device| device.path() == Path::new("/dev/null")).unwrap();
        assert_eq!((null.typ(), null.major(), null.minor()), (LinuxDeviceType::C, 1, 3));
        assert!(!devices.iter().any(|device| device.path().starts_with("/dev/pts")));
    }
}
