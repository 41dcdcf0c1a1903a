//! emptyDir: a folder that lives as long as the pod, on disk or in memory.

use std::path::Path;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use xebec_api::Quantity;

use super::{VolumeError, mount, ownership};

/// Makes it once; what the pod wrote stays, the mode it gave the folder too. The folder gets its name, or its mount,
/// only when it is as the pod must find it: a kill in between leaves nothing half-made.
pub(super) fn make(
    source: &EmptyDirVolumeSource,
    path: &Path,
    fs_group: Option<i64>,
) -> Result<(), VolumeError> {
    if source.medium.as_deref() == Some("Memory") {
        let limit = source.size_limit.as_ref().and_then(|q| Quantity::parse(&q.0).ok());
        let bytes = limit.and_then(|q| u64::try_from(q.value()).ok()).filter(|b| *b > 0);
        return mount::tmpfs(path, bytes, Some(ownership::writable_root(fs_group)));
    }
    if path.exists() {
        return Ok(());
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // No volume has such a name.
    name.push(".new");
    let new = path.with_file_name(name);
    std::fs::create_dir_all(&new).map_err(VolumeError::io(&new))?;
    ownership::set_writable_root(&new, fs_group)?;
    std::fs::rename(&new, path).map_err(VolumeError::io(path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_folder_that_was_cut_off_in_the_making_is_finished_and_the_pods_own_mode_stays() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("data");
        fs::create_dir(tmp.path().join("data.new")).unwrap();
        make(&EmptyDirVolumeSource::default(), &path, None).unwrap();
        let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
        assert_eq!(mode(), 0o777);
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1, "nothing is left of the making");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        make(&EmptyDirVolumeSource::default(), &path, None).unwrap();
        assert_eq!(mode(), 0o700);
    }
}
