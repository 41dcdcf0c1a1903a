//! emptyDir: a folder that lives as long as the pod, on disk or in memory.

use std::path::Path;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use xebec_api::Quantity;

use super::{VolumeError, mount, ownership};

/// Makes it once; what the pod wrote stays.
pub(super) fn make(
    source: &EmptyDirVolumeSource,
    path: &Path,
    fs_group: Option<i64>,
) -> Result<(), VolumeError> {
    let memory = source.medium.as_deref() == Some("Memory");
    let fresh = !path.exists() || (memory && !mount::is_mount_point(path)?);
    if !fresh {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(VolumeError::io(path))?;
    if memory {
        let limit = source.size_limit.as_ref().and_then(|q| Quantity::parse(&q.0).ok());
        let bytes = limit.and_then(|q| u64::try_from(q.value()).ok()).filter(|b| *b > 0);
        mount::tmpfs(path, bytes)?;
    }
    ownership::set_writable_root(path, fs_group)
}
