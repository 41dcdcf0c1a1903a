//! Layers to snapshots: one committed snapshot per layer, named by its chain id.
//!
//! In: layer blobs in the content store. Out: the snapshot that a container's root filesystem is prepared from. What the
//! diff service applied must have the digest that the image configuration gives.

use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::snapshots::{
    CleanupRequest, CommitSnapshotRequest, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
    StatSnapshotRequest,
};
use containerd_client::types;
use tonic::Code;

use super::content::WriteError;
use super::manifest::Descriptor;
use crate::error::RuntimeError;
use crate::rpc::{CallError, Client, Optional, rpc};

/// One layer to unpack.
pub(crate) struct Layer<'a> {
    pub(crate) blob: &'a Descriptor,
    pub(crate) diff_id: &'a str,
    /// Chain id of what lies below; empty for the first.
    pub(crate) parent: &'a str,
    pub(crate) chain_id: &'a str,
}

impl Client {
    pub(crate) async fn has_snapshot(&self, snapshotter: &str, key: &str) -> Result<bool, RuntimeError> {
        let request = StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        let found = rpc!(self, self.timeouts.metadata, snapshots.stat(request)).await.optional()?;
        Ok(found.is_some())
    }

    pub(crate) async fn snapshot_mounts(
        &self,
        snapshotter: &str,
        key: &str,
    ) -> Result<Option<Vec<types::Mount>>, RuntimeError> {
        let request = MountsRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        let found = rpc!(self, self.timeouts.metadata, snapshots.mounts(request)).await.optional()?;
        Ok(found.map(|found| found.mounts))
    }

    /// No error when it is gone.
    pub(crate) async fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<(), RuntimeError> {
        let request = RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        rpc!(self, self.timeouts.metadata, snapshots.remove(request)).await.optional()?;
        Ok(())
    }

    pub(crate) async fn prepare_snapshot(
        &self,
        request: PrepareSnapshotRequest,
    ) -> Result<Vec<types::Mount>, CallError> {
        let prepare = || rpc!(self, self.timeouts.metadata, snapshots.prepare(request.clone()));
        let prepared = match prepare().await {
            Err(failed) if self.tidied(&request.snapshotter, &failed).await? => prepare().await,
            prepared => prepared,
        };
        prepared.map(|prepared| prepared.mounts)
    }

    /// A containerd that was killed while it made a snapshot has left a folder where it wants to put the next one. True
    /// when that was the failure and it has been told to tidy up.
    pub(crate) async fn tidied(&self, snapshotter: &str, failed: &CallError) -> Result<bool, CallError> {
        let blocked = failed.is_refusal() && failed.error.to_string().contains("failed to rename");
        if blocked {
            let request = CleanupRequest { snapshotter: snapshotter.to_owned() };
            match rpc!(self, self.timeouts.task, snapshots.cleanup(request)).await {
                // containerd 1.6 does not pass it on, but has removed what was in its way when it failed.
                Err(missing) if missing.code == Code::Unimplemented => {}
                tidied => drop(tidied?),
            }
        }
        Ok(blocked)
    }

    /// Unpacks one layer on top of its parent. The caller runs it once at a time per chain id.
    pub(crate) async fn unpack(&self, snapshotter: &str, layer: &Layer<'_>) -> Result<(), WriteError> {
        let key = format!("xebec-extract {}", layer.chain_id);
        let mounts = self.prepare_extraction(snapshotter, &key, layer).await?;
        let Some(mounts) = mounts else { return Ok(()) };
        let diff = types::Descriptor {
            media_type: layer.blob.media_type.clone(),
            digest: layer.blob.digest.clone(),
            size: i64::try_from(layer.blob.size).unwrap_or(i64::MAX),
            annotations: Default::default(),
        };
        let request = ApplyRequest { diff: Some(diff), mounts, ..Default::default() };
        let applied = rpc!(self, self.timeouts.unpack, diff.apply(request)).await;
        let applied = match applied {
            Ok(answer) => answer.applied.unwrap_or_default().digest,
            Err(failed) => {
                self.remove_snapshot(snapshotter, &key).await.map_err(WriteError::Runtime)?;
                return Err(failed.into());
            }
        };
        if applied != layer.diff_id {
            self.remove_snapshot(snapshotter, &key).await.map_err(WriteError::Runtime)?;
            return Err(WriteError::Mismatch(format!("unpacked it is {applied}")));
        }
        let request = CommitSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            name: layer.chain_id.to_owned(),
            key: key.clone(),
            ..Default::default()
        };
        match rpc!(self, self.timeouts.metadata, snapshots.commit(request)).await {
            Ok(()) => {}
            Err(failed) if failed.code == Code::AlreadyExists => {
                self.remove_snapshot(snapshotter, &key).await.map_err(WriteError::Runtime)?;
            }
            Err(failed) => return Err(failed.into()),
        }
        let labels = [("containerd.io/uncompressed".to_owned(), layer.diff_id.to_owned())].into();
        self.label_blob(&layer.blob.digest, labels).await.map_err(WriteError::Runtime)
    }

    /// An empty snapshot to unpack into; what an interrupted attempt left is thrown away. `None`: it is committed.
    async fn prepare_extraction(
        &self,
        snapshotter: &str,
        key: &str,
        layer: &Layer<'_>,
    ) -> Result<Option<Vec<types::Mount>>, WriteError> {
        let request = PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: layer.parent.to_owned(),
            ..Default::default()
        };
        let prepared = match self.prepare_snapshot(request.clone()).await {
            Err(failed) if failed.code == Code::AlreadyExists => {
                if self.has_snapshot(snapshotter, layer.chain_id).await.map_err(WriteError::Runtime)? {
                    return Ok(None);
                }
                self.remove_snapshot(snapshotter, key).await.map_err(WriteError::Runtime)?;
                self.prepare_snapshot(request).await
            }
            prepared => prepared,
        };
        Ok(Some(prepared?))
    }
}
