//! The one thread that writes.
//!
//! In: requests from a bounded queue. Out: durable batches, published events, answers. In this order, always: check
//! preconditions, assign revisions, make durable, publish to map and hub, answer. Who waits while a batch is being
//! made durable is in the next one: a commit's price is shared by all who asked meanwhile.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::{Engine, EngineError, Record};
use crate::error::StoreError;
use crate::store::{Shared, State};
use crate::types::{Event, KeyValue, Precondition, Revision, Write, Written};

const MAX_BATCH: usize = 512;
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Events compacted between two batches of writes.
const COMPACTION_SLICE: usize = 2048;
/// How often a full disk is tried again.
const RETRY: Duration = Duration::from_millis(500);

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub(crate) enum Request {
    Write { write: Write, reply: Reply<Written> },
    Compact { to: Revision, reply: Reply<()> },
    Close,
}

/// Writes that passed their preconditions and wait for the engine.
struct Batch {
    revision: Revision,
    records: Vec<Record>,
    events: Vec<Arc<Event>>,
    /// A refusal that rests on a write of this batch waits with it: were the write lost, it would have been a lie.
    replies: Vec<(Reply<Written>, Result<Written, StoreError>)>,
    /// What the batch itself leaves under the keys it touches.
    overlay: HashMap<Bytes, Option<KeyValue>>,
    bytes: usize,
}

struct PendingCompaction {
    to: Revision,
    reply: Reply<()>,
}

/// What the thread is started with.
pub(crate) struct Committer {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Told why the store is closed, once it is.
    pub(crate) closing: watch::Sender<Option<String>>,
}

struct CommitLoop {
    engine: Box<dyn Engine>,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    compaction: Option<PendingCompaction>,
    /// Set while the disk is full: when to try again.
    suspended: Option<Instant>,
    close_requested: bool,
}

// === impl Batch ===

impl Batch {
    fn starting_after(revision: Revision) -> Self {
        Self {
            revision,
            records: Vec::new(),
            events: Vec::new(),
            replies: Vec::new(),
            overlay: HashMap::new(),
            bytes: 0,
        }
    }

    /// Checks the precondition against everything before the write, this batch included.
    fn add(&mut self, write: Write, reply: Reply<Written>, state: &State) {
        let key = match &write {
            Write::Put { key, .. } | Write::Delete { key, .. } => key,
        };
        let overlaid = self.overlay.get(key);
        let rests_on_batch = overlaid.is_some();
        let current = overlaid.cloned().unwrap_or_else(|| state.mvcc.get(key));
        let revision = self.revision.next();
        let (record, event, written) = match plan(write, current, revision) {
            Ok(planned) => planned,
            Err(refusal) if rests_on_batch => {
                self.replies.push((reply, Err(refusal)));
                return;
            }
            Err(refusal) => {
                // The writer may have gone; a refusal changes nothing.
                let _ = reply.send(Err(refusal));
                return;
            }
        };
        self.revision = revision;
        self.bytes += record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
        self.overlay.insert(record.key.clone(), record.value.is_some().then(|| written.kv.clone()));
        self.records.push(record);
        self.events.push(Arc::new(event));
        self.replies.push((reply, Ok(written)));
    }
}

// === impl Committer ===

impl Committer {
    pub(crate) fn spawn(self) -> Result<(), StoreError> {
        std::thread::Builder::new()
            .name("store-commit".into())
            .spawn(move || self.run_to_end())
            .map(drop)
            .map_err(|error| StoreError::Unavailable { reason: format!("no thread to commit with: {error}") })
    }

    fn run_to_end(self) {
        let Self { engine, shared, requests, closing } = self;
        let loops = CommitLoop::new(engine, shared.clone(), requests);
        // Whatever happens, nobody may be left waiting for a store that is gone.
        let reason = catch_unwind(AssertUnwindSafe(|| loops.run()))
            .unwrap_or_else(|_| "its committer panicked".into());
        shared.write().hub.close();
        closing.send_replace(Some(reason));
    }
}

// === impl CommitLoop ===

impl CommitLoop {
    fn new(engine: Box<dyn Engine>, shared: Arc<Shared>, requests: mpsc::Receiver<Request>) -> Self {
        Self { engine, shared, requests, compaction: None, suspended: None, close_requested: false }
    }

    /// Answers why it ended; the engine is closed by then.
    fn run(mut self) -> String {
        loop {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return "it was shut down".to_owned(),
                Err(fault) => {
                    tracing::error!(%fault, "store failed");
                    return fault.to_string();
                }
            }
        }
    }

    /// One batch and one slice of compaction. `false` when there is nothing left to do, an error when the engine
    /// cannot go on.
    fn step(&mut self) -> Result<bool, EngineError> {
        let first = match self.compaction {
            Some(_) => None,
            None => match self.requests.blocking_recv() {
                Some(request) => Some(request),
                None => return Ok(false),
            },
        };
        // Before preconditions are looked at: it may publish something.
        let writable = self.resume()?;
        let batch = self.collect(first);
        if !writable {
            refuse(batch);
        } else if !batch.records.is_empty() {
            self.commit(batch)?;
        }
        self.compact_slice()?;
        Ok(!(self.close_requested && self.requests.is_empty()))
    }

    /// Takes what is queued, up to a batch.
    fn collect(&mut self, mut first: Option<Request>) -> Batch {
        let shared = self.shared.clone();
        let state = shared.read();
        let mut batch = Batch::starting_after(state.mvcc.revision());
        // Refused requests count as well: a stream of conflicts must not hold up what was accepted.
        for _ in 0..MAX_BATCH {
            let Some(request) = first.take().or_else(|| self.requests.try_recv().ok()) else { break };
            match request {
                Request::Write { write, reply } => batch.add(write, reply, &state),
                Request::Compact { to, reply } => self.begin_compaction(to, reply, &state),
                Request::Close => {
                    self.close_requested = true;
                    self.requests.close();
                }
            }
            if batch.bytes >= MAX_BATCH_BYTES {
                break;
            }
        }
        batch
    }

    fn commit(&mut self, batch: Batch) -> Result<(), EngineError> {
        match self.engine.commit(&batch.records) {
            Ok(()) => {
                self.publish(&batch.events);
                for (reply, outcome) in batch.replies {
                    // The writer may have gone; the write stands.
                    let _ = reply.send(outcome);
                }
                Ok(())
            }
            Err(EngineError::Full { path }) => {
                tracing::warn!(path = %path.display(), "no space left: writes are refused until there is");
                self.suspended = Some(Instant::now());
                refuse(batch);
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// After a full disk: opens the engine again. Whatever of the refused batch is durable is published then. `false`
    /// while there is still no room.
    fn resume(&mut self) -> Result<bool, EngineError> {
        let Some(retry_at) = self.suspended else { return Ok(true) };
        if Instant::now() < retry_at {
            return Ok(false);
        }
        match self.engine.recover() {
            Ok(()) => {}
            Err(EngineError::Full { .. }) => {
                self.suspended = Some(Instant::now() + RETRY);
                return Ok(false);
            }
            Err(fault) => return Err(fault),
        }
        let mut found = Vec::new();
        let published = self.shared.read().mvcc.revision();
        self.engine.scan(published.next(), &mut |record| {
            found.push(record);
            Ok(())
        })?;
        let mut batch = Batch::starting_after(published);
        let shared = self.shared.clone();
        for record in found {
            let (reply, _) = oneshot::channel();
            batch.add(replay(record, &batch, &shared.read()), reply, &shared.read());
        }
        self.publish(&batch.events);
        self.suspended = None;
        tracing::info!("there is space again: writes go on");
        Ok(true)
    }

    fn publish(&self, events: &[Arc<Event>]) {
        let (wakes, history_bytes) = {
            let mut state = self.shared.write();
            for event in events {
                state.mvcc.apply(event.clone());
            }
            (state.hub.publish(events.iter().map(|event| &**event)), state.mvcc.history_bytes())
        };
        self.shared.tell_history(history_bytes);
        for wake in wakes {
            wake.send();
        }
    }

    fn begin_compaction(&mut self, to: Revision, reply: Reply<()>, state: &State) {
        let refusal = if to <= state.mvcc.compacted() {
            Some(StoreError::Compacted { oldest: state.mvcc.compacted() })
        } else if to > state.mvcc.revision() {
            Some(StoreError::Future { current: state.mvcc.revision() })
        } else if self.compaction.is_some() {
            Some(StoreError::Unavailable { reason: "another compaction is under way".into() })
        } else {
            None
        };
        match refusal {
            Some(refusal) => {
                let _ = reply.send(Err(refusal));
            }
            None => self.compaction = Some(PendingCompaction { to, reply }),
        }
    }

    /// Compacts a stretch that is short enough not to hold up writers.
    fn compact_slice(&mut self) -> Result<(), EngineError> {
        let Some(pending) = self.compaction.take() else { return Ok(()) };
        if self.suspended.is_some() {
            let _ = pending.reply.send(Err(StoreError::DiskFull));
            return Ok(());
        }
        let (slice, bounds) = {
            let state = self.shared.read();
            let slice = state.mvcc.plan_compaction(pending.to, COMPACTION_SLICE);
            let bounds = crate::engine::Bounds { compacted: slice.to, revision: state.mvcc.revision() };
            (slice, bounds)
        };
        match self.engine.compact(bounds, &slice.obsolete) {
            Ok(()) => {}
            Err(EngineError::Full { .. }) => {
                self.suspended = Some(Instant::now());
                let _ = pending.reply.send(Err(StoreError::DiskFull));
                return Ok(());
            }
            Err(fault) => return Err(fault),
        }
        {
            let mut state = self.shared.write();
            state.mvcc.compact(slice.to);
            state.hub.compact(slice.to);
            self.shared.tell_history(state.mvcc.history_bytes());
        }
        if slice.to < pending.to {
            self.compaction = Some(pending);
        } else {
            let _ = pending.reply.send(Ok(()));
        }
        Ok(())
    }
}

/// What a write does to a key that holds `current`, or why it must not.
fn plan(
    write: Write,
    current: Option<KeyValue>,
    revision: Revision,
) -> Result<(Record, Event, Written), StoreError> {
    match write {
        Write::Put { key, value, precondition } => {
            let create_revision = match (precondition, &current) {
                (Precondition::Absent, None) => revision,
                (Precondition::Absent, Some(current)) => {
                    return Err(StoreError::Exists { current: current.clone() });
                }
                (Precondition::Unchanged(expected), Some(current)) if current.mod_revision == expected => {
                    current.create_revision
                }
                (Precondition::Unchanged(_), _) => return Err(StoreError::Conflict { current }),
            };
            // The map's own copy of the key, so that a key is in memory once however often it is written.
            let key = current.as_ref().map_or(key, |current| current.key.clone());
            let kv =
                KeyValue { key: key.clone(), value: value.clone(), create_revision, mod_revision: revision };
            let record = Record { revision, create_revision, key, value: Some(value) };
            let event = Event::Put { current: kv.clone(), previous: current };
            Ok((record, event, Written { kv, revision }))
        }
        Write::Delete { unchanged, .. } => {
            let Some(previous) = current.clone().filter(|current| current.mod_revision == unchanged) else {
                return Err(StoreError::Conflict { current });
            };
            let record = Record {
                revision,
                create_revision: previous.create_revision,
                key: previous.key.clone(),
                value: None,
            };
            let event = Event::Delete { previous: previous.clone(), revision };
            Ok((record, event, Written { kv: previous, revision }))
        }
    }
}

/// The write that made a record which was found durable although its writer was refused.
fn replay(record: Record, batch: &Batch, state: &State) -> Write {
    let current = batch.overlay.get(&record.key).cloned().unwrap_or_else(|| state.mvcc.get(&record.key));
    let modified = current.map(|current| current.mod_revision);
    match record.value {
        Some(value) => Write::Put {
            key: record.key,
            value,
            precondition: modified.map_or(Precondition::Absent, Precondition::Unchanged),
        },
        None => Write::Delete { key: record.key, unchanged: modified.unwrap_or_default() },
    }
}

fn refuse(batch: Batch) {
    for (reply, _) in batch.replies {
        let _ = reply.send(Err(StoreError::DiskFull));
    }
}
