//! The handle everyone holds.
//!
//! In: reads and conditional writes. Out: answers. Reads take a shared lock on the map; writes go through the
//! committer's queue; nothing here touches the disk.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::committer::{Committer, Request};
use crate::engine::{Engine, EngineConfig};
use crate::error::StoreError;
use crate::hub::WatchHub;
use crate::mvcc::Mvcc;
use crate::types::{KeyValue, Page, Revision, Write, Written};
use crate::watcher::Watcher;

/// Writers beyond this many wait before their write is queued.
const QUEUE: usize = 1024;
/// The API server limits a request's body to 3 MiB.
const MAX_VALUE: usize = 8 << 20;
const MAX_KEY: usize = 4 << 10;

/// Map and hub under one lock: a watcher that joins sees neither a gap nor a repetition.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) mvcc: Mvcc,
    pub(crate) hub: WatchHub,
}

/// What handles, watchers and the committer share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<State>,
    /// Bytes of values kept for history only, after the last batch or compaction.
    history_bytes: watch::Sender<u64>,
}

/// How large the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    pub revision: Revision,
    pub compacted: Revision,
    /// Keys that exist, and deleted ones that history still knows.
    pub keys: usize,
    /// Changes that watchers can still read.
    pub history: usize,
    /// Bytes of values kept for history only.
    pub history_bytes: u64,
}

/// A handle on the store; clones are the same store. Closed when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Request>,
    /// Why the store is closed, once it is.
    closed: watch::Receiver<Option<String>>,
}

// === impl Shared ===

impl Shared {
    // A panic while the lock is held kills the committer, which closes the store: there is no half-written state to
    // protect readers from.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes who waits for history to become too large.
    pub(crate) fn tell_history(&self, bytes: u64) {
        self.history_bytes.send_replace(bytes);
    }
}

// === impl Store ===

impl Store {
    /// Opens the engine and reads it into memory. Blocks on the disk.
    pub fn open(config: EngineConfig) -> Result<Self, StoreError> {
        Self::with_engine(config.open()?)
    }

    /// Over an engine of one's own.
    pub fn with_engine(mut engine: Box<dyn Engine>) -> Result<Self, StoreError> {
        let bounds = engine.bounds()?;
        let mut mvcc = Mvcc::starting_at(bounds);
        let leftovers = restore(&mut *engine, &mut mvcc)?;
        if !leftovers.is_empty() {
            // A crash came between two slices of a compaction.
            engine.compact(bounds, &leftovers)?;
        }
        tracing::info!(revision = bounds.revision.0, keys = mvcc.key_count(), "store opened");

        let shared = Arc::new(Shared {
            history_bytes: watch::Sender::new(mvcc.history_bytes()),
            state: RwLock::new(State { mvcc, hub: WatchHub::default() }),
        });
        let (queue, requests) = mpsc::channel(QUEUE);
        let (closing, closed) = watch::channel(None);
        Committer { engine, shared: shared.clone(), requests, closing }.spawn()?;
        Ok(Self { shared, queue, closed })
    }

    /// The last published revision.
    pub fn revision(&self) -> Revision {
        self.shared.read().mvcc.revision()
    }

    pub fn stats(&self) -> Stats {
        let state = self.shared.read();
        Stats {
            revision: state.mvcc.revision(),
            compacted: state.mvcc.compacted(),
            keys: state.mvcc.key_count(),
            history: state.mvcc.history_len(),
            history_bytes: state.mvcc.history_bytes(),
        }
    }

    /// The key's value now.
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.shared.read().mvcc.get(key)
    }

    /// The key's value as of a revision that is neither compacted nor in the future.
    pub fn get_at(&self, key: &[u8], at: Revision) -> Result<Option<KeyValue>, StoreError> {
        self.shared.read().mvcc.get_at(key, at)
    }

    /// The keys that begin with `prefix`, in order, from after `start_after` on; at most `limit` (0: all); now, or as
    /// of `at`, which is how the further pages of one list come from one moment.
    pub fn list(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.shared.read().mvcc.page(prefix, start_after, limit, at)
    }

    /// How many keys [`Self::list`] would answer with without a limit. Looks at each of them, but copies none.
    pub fn count(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        at: Option<Revision>,
    ) -> Result<u64, StoreError> {
        self.shared.read().mvcc.count(prefix, start_after, at)
    }

    /// Resolves when history holds more than `limit` bytes, looked at after every batch of writes.
    pub async fn history_beyond(&self, limit: u64) {
        let mut bytes = self.shared.history_bytes.subscribe();
        // The store keeps the other end.
        let _ = bytes.wait_for(|bytes| *bytes > limit).await;
    }

    /// The revision up to which history must go for at most `bytes` of it to be left.
    pub fn revision_that_leaves(&self, bytes: u64) -> Revision {
        self.shared.read().mvcc.revision_that_leaves(bytes)
    }

    /// Does the write if its precondition holds, and answers once it is durable and visible. When the future is
    /// dropped the write may happen all the same.
    pub async fn write(&self, write: Write) -> Result<Written, StoreError> {
        check_size(&write)?;
        self.request(|reply| Request::Write { write, reply }).await
    }

    /// The changes under `prefix` after revision `after`: that of a list, to miss nothing between.
    pub fn watch(&self, prefix: &[u8], after: Revision) -> Result<Watcher, StoreError> {
        let prefix = Bytes::copy_from_slice(prefix);
        let mut state = self.shared.write();
        let now = state.mvcc.revision();
        if after < state.mvcc.compacted() {
            return Err(StoreError::Compacted { oldest: state.mvcc.compacted() });
        }
        if after > now {
            return Err(StoreError::Future { current: now });
        }
        let Some(wake) = state.hub.join(&prefix, now) else { return Err(self.unavailable()) };
        Ok(Watcher::new(self.shared.clone(), prefix, after, wake))
    }

    /// Drops history up to `to`: reads before it and watches from before it are refused from then on. Live values
    /// stay. Answers when it is done.
    pub async fn compact(&self, to: Revision) -> Result<(), StoreError> {
        self.request(|reply| Request::Compact { to, reply }).await
    }

    /// Resolves with the reason when the store is closed, by [`Store::close`] or by a failure of its engine.
    pub async fn closed(&self) -> String {
        let mut closed = self.closed.clone();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => gone(),
        }
    }

    /// Finishes what is queued, ends every watch and releases the engine.
    pub async fn close(&self) {
        // A refusal means that it is closed.
        let _ = self.queue.send(Request::Close).await;
        self.closed().await;
        self.queue.closed().await;
    }

    async fn request<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        if self.queue.send(request(reply)).await.is_err() {
            return Err(self.unavailable());
        }
        answer.await.unwrap_or_else(|_| Err(self.unavailable()))
    }

    fn unavailable(&self) -> StoreError {
        StoreError::Unavailable { reason: self.closed.borrow().clone().unwrap_or_else(gone) }
    }
}

/// Reads the whole engine into the map; answers with what a compaction left behind, ascending.
fn restore(engine: &mut dyn Engine, mvcc: &mut Mvcc) -> Result<Vec<Revision>, StoreError> {
    let bounds = engine.bounds()?;
    let mut leftovers = Vec::new();
    engine.scan(Revision::default(), &mut |record| {
        leftovers.extend(mvcc.restore(record)?);
        Ok(())
    })?;
    if mvcc.revision() != bounds.revision {
        let reason = format!("history ends at revision {} instead of {}", mvcc.revision(), bounds.revision);
        return Err(engine.corrupt(reason).into());
    }
    leftovers.sort_unstable();
    Ok(leftovers)
}

fn gone() -> String {
    "its committer stopped".into()
}

fn check_size(write: &Write) -> Result<(), StoreError> {
    let (key, value) = match write {
        Write::Put { key, value, .. } => (key, value.len()),
        Write::Delete { key, .. } => (key, 0),
    };
    if key.len() > MAX_KEY {
        return Err(StoreError::TooLarge { what: "a key", size: key.len(), limit: MAX_KEY });
    }
    if value > MAX_VALUE {
        return Err(StoreError::TooLarge { what: "a value", size: value, limit: MAX_VALUE });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
