//! hostPath: a path of the node, checked against the type that the pod expects.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::VolumeError;

pub(super) fn check(volume: &str, source: &HostPathVolumeSource) -> Result<(), VolumeError> {
    let path = Path::new(&source.path);
    let refuse = |what: &str| {
        let reason = format!("{} is not {what}", source.path);
        Err(VolumeError::HostPath { volume: volume.to_owned(), reason })
    };
    if path.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
        return refuse("a path without '..'");
    }
    let found = fs::metadata(path).ok();
    let kind = found.as_ref().map(fs::Metadata::file_type);
    match source.type_.as_deref().unwrap_or_default() {
        // The runtime makes a missing source a folder, as upstream's does.
        "" if kind.is_none() => make_dir(path),
        "" => Ok(()),
        "DirectoryOrCreate" => match kind {
            None => make_dir(path),
            Some(kind) if kind.is_dir() => Ok(()),
            Some(_) => refuse("a directory"),
        },
        "Directory" if kind.is_some_and(|k| k.is_dir()) => Ok(()),
        "Directory" => refuse("a directory"),
        "FileOrCreate" => match kind {
            None => fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(path)
                .map(drop)
                .map_err(VolumeError::io(path)),
            Some(kind) if kind.is_file() => Ok(()),
            Some(_) => refuse("a file"),
        },
        "File" if kind.is_some_and(|k| k.is_file()) => Ok(()),
        "File" => refuse("a file"),
        "Socket" if kind.is_some_and(|k| k.is_socket()) => Ok(()),
        "Socket" => refuse("a socket file"),
        "CharDevice" if kind.is_some_and(|k| k.is_char_device()) => Ok(()),
        "CharDevice" => refuse("a character device"),
        "BlockDevice" if kind.is_some_and(|k| k.is_block_device()) => Ok(()),
        "BlockDevice" => refuse("a block device"),
        other => Err(VolumeError::HostPath {
            volume: volume.to_owned(),
            reason: format!("{other} is an invalid volume type"),
        }),
    }
}

fn make_dir(path: &Path) -> Result<(), VolumeError> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(VolumeError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_admits_what_it_names() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("sock")).unwrap();
        // path, type, allowed
        let cases = [
            (at("dir"), "", true),
            (at("dir"), "Directory", true),
            (at("none"), "Directory", false),
            (at("made"), "DirectoryOrCreate", true),
            (at("file"), "DirectoryOrCreate", false),
            (at("file"), "File", true),
            (at("dir"), "File", false),
            (at("made-file"), "FileOrCreate", true),
            (at("sock"), "Socket", true),
            (at("file"), "Socket", false),
            ("/dev/null".to_owned(), "CharDevice", true),
            ("/dev/null".to_owned(), "BlockDevice", false),
            (at("dir/../dir"), "", false),
            (at("dir"), "Nonsense", false),
        ];
        for (path, type_, allowed) in cases {
            let source = HostPathVolumeSource { path: path.clone(), type_: Some(type_.to_owned()) };
            assert_eq!(check("v", &source).is_ok(), allowed, "{path} {type_}");
        }
        assert!(Path::new(&at("made")).is_dir() && Path::new(&at("made-file")).is_file());
    }
}
