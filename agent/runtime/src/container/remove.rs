//! Removing containers, whole ones and what is left of creations that were cut off.
//!
//! In: ids. Out: no task, snapshot or record of them. The record goes last, so that a removal which is cut off can be
//! repeated. Superseded generations go with the container that replaced them, at the latest when the next agent starts.

use std::time::Duration;

use containerd_client::services::v1::{Container as Record, DeleteContainerRequest};

use super::marks::Marks;
use super::record::{self, Identity};
use crate::containerd::Containerd;
use crate::error::RuntimeError;
use crate::rpc::{Client, Optional, rpc};
use crate::types::{ContainerId, ContainerKey};

/// How long a creation that was cut off may go on inside containerd. A task that it makes after its record was removed
/// would belong to nobody.
const SETTLE: Duration = Duration::from_millis(500);

// === impl Containerd ===

impl Containerd {
    pub(crate) async fn erase(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        if let Some((record, identity)) = self.client.record(&id.0).await? {
            if identity.generation > 0 {
                let all = self.client.generations(&identity.key).await?;
                for (older, _) in all.iter().filter(|(_, known)| known.superseded) {
                    self.erase_generation(&older.id, Marks::default()).await?;
                }
            }
            let marks = self.marks.of(&record);
            return self.erase_generation(&id.0, marks).await;
        }
        self.client.delete_task(&id.0).await?;
        self.client.remove_snapshot(&self.config.snapshotter, &id.0).await?;
        self.io_folder(&id.0).remove();
        self.marks.forget(&id.0);
        Ok(())
    }

    async fn erase_generation(&self, id: &str, marks: Marks) -> Result<(), RuntimeError> {
        let cut_off = !self.client.delete_task(id).await? && marks == Marks::default();
        if cut_off {
            tokio::time::sleep(SETTLE).await;
            self.client.delete_task(id).await?;
        }
        self.client.remove_snapshot(&self.config.snapshotter, id).await?;
        self.io_folder(id).remove();
        self.client.delete_record(id).await?;
        self.marks.forget(id);
        Ok(())
    }

    /// Marks generations that are to be replaced: from here on they are no containers of ours.
    pub(super) async fn supersede(&self, found: Vec<(Record, Identity)>) -> Result<(), RuntimeError> {
        let (label, value) = record::superseded();
        for (record, _) in found.into_iter().filter(|(_, known)| !known.superseded) {
            tracing::info!(container = record.id, "making a container again whose creation was cut off");
            self.client.mark(&record.id, label, value.clone()).await?;
        }
        Ok(())
    }

    /// Removes what an earlier agent superseded and did not come to remove.
    pub(crate) async fn sweep(&self) -> Result<(), RuntimeError> {
        let all = self.client.list_records(record::filter()).await?;
        for (record, _) in all.iter().filter(|(_, known)| known.superseded) {
            self.erase_generation(&record.id, Marks::default()).await?;
        }
        Ok(())
    }
}

// === impl Client ===

impl Client {
    /// All records of one container, superseded ones too.
    pub(super) async fn generations(
        &self,
        key: &ContainerKey,
    ) -> Result<Vec<(Record, Identity)>, RuntimeError> {
        let mut found = self.list_records(record::filter_of(key)).await?;
        found.retain(|(_, identity)| identity.key == *key);
        Ok(found)
    }

    async fn delete_record(&self, id: &str) -> Result<(), RuntimeError> {
        let request = DeleteContainerRequest { id: id.to_owned() };
        rpc!(self, self.timeouts.metadata, containers.delete(request)).await.optional()?;
        Ok(())
    }
}
