//! A pod's volumes: made before its containers, kept up to date, given back at its end.
//!
//! In: Pod, referenced objects, tokens. Out: folders on the host and the bind mounts of each container.
//! Each volume lives in `pods/<uid>/volumes/<name>`; what comes from the API is swapped in whole (`atomic_writer`).

mod atomic_writer;
mod empty_dir;
mod host_path;
mod mount;
mod ownership;
mod payload;
mod subpath;
mod token;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use kube::Client;
use xebec_runtime::types::{Mount, MountPropagation};

use crate::downward::DownwardContext;
use crate::expansion::expand;
use crate::objects::ObjectSnapshot;
use crate::pod::{self, PodUid};
use crate::resources::NodeCapacity;

pub use token::TokenSource;

/// Why volumes are not ready.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A ConfigMap, Secret or key is missing, or a token is not given.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
    Content { volume: String, reason: String },
    #[error("MountVolume.SetUp failed for volume {volume:?} : hostPath type check failed: {reason}")]
    HostPath { volume: String, reason: String },
    #[error("volume {volume:?} has a type that this node does not support")]
    Unsupported { volume: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("failed to prepare subPath for volumeMount {volume:?} of container {container:?}: {reason}")]
    SubPath { volume: String, container: String, reason: String },
}

impl VolumeError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// A changed object may heal it.
    pub fn heals_by_change(&self) -> bool {
        matches!(self, Self::Content { .. })
    }
}

/// Folders of pods below the state folder.
#[derive(Clone, Debug)]
pub struct PodDirs {
    root: PathBuf,
}

impl PodDirs {
    pub fn new(state_dir: &Path) -> Self {
        Self { root: state_dir.join("pods") }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn pod(&self, uid: &PodUid) -> PathBuf {
        self.root.join(&uid.0)
    }

    pub fn volumes(&self, uid: &PodUid) -> PathBuf {
        self.pod(uid).join("volumes")
    }

    pub fn subpaths(&self, uid: &PodUid) -> PathBuf {
        self.pod(uid).join("volume-subpaths")
    }

    /// Termination messages of a container's runs.
    pub fn container(&self, uid: &PodUid, container: &str) -> PathBuf {
        self.pod(uid).join("containers").join(container)
    }
}

/// Makes, refreshes and removes volumes.
#[derive(Clone)]
pub struct Volumes {
    dirs: PodDirs,
    tokens: TokenSource,
    node: NodeCapacity,
}

/// What content is made from at one moment.
pub struct VolumeInput<'a> {
    pub pod: &'a Pod,
    pub objects: &'a ObjectSnapshot,
    pub host_ips: &'a [IpAddr],
    /// Empty while the pod has no network yet.
    pub pod_ips: &'a [IpAddr],
}

/// When a volume's content must be made again although nothing changed (tokens grow old).
pub type RefreshAt = Option<Timestamp>;

impl Volumes {
    pub fn new(dirs: PodDirs, client: Client, node: NodeCapacity) -> Self {
        Self { dirs, tokens: TokenSource::new(client), node }
    }

    pub fn dirs(&self) -> &PodDirs {
        &self.dirs
    }

    /// Makes what is missing and brings content up to date. Idempotent; also the way content is refreshed.
    pub async fn sync(&self, input: &VolumeInput<'_>) -> Result<RefreshAt, VolumeError> {
        let uid = pod::uid(input.pod);
        let base = self.dirs.volumes(&uid);
        std::fs::create_dir_all(&base).map_err(VolumeError::io(&base))?;
        let mut refresh: RefreshAt = None;
        for volume in input.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            if let Some(at) = self.sync_one(volume, input, &base.join(&volume.name)).await? {
                refresh = Some(refresh.map_or(at, |r| r.min(at)));
            }
        }
        Ok(refresh)
    }

    async fn sync_one(
        &self,
        volume: &Volume,
        input: &VolumeInput<'_>,
        path: &Path,
    ) -> Result<RefreshAt, VolumeError> {
        let fs_group =
            input.pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|c| c.fs_group);
        if let Some(source) = &volume.empty_dir {
            empty_dir::make(source, path, fs_group)?;
            return Ok(None);
        }
        if let Some(source) = &volume.host_path {
            host_path::check(&volume.name, source)?;
            return Ok(None);
        }
        let payload = self.tokens.payload(volume, input, self.node).await?;
        let Some(payload) = payload else {
            return Err(VolumeError::Unsupported { volume: volume.name.clone() });
        };
        if payload.in_memory {
            mount::tmpfs(path, None, None)?;
        }
        atomic_writer::write(path, &payload.files, fs_group)?;
        Ok(payload.refresh_at)
    }

    /// Folder of a volume on the host.
    fn source_path(&self, volume: &Volume, uid: &PodUid) -> PathBuf {
        match &volume.host_path {
            Some(source) => PathBuf::from(&source.path),
            None => self.dirs.volumes(uid).join(&volume.name),
        }
    }

    /// The bind mounts of one container. Sub-paths are resolved here, inside their volume.
    pub fn container_mounts(
        &self,
        pod: &Pod,
        container: &Container,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, VolumeError> {
        let uid = pod::uid(pod);
        let volumes: BTreeMap<&str, &Volume> =
            pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).map(|v| (v.name.as_str(), v)).collect();
        let mut mounts = Vec::new();
        for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
            let failed = |reason: String| VolumeError::SubPath {
                volume: wanted.name.clone(),
                container: container.name.clone(),
                reason,
            };
            let volume = volumes
                .get(wanted.name.as_str())
                .ok_or_else(|| VolumeError::Unsupported { volume: wanted.name.clone() })?;
            let sub_path = match (&wanted.sub_path, &wanted.sub_path_expr) {
                (_, Some(expression)) if !expression.is_empty() => {
                    let lookup =
                        |name: &str| env.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.clone());
                    let expanded = expand(expression, lookup);
                    if expanded.contains("$(") {
                        return Err(failed(format!("missing value for {expression:?}")));
                    }
                    expanded
                }
                (Some(path), _) => path.clone(),
                (None, _) => String::new(),
            };
            let source = self.source_path(volume, &uid);
            let host_path = if sub_path.is_empty() {
                source
            } else {
                let target =
                    self.dirs.subpaths(&uid).join(&wanted.name).join(&container.name).join(index.to_string());
                subpath::bind(&source, Path::new(&sub_path), &target).map_err(failed)?;
                target
            };
            let content = volume.config_map.is_some()
                || volume.secret.is_some()
                || volume.downward_api.is_some()
                || volume.projected.is_some();
            mounts.push(Mount {
                host_path,
                container_path: PathBuf::from(&wanted.mount_path),
                read_only: content || wanted.read_only.unwrap_or(false),
                propagation: match wanted.mount_propagation.as_deref() {
                    Some("HostToContainer") => MountPropagation::HostToContainer,
                    Some("Bidirectional") => MountPropagation::Bidirectional,
                    _ => MountPropagation::Private,
                },
            });
        }
        Ok(mounts)
    }

    /// Unmounts and removes all volumes of a pod. Idempotent. Never follows a mount or link out of the pod's folder.
    pub fn release(&self, uid: &PodUid) -> Result<(), VolumeError> {
        let pod = self.dirs.pod(uid);
        mount::unmount_below(&pod)?;
        for dir in [self.dirs.subpaths(uid), self.dirs.volumes(uid)] {
            mount::remove_tree(&dir)?;
        }
        Ok(())
    }

    /// Removes the pod's whole folder.
    pub fn forget(&self, uid: &PodUid) -> Result<(), VolumeError> {
        self.release(uid)?;
        mount::remove_tree(&self.dirs.pod(uid))
    }
}

/// Downward values for volume content.
fn downward_context<'a>(input: &'a VolumeInput<'_>) -> DownwardContext<'a> {
    DownwardContext { host_ips: input.host_ips, pod_ips: input.pod_ips }
}
