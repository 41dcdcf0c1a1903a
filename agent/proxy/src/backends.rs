//! The backend table: one entry per endpoint address and port, however many services use it.
//!
//! In: endpoints wanted and no longer wanted. Out: ids with reference counts. An entry never changes while it has its
//! id; the plan deletes those that nobody refers to. Pure.

use std::collections::HashMap;

use xebec_datapath::lb::{Backend, BackendId};

use crate::error::{Error, Result};
use crate::ids::Ids;

#[derive(Debug)]
pub(crate) struct Backends {
    ids: Ids,
    by_key: HashMap<Backend, BackendId>,
    by_id: HashMap<BackendId, Entry>,
}

#[derive(Debug)]
struct Entry {
    backend: Backend,
    references: u32,
    /// The table holds it, or will once the running plan is applied.
    written: bool,
}

impl Backends {
    pub(crate) fn new(limit: u32) -> Self {
        Self { ids: Ids::new(limit), by_key: HashMap::new(), by_id: HashMap::new() }
    }

    /// Adopts an entry of the pinned table. `false`: its id is unusable; a second id of one endpoint is kept unnamed, so
    /// that the runs that use it stay valid until they are replaced.
    pub(crate) fn restore(&mut self, id: BackendId, backend: Backend) -> bool {
        if !self.ids.hold(id.0) {
            return false;
        }
        self.by_key.entry(backend).or_insert(id);
        self.by_id.insert(id, Entry { backend, references: 0, written: true });
        true
    }

    pub(crate) fn contains(&self, id: BackendId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// The id of an endpoint, a new one if need be. It has no reference yet.
    pub(crate) fn intern(&mut self, backend: Backend) -> Result<BackendId> {
        if let Some(id) = self.by_key.get(&backend) {
            return Ok(*id);
        }
        let id = self.ids.allocate().ok_or(Error::BackendsExhausted(self.ids.capacity()))?;
        let id = BackendId(id);
        self.by_key.insert(backend, id);
        self.by_id.insert(id, Entry { backend, references: 0, written: false });
        Ok(id)
    }

    pub(crate) fn retain(&mut self, id: BackendId) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.references += 1;
        }
    }

    /// Drops a reference; says whether it was the last.
    pub(crate) fn release(&mut self, id: BackendId) -> bool {
        let Some(entry) = self.by_id.get_mut(&id) else { return false };
        entry.references = entry.references.saturating_sub(1);
        entry.references == 0
    }

    /// What is to be written for an entry: `Some` exactly once for one that is in use.
    pub(crate) fn write(&mut self, id: BackendId) -> Option<Backend> {
        let entry = self.by_id.get_mut(&id)?;
        let due = entry.references > 0 && !entry.written;
        entry.written |= due;
        due.then_some(entry.backend)
    }

    /// Forgets an entry that nobody refers to; says whether it was written and must be deleted.
    pub(crate) fn collect(&mut self, id: BackendId) -> bool {
        if self.by_id.get(&id).is_none_or(|entry| entry.references > 0) {
            return false;
        }
        let Some(entry) = self.by_id.remove(&id) else { return false };
        if self.by_key.get(&entry.backend) == Some(&id) {
            self.by_key.remove(&entry.backend);
        }
        self.ids.release(id.0);
        entry.written
    }

    /// Entries that nobody refers to.
    pub(crate) fn unused(&self) -> Vec<BackendId> {
        self.by_id.iter().filter(|(_, entry)| entry.references == 0).map(|(id, _)| *id).collect()
    }
}
