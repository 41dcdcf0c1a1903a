//! The multi-version map: every key with its history back to the compaction revision, and the log of changes.
//!
//! In: events in revision order. Out: values now or at a revision, pages, changes since a revision. Pure: no lock,
//! no I/O.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::engine::{Bounds, FIRST_BOUNDS, Record};
use crate::error::StoreError;
use crate::types::{Event, KeyValue, Page, Revision};

/// What one revision left under a key.
#[derive(Clone, Debug)]
struct Version {
    modified: Revision,
    created: Revision,
    /// `None`: deleted.
    value: Option<Bytes>,
}

/// Never empty; ascending by revision.
type Chain = Vec<Version>;

#[derive(Debug)]
pub(crate) struct Mvcc {
    keys: BTreeMap<Bytes, Chain>,
    /// One event per revision, without gaps, the last one at `revision`.
    log: VecDeque<Arc<Event>>,
    compacted: Revision,
    revision: Revision,
    /// Bytes of values that only history needs.
    history_bytes: u64,
}

/// What compaction to a revision would drop: see [`Mvcc::plan_compaction`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Compaction {
    pub(crate) to: Revision,
    /// Ascending, so that a value is never dropped after the deletion that hides it.
    pub(crate) obsolete: Vec<Revision>,
}

// === impl Mvcc ===

impl Default for Mvcc {
    fn default() -> Self {
        Self::starting_at(FIRST_BOUNDS)
    }
}

impl Mvcc {
    /// An empty map whose next revision follows `bounds`.
    pub(crate) fn starting_at(bounds: Bounds) -> Self {
        Self {
            keys: BTreeMap::new(),
            log: VecDeque::new(),
            compacted: bounds.compacted,
            revision: bounds.revision,
            history_bytes: 0,
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    pub(crate) fn history_len(&self) -> usize {
        self.log.len()
    }

    pub(crate) fn history_bytes(&self) -> u64 {
        self.history_bytes
    }

    pub(crate) fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// The key's value now.
    pub(crate) fn get(&self, key: &[u8]) -> Option<KeyValue> {
        let (key, chain) = self.keys.get_key_value(key)?;
        live(key, chain.last()?)
    }

    /// The key's value as of `at`.
    pub(crate) fn get_at(&self, key: &[u8], at: Revision) -> Result<Option<KeyValue>, StoreError> {
        self.check_readable(at)?;
        Ok(self.keys.get_key_value(key).and_then(|(key, chain)| live(key, version_at(chain, at)?)))
    }

    /// Keys with `prefix` after `start_after`, as of `at` or now; `limit` 0 is no limit.
    pub(crate) fn page(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        let at = at.unwrap_or(self.revision);
        let mut found = self.live_after(prefix, start_after, at)?;
        let take = if limit == 0 { usize::MAX } else { limit };
        let items = found.by_ref().take(take).filter_map(|(key, version)| live(key, version)).collect();
        Ok(Page { items, revision: at, more: found.next().is_some() })
    }

    /// How many keys [`Self::page`] would answer with without a limit.
    pub(crate) fn count(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        at: Option<Revision>,
    ) -> Result<u64, StoreError> {
        let found = self.live_after(prefix, start_after, at.unwrap_or(self.revision))?;
        Ok(found.count() as u64)
    }

    /// The keys that exist as of `at`, with what they hold.
    fn live_after<'m>(
        &'m self,
        prefix: &'m [u8],
        start_after: Option<&[u8]>,
        at: Revision,
    ) -> Result<impl Iterator<Item = (&'m Bytes, &'m Version)>, StoreError> {
        self.check_readable(at)?;
        let start = match start_after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let found = self.keys.range::<[u8], _>((start, Bound::Unbounded));
        let found = found.take_while(move |(key, _)| key.starts_with(prefix));
        Ok(found.filter_map(move |(key, chain)| {
            version_at(chain, at).filter(|version| version.value.is_some()).map(|version| (key, version))
        }))
    }

    /// The newest revision up to which history must go for at most `bytes` of it to be left.
    pub(crate) fn revision_that_leaves(&self, bytes: u64) -> Revision {
        let mut left = self.history_bytes;
        let mut to = self.compacted;
        for event in &self.log {
            if left <= bytes {
                break;
            }
            left = left.saturating_sub(event.previous().map_or(0, |previous| previous.value.len() as u64));
            to = event.revision();
        }
        to
    }

    /// The events after `after`, oldest first. The caller has checked that `after` is not compacted.
    pub(crate) fn events_after(&self, after: Revision) -> impl Iterator<Item = &Arc<Event>> {
        let first = self.first_logged();
        let skip = after.next().0.saturating_sub(first.0).min(self.log.len() as u64);
        self.log.range(skip as usize..)
    }

    /// The event of one revision that is in the log.
    pub(crate) fn event_at(&self, revision: Revision) -> Option<&Arc<Event>> {
        let index = revision.0.checked_sub(self.first_logged().0)?;
        self.log.get(usize::try_from(index).ok()?)
    }

    /// Takes in the event of the revision that follows.
    pub(crate) fn apply(&mut self, event: Arc<Event>) {
        debug_assert_eq!(event.revision(), self.revision.next(), "revisions are without gaps");
        self.revision = event.revision();
        let (created, value) = match &*event {
            Event::Put { current, .. } => (current.create_revision, Some(current.value.clone())),
            Event::Delete { previous, .. } => (previous.create_revision, None),
        };
        self.history_bytes += event.previous().map_or(0, |previous| previous.value.len() as u64);
        let version = Version { modified: event.revision(), created, value };
        match self.keys.get_mut(&event.key()[..]) {
            Some(chain) => chain.push(version),
            None => {
                self.keys.insert(event.key().clone(), vec![version]);
            }
        }
        self.log.push_back(event);
    }

    /// Takes in a record read back from an engine, in revision order. Answers with revisions that a compaction
    /// before a crash did not get to drop; an error says why the records cannot be a history.
    pub(crate) fn restore(&mut self, record: Record) -> Result<Vec<Revision>, String> {
        let previous = self.get(&record.key);
        if record.revision > self.compacted {
            if self.log.is_empty() {
                self.revision = FIRST_BOUNDS.revision.max(self.compacted);
            }
            if record.revision != self.revision.next() {
                return Err(format!("revision {} follows {}", record.revision, self.revision));
            }
            let event = event_of(&record, previous)
                .ok_or_else(|| format!("revision {} deletes a key that is not there", record.revision))?;
            self.apply(Arc::new(event));
            return Ok(Vec::new());
        }
        let mut obsolete: Vec<_> = previous.iter().map(|previous| previous.mod_revision).collect();
        if record.value.is_none() {
            self.keys.remove(&record.key[..]);
            obsolete.push(record.revision);
        } else {
            let version =
                Version { modified: record.revision, created: record.create_revision, value: record.value };
            self.keys.insert(record.key, vec![version]);
        }
        Ok(obsolete)
    }

    /// What becomes unreadable when history is dropped up to `to`, at most `limit` events further than now.
    pub(crate) fn plan_compaction(&self, to: Revision, limit: usize) -> Compaction {
        let mut compaction = Compaction { to: self.compacted, obsolete: Vec::new() };
        for event in self.log.iter().take(limit).take_while(|event| event.revision() <= to) {
            compaction.to = event.revision();
            compaction.obsolete.extend(event.previous().map(|previous| previous.mod_revision));
            if let Event::Delete { revision, .. } = &**event {
                compaction.obsolete.push(*revision);
            }
        }
        if self.first_logged() > to {
            compaction.to = to;
        }
        compaction.obsolete.sort_unstable();
        compaction
    }

    /// Drops history up to `to`; what is live stays.
    pub(crate) fn compact(&mut self, to: Revision) {
        while let Some(event) = self.log.pop_front_if(|event| event.revision() <= to) {
            self.history_bytes = self
                .history_bytes
                .saturating_sub(event.previous().map_or(0, |previous| previous.value.len() as u64));
            let key = &event.key()[..];
            let Some(chain) = self.keys.get_mut(key) else { continue };
            let kept_from = chain.partition_point(|version| version.modified <= to).saturating_sub(1);
            chain.drain(..kept_from);
            if let [only] = &chain[..]
                && only.value.is_none()
                && only.modified <= to
            {
                self.keys.remove(key);
            }
        }
        self.compacted = to;
    }

    fn first_logged(&self) -> Revision {
        self.log.front().map_or(self.revision.next(), |event| event.revision())
    }

    fn check_readable(&self, at: Revision) -> Result<(), StoreError> {
        if at < self.compacted {
            return Err(StoreError::Compacted { oldest: self.compacted });
        }
        if at > self.revision {
            return Err(StoreError::Future { current: self.revision });
        }
        Ok(())
    }
}

fn version_at(chain: &[Version], at: Revision) -> Option<&Version> {
    // Nearly every read is of the present.
    match chain.last() {
        Some(last) if last.modified <= at => Some(last),
        _ => chain.get(chain.partition_point(|version| version.modified <= at).checked_sub(1)?),
    }
}

fn live(key: &Bytes, version: &Version) -> Option<KeyValue> {
    Some(KeyValue {
        key: key.clone(),
        value: version.value.clone()?,
        create_revision: version.created,
        mod_revision: version.modified,
    })
}

fn event_of(record: &Record, previous: Option<KeyValue>) -> Option<Event> {
    let Some(value) = record.value.clone() else {
        return Some(Event::Delete { previous: previous?, revision: record.revision });
    };
    let key = previous.as_ref().map_or_else(|| record.key.clone(), |previous| previous.key.clone());
    let current =
        KeyValue { key, value, create_revision: record.create_revision, mod_revision: record.revision };
    Some(Event::Put { current, previous })
}

#[cfg(test)]
mod tests;
