//! One watch: the changes under a prefix, in order, each once.
//!
//! In: a prefix and the revision to go on from. Out: batches with the revision up to which they are complete. A
//! watcher keeps no events, only its place in the shared log: a slow one costs nothing until compaction passes it.

use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::watch;

use crate::store::{Shared, State};
use crate::types::{Event, Revision};

/// Events handed over at once.
const MAX_BATCH: usize = 512;
/// Log entries looked at under one hold of the lock.
const MAX_SEARCH: usize = 16 * 1024;

/// Changes, and how far they are complete.
#[derive(Clone, Debug, Default)]
pub struct WatchBatch {
    pub events: Vec<Arc<Event>>,
    /// Every matching event up to here has been handed over.
    pub revision: Revision,
}

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// The watcher was so slow that compaction dropped what it had not read. List again, then watch.
    #[error("the watch fell behind: history before revision {oldest} was compacted")]
    Lagged { oldest: Revision },
    /// The store was closed or failed.
    #[error("the store was closed")]
    Closed,
}

/// See [`crate::Store::watch`].
pub struct Watcher {
    shared: Arc<Shared>,
    prefix: Bytes,
    /// Everything up to here was handed over.
    cursor: Revision,
    wake: watch::Receiver<Revision>,
}

// === impl Watcher ===

impl Watcher {
    pub(crate) fn new(
        shared: Arc<Shared>,
        prefix: Bytes,
        after: Revision,
        wake: watch::Receiver<Revision>,
    ) -> Self {
        Self { shared, prefix, cursor: after, wake }
    }

    /// Waits for the next changes; never answers with an empty batch. May be dropped half-way without losing any.
    pub async fn next(&mut self) -> Result<WatchBatch, WatchEnd> {
        loop {
            self.wake.borrow_and_update();
            let (batch, complete) = self.take()?;
            if !batch.events.is_empty() {
                return Ok(batch);
            }
            if complete && self.wake.changed().await.is_err() {
                return Err(WatchEnd::Closed);
            }
        }
    }

    /// What is there now, perhaps no event at all: its revision is what a bookmark may say.
    pub fn ready(&mut self) -> Result<WatchBatch, WatchEnd> {
        loop {
            let (batch, complete) = self.take()?;
            if complete || !batch.events.is_empty() {
                return Ok(batch);
            }
        }
    }

    /// The batches as a stream that ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<WatchBatch, WatchEnd>> + Send {
        futures::stream::unfold(Some(self), async |watcher| {
            let mut watcher = watcher?;
            let batch = watcher.next().await;
            let watcher = batch.is_ok().then_some(watcher);
            Some((batch, watcher))
        })
    }

    /// Moves the cursor over one bounded stretch of the log. The flag says that there is no more to look at.
    fn take(&mut self) -> Result<(WatchBatch, bool), WatchEnd> {
        let state = self.shared.read();
        let State { mvcc, hub } = &*state;
        if self.cursor < mvcc.compacted() {
            return Err(WatchEnd::Lagged { oldest: mvcc.compacted() });
        }
        let Some(matches) = hub.matches(&self.prefix) else { return Err(WatchEnd::Closed) };

        let mut events = Vec::new();
        let now = mvcc.revision();
        if self.cursor < matches.since {
            // Older than the channel: search the log itself.
            for event in mvcc.events_after(self.cursor).take(MAX_SEARCH) {
                if event.revision() > matches.since || events.len() == MAX_BATCH {
                    break;
                }
                if event.key().starts_with(&self.prefix) {
                    events.push(event.clone());
                }
                self.cursor = event.revision();
            }
            let searched = self.cursor >= matches.since || mvcc.events_after(self.cursor).next().is_none();
            if searched {
                self.cursor = self.cursor.max(matches.since);
            }
            if !searched || !events.is_empty() {
                return Ok((WatchBatch { events, revision: self.cursor }, false));
            }
        }

        let first = matches.revisions.partition_point(|revision| *revision <= self.cursor);
        let mut pending = matches.revisions.range(first..);
        events.extend(
            pending.by_ref().take(MAX_BATCH).filter_map(|revision| mvcc.event_at(*revision).cloned()),
        );
        let complete = pending.next().is_none();
        self.cursor = match events.last() {
            Some(last) if !complete => last.revision(),
            _ => now,
        };
        Ok((WatchBatch { events, revision: self.cursor }, complete))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.write().hub.leave(&self.prefix);
    }
}
