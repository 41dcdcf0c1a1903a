//! Runs of slots: each is the backend list of one or more frontends.
//!
//! In: lists of backend ids. Out: runs with reference counts. A run never changes; a service whose backends change gets
//! a new run, and the old one is given back once no frontend points at it. Pure.

use std::collections::HashMap;

use tokio::time::Instant;
use xebec_datapath::lb::BackendId;

use crate::error::{Error, Result};
use crate::slots::SlotSpace;

#[derive(Debug)]
pub(crate) struct Runs {
    space: SlotSpace,
    runs: HashMap<u32, Run>,
}

/// What became of a restored run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restored {
    New,
    /// Another frontend has the same one.
    Known,
    /// It shares slots with a different one and cannot be trusted.
    Overlaps,
}

#[derive(Debug)]
struct Run {
    /// Sorted: two runs of the same backends compare equal whatever the order of their slots.
    ids: Box<[BackendId]>,
    /// Slots it takes; more than `ids` only in a restored run with unusable slots.
    length: u32,
    references: u32,
    written: bool,
}

impl Runs {
    pub(crate) fn new(slots: u32) -> Self {
        Self { space: SlotSpace::new(slots), runs: HashMap::new() }
    }

    /// Adopts a run of the pinned array, which holds no reference yet. `ids` are its usable slots; where some of its
    /// `length` slots are not, the run keeps its place until its frontends have another one, but is never shared.
    pub(crate) fn restore(&mut self, base: u32, length: u32, mut ids: Vec<BackendId>) -> Restored {
        ids.sort_unstable();
        if let Some(run) = self.runs.get(&base) {
            let same = *run.ids == *ids && run.length == length;
            return if same { Restored::Known } else { Restored::Overlaps };
        }
        if !self.space.hold(base, length) {
            return Restored::Overlaps;
        }
        self.runs.insert(base, Run { ids: ids.into(), length, references: 0, written: true });
        Restored::New
    }

    /// Whether the run at `base` lists exactly these backends (sorted).
    pub(crate) fn is(&self, base: u32, ids: &[BackendId]) -> bool {
        let listed = |run: &Run| *run.ids == *ids && run.length as usize == ids.len();
        self.runs.get(&base).is_some_and(listed)
    }

    /// A new run of these backends (sorted, not empty). It has no reference yet.
    pub(crate) fn allocate(&mut self, ids: &[BackendId], now: Instant) -> Result<u32> {
        let length = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let full = Error::SlotsExhausted { wanted: length, total: self.space.total() };
        let base = self.space.allocate(length, now).ok_or(full)?;
        self.runs.insert(base, Run { ids: ids.into(), length, references: 0, written: false });
        Ok(base)
    }

    pub(crate) fn retain(&mut self, base: u32) {
        if let Some(run) = self.runs.get_mut(&base) {
            run.references += 1;
        }
    }

    /// Drops a reference; says whether it was the last.
    pub(crate) fn release(&mut self, base: u32) -> bool {
        let Some(run) = self.runs.get_mut(&base) else { return false };
        run.references = run.references.saturating_sub(1);
        run.references == 0
    }

    /// What is to be written for a run: `Some` exactly once for one that is in use.
    pub(crate) fn write(&mut self, base: u32) -> Option<Vec<BackendId>> {
        let run = self.runs.get_mut(&base)?;
        let due = run.references > 0 && !run.written;
        run.written |= due;
        due.then(|| run.ids.to_vec())
    }

    /// Gives back a run that no frontend points at; returns its backends.
    pub(crate) fn collect(&mut self, base: u32, now: Instant) -> Option<Box<[BackendId]>> {
        if self.runs.get(&base)?.references > 0 {
            return None;
        }
        let run = self.runs.remove(&base)?;
        self.space.release(base, run.length, now);
        Some(run.ids)
    }

    /// Runs that no frontend points at.
    pub(crate) fn unused(&self) -> Vec<u32> {
        self.runs.iter().filter(|(_, run)| run.references == 0).map(|(base, _)| *base).collect()
    }
}
