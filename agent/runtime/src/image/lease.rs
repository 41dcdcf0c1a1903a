//! Leases: what a pull makes is kept from containerd's garbage collector until an image record refers to it.
//!
//! In: the image's name. Out: a lease of its own per pull. A failed pull leaves its lease behind, so that the next try
//! finds the layers: never more than one per image, because every end of a pull removes those before it. It expires.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_client::services::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, ListRequest, Resource,
};
use sha2::{Digest, Sha256};

use crate::error::RuntimeError;
use crate::rpc::{Client, Optional, rpc};

/// How long the pieces of a failed pull are kept.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
const EXPIRE: &str = "containerd.io/gc.expire";

/// The leases of pulls under way.
#[derive(Clone, Default)]
pub(crate) struct Leases(Arc<Mutex<HashSet<String>>>);

/// A lease in use. Dropped, it is one that may be removed.
pub(crate) struct Lease {
    pub(crate) id: String,
    leases: Leases,
}

/// All leases of one image begin with this.
fn prefix(image: &str) -> String {
    format!("xebec-pull-{}-", &hex::encode(Sha256::digest(image.as_bytes()))[..16])
}

// === impl Leases ===

impl Leases {
    pub(crate) fn hold(&self, id: String) -> Lease {
        self.lock().insert(id.clone());
        Lease { id, leases: self.clone() }
    }

    /// Removes the leases of an image but those in use and `kept`.
    pub(crate) async fn release(
        &self,
        client: &Client,
        image: &str,
        kept: Option<&str>,
    ) -> Result<(), RuntimeError> {
        for id in client.leases_of(image).await? {
            if kept != Some(id.as_str()) && !self.lock().contains(&id) {
                let request = DeleteRequest { id, sync: false };
                rpc!(client, client.timeouts.metadata, leases.delete(request)).await.optional()?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.lock().remove(&self.id);
    }
}

// === impl Client ===

impl Client {
    /// A new lease for a pull of an image.
    pub(crate) async fn create_lease(&self, image: &str) -> Result<String, RuntimeError> {
        let now = SystemTime::now();
        let unique = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let id = format!("{}{unique}", prefix(image));
        let expire = jiff::Timestamp::try_from(now + LIFETIME).map(|at| at.to_string());
        let expire = expire.map_err(|e| RuntimeError::Config(format!("the clock cannot be right: {e}")))?;
        let labels = [(EXPIRE.to_owned(), expire)].into();
        let request = CreateRequest { id: id.clone(), labels };
        rpc!(self, self.timeouts.metadata, leases.create(request)).await?;
        Ok(id)
    }

    /// Keeps a snapshot that another pull made.
    pub(crate) async fn lease_snapshot(
        &self,
        lease: &str,
        snapshotter: &str,
        snapshot: &str,
    ) -> Result<(), RuntimeError> {
        let resource = Resource { id: snapshot.to_owned(), r#type: format!("snapshots/{snapshotter}") };
        let request = AddResourceRequest { id: lease.to_owned(), resource: Some(resource) };
        rpc!(self, self.timeouts.metadata, leases.add_resource(request)).await?;
        Ok(())
    }

    async fn leases_of(&self, image: &str) -> Result<Vec<String>, RuntimeError> {
        let prefix = prefix(image);
        let filters = vec![format!("id~=\"^{prefix}\"")];
        let found = rpc!(self, self.timeouts.metadata, leases.list(ListRequest { filters })).await?;
        Ok(found.leases.into_iter().map(|lease| lease.id).filter(|id| id.starts_with(&prefix)).collect())
    }
}
