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
    /// By id: ids rise from 1 and are used again, so there are few holes.
    by_id: Vec<Option<Entry>>,
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
        Self { ids: Ids::new(limit), by_key: HashMap::new(), by_id: Vec::new() }
    }

    /// Adopts an entry of the pinned table. `false`: its id is unusable; a second id of one endpoint is kept unnamed, so
    /// that the runs that use it stay valid until they are replaced.
    pub(crate) fn restore(&mut self, id: BackendId, backend: Backend) -> bool {
        if !self.ids.hold(id.0) {
            return false;
        }
        self.by_key.entry(backend).or_insert(id);
        self.put(id, Entry { backend, references: 0, written: true });
        true
    }

    pub(crate) fn contains(&self, id: BackendId) -> bool {
        self.entry(id).is_some()
    }

    /// The id of an endpoint, a new one if need be. It has no reference yet.
    pub(crate) fn intern(&mut self, backend: Backend) -> Result<BackendId> {
        if let Some(id) = self.by_key.get(&backend) {
            return Ok(*id);
        }
        let id = self.ids.allocate().ok_or(Error::BackendsExhausted(self.ids.capacity()))?;
        let id = BackendId(id);
        self.by_key.insert(backend, id);
        self.put(id, Entry { backend, references: 0, written: false });
        Ok(id)
    }

    pub(crate) fn retain(&mut self, id: BackendId) {
        if let Some(entry) = self.entry_mut(id) {
            entry.references += 1;
        }
    }

    /// Drops a reference; says whether it was the last.
    pub(crate) fn release(&mut self, id: BackendId) -> bool {
        let Some(entry) = self.entry_mut(id) else { return false };
        entry.references = entry.references.saturating_sub(1);
        entry.references == 0
    }

    /// What is to be written for an entry: `Some` exactly once for one that is in use.
    pub(crate) fn write(&mut self, id: BackendId) -> Option<Backend> {
        let entry = self.entry_mut(id)?;
        let due = entry.references > 0 && !entry.written;
        entry.written |= due;
        due.then_some(entry.backend)
    }

    /// Forgets an entry that nobody refers to; says whether it was written and must be deleted.
    pub(crate) fn collect(&mut self, id: BackendId) -> bool {
        if self.entry(id).is_none_or(|entry| entry.references > 0) {
            return false;
        }
        let Some(entry) = self.by_id.get_mut(id.0 as usize).and_then(Option::take) else { return false };
        if self.by_key.get(&entry.backend) == Some(&id) {
            self.by_key.remove(&entry.backend);
        }
        self.ids.release(id.0);
        entry.written
    }

    /// Entries that nobody refers to.
    pub(crate) fn unused(&self) -> Vec<BackendId> {
        let entries = (0..).zip(&self.by_id);
        let unused = entries.filter(|(_, entry)| entry.as_ref().is_some_and(|entry| entry.references == 0));
        unused.map(|(id, _)| BackendId(id)).collect()
    }

    fn entry(&self, id: BackendId) -> Option<&Entry> {
        self.by_id.get(id.0 as usize)?.as_ref()
    }

    fn entry_mut(&mut self, id: BackendId) -> Option<&mut Entry> {
        self.by_id.get_mut(id.0 as usize)?.as_mut()
    }

    fn put(&mut self, id: BackendId, entry: Entry) {
        let index = id.0 as usize;
        if self.by_id.len() <= index {
            self.by_id.resize_with(index + 1, || None);
        }
        self.by_id[index] = Some(entry);
    }
}
