//! The judge of recorded histories, judged: bugs that a store could have are planted in one, and each has to be found.
//!
//! In: the store over an engine that can be killed, and that is told which bug to have. Out: a verdict of `history` on what
//! its clients were told. Without a bug the same load has to pass, or its refusals would prove nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use xebec_store::engine::{Bounds, Engine, EngineError, FIRST_BOUNDS, Record, Visit};
use xebec_store::{Event, Precondition, Revision, Store, StoreError, Watcher, Write};
use xebec_tests::history::{Call, Change, Operation, Outcome, Version, check};

const CLIENTS: u64 = 4;
const KEYS: u64 = 3;
const KILLS: usize = 12;
const CALLS_PER_LIFE: usize = 80;
/// Loads in which a planted bug has to show itself.
const SEEDS: u64 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// Who writes is answered while the batch still waits for the next one.
    AcknowledgedBeforeCommit,
    /// A watch that resumes begins one revision too late.
    WatchGap,
    /// Compaction drops a deletion and leaves the value it hid.
    DeletionLostAtCompaction,
}

/// What survives a kill: the disk.
#[derive(Default)]
struct Disk {
    records: BTreeMap<u64, Record>,
    bounds: Option<Bounds>,
}

/// One life of the process.
struct Process {
    disk: Arc<Mutex<Disk>>,
    dead: Arc<AtomicBool>,
    bug: Bug,
    /// Acknowledged and not on the disk.
    late: Vec<Record>,
}

/// What clients are connected to, one process after another.
struct Server {
    disk: Arc<Mutex<Disk>>,
    bug: Bug,
    life: RwLock<(Store, Arc<AtomicBool>)>,
    start: Instant,
    stop: AtomicBool,
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Process ===

impl Process {
    fn gone(&self) -> Result<(), EngineError> {
        match self.dead.load(Ordering::Acquire) {
            true => Err(EngineError::Io { path: "disk".into(), reason: "the process was killed".into() }),
            false => Ok(()),
        }
    }
}

impl Engine for Process {
    fn bounds(&mut self) -> Result<Bounds, EngineError> {
        let disk = lock(&self.disk);
        let bounds = disk.bounds.unwrap_or(FIRST_BOUNDS);
        let last = disk.records.last_key_value().map_or(0, |(revision, _)| *revision);
        Ok(Bounds { revision: bounds.revision.max(Revision(last)), ..bounds })
    }

    fn scan(&mut self, from: Revision, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        for record in lock(&self.disk).records.range(from.0..).map(|(_, record)| record) {
            visit(record.clone()).map_err(|reason| self.corrupt(reason))?;
        }
        Ok(())
    }

    fn corrupt(&self, reason: String) -> EngineError {
        EngineError::Corrupt { path: "disk".into(), reason }
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError> {
        let mut disk = lock(&self.disk);
        self.gone()?;
        let durable = match self.bug {
            Bug::AcknowledgedBeforeCommit => std::mem::replace(&mut self.late, batch.to_vec()),
            _ => batch.to_vec(),
        };
        disk.records.extend(durable.into_iter().map(|record| (record.revision.0, record)));
        Ok(())
    }

    fn compact(&mut self, bounds: Bounds, obsolete: &[Revision]) -> Result<(), EngineError> {
        let mut disk = lock(&self.disk);
        self.gone()?;
        disk.bounds = Some(bounds);
        let mut dropped: Vec<Record> = Vec::new();
        for revision in obsolete {
            dropped.extend(disk.records.remove(&revision.0));
        }
        if self.bug == Bug::DeletionLostAtCompaction {
            let deletions: Vec<&Record> = dropped.iter().filter(|record| record.value.is_none()).collect();
            for deletion in deletions {
                let hidden = dropped.iter().rfind(|record| {
                    record.key == deletion.key
                        && record.value.is_some()
                        && record.revision < deletion.revision
                });
                let later = disk.records.values().any(|record| record.key == deletion.key);
                if let Some(hidden) = hidden.filter(|_| !later) {
                    disk.records.insert(hidden.revision.0, hidden.clone());
                }
            }
        }
        Ok(())
    }

    fn recover(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
}

// === impl Server ===

impl Server {
    fn new(bug: Bug) -> Arc<Self> {
        let disk = Arc::<Mutex<Disk>>::default();
        let life = RwLock::new(born(&disk, bug).expect("an empty disk"));
        Arc::new(Self { disk, bug, life, start: Instant::now(), stop: AtomicBool::new(false) })
    }

    fn life(&self) -> (Store, Arc<AtomicBool>) {
        self.life.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Kills the process and starts the next one.
    fn kill(&self) -> Result<(), StoreError> {
        {
            // No commit is half-way: it has happened or it never will.
            let _disk = lock(&self.disk);
            self.life().1.store(true, Ordering::Release);
        }
        let next = born(&self.disk, self.bug)?;
        *self.life.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    fn watch(&self, after: Revision) -> Result<Watcher, StoreError> {
        let store = self.life().0;
        let after = match self.bug {
            Bug::WatchGap if after < store.revision() => after.next(),
            _ => after,
        };
        store.watch(b"", after)
    }
}

fn born(disk: &Arc<Mutex<Disk>>, bug: Bug) -> Result<(Store, Arc<AtomicBool>), StoreError> {
    let dead = Arc::new(AtomicBool::new(false));
    let process = Process { disk: disk.clone(), dead: dead.clone(), bug, late: Vec::new() };
    Ok((Store::with_engine(Box::new(process))?, dead))
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Reads and writes until told to stop; what was answered by a process that is dead by then was not answered.
async fn client(server: Arc<Server>, id: u64, seed: u64, done: Arc<Mutex<Vec<Call>>>) {
    let mut random = Random(seed * 1000 + id + 1);
    let mut serial = 0_u64;
    while !server.stop.load(Ordering::Acquire) {
        tokio::task::yield_now().await;
        let key = format!("k{}", random.next() % KEYS);
        let seen = call(&server, &key, Operation::Get, None, &done).await;
        let Outcome::Read(seen) = seen else { continue };
        let operation = match random.next() % 6 {
            0 => continue,
            1 | 2 if seen.is_some() => Operation::Delete,
            _ => {
                serial += 1;
                Operation::Put { value: format!("{id}-{serial}") }
            }
        };
        call(&server, &key, operation, seen.map(|version| Revision(version.revision)), &done).await;
    }
}

async fn call(
    server: &Server,
    key: &str,
    operation: Operation,
    seen: Option<Revision>,
    done: &Mutex<Vec<Call>>,
) -> Outcome {
    let began = server.start.elapsed();
    let (store, dead) = server.life();
    let place = Bytes::from(key.to_owned());
    let answer = match &operation {
        Operation::Get => Ok(Outcome::Read(store.get(&place).map(|kv| Version {
            revision: kv.mod_revision.0,
            value: String::from_utf8_lossy(&kv.value).into_owned(),
        }))),
        Operation::Delete => {
            let unchanged = seen.unwrap_or_default();
            store.write(Write::Delete { key: place, unchanged }).await.map(|_| Outcome::Deleted)
        }
        Operation::Put { value } => {
            let precondition = seen.map_or(Precondition::Absent, Precondition::Unchanged);
            let write = Write::Put { key: place, value: value.clone().into(), precondition };
            store.write(write).await.map(|written| Outcome::Written(written.revision.0))
        }
    };
    let outcome = match answer {
        _ if dead.load(Ordering::Acquire) => Outcome::Unknown,
        Ok(outcome) => outcome,
        Err(StoreError::Exists { .. } | StoreError::Conflict { .. }) => Outcome::Refused,
        Err(_) => Outcome::Unknown,
    };
    if (&operation, &outcome) == (&Operation::Get, &Outcome::Unknown) {
        return outcome;
    }
    let ended = server.start.elapsed();
    let record = Call { key: key.to_owned(), operation, outcome: outcome.clone(), began, ended };
    done.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    outcome
}

/// Every change from the start, through kills and resumptions, until the revision that is the end.
async fn record(
    server: Arc<Server>,
    end: Arc<Mutex<Option<Revision>>>,
    seen: Arc<AtomicU64>,
    seed: u64,
) -> Result<Vec<Change>, String> {
    let mut random = Random(seed + 7);
    let (mut changes, mut last) = (Vec::new(), FIRST_BOUNDS.revision);
    loop {
        let mut watcher = match server.watch(last) {
            Ok(watcher) => watcher,
            Err(StoreError::Unavailable { .. }) => {
                tokio::task::yield_now().await;
                continue;
            }
            Err(other) => return Err(format!("the watch from {last} was refused: {other}")),
        };
        // Clients resume now and then, also without a kill.
        for _ in 0..=random.next() % 4 {
            let finished = end.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|end| last >= end);
            if finished {
                return Ok(changes);
            }
            let Ok(batch) = watcher.next().await else { break };
            for event in batch.events {
                last = event.revision();
                let value = match &*event {
                    Event::Put { current, .. } => Some(String::from_utf8_lossy(&current.value).into_owned()),
                    Event::Delete { .. } => None,
                };
                let key = String::from_utf8_lossy(event.key()).into_owned();
                if key != END {
                    changes.push(Change { revision: last.0, key, value });
                }
            }
            seen.store(last.0, Ordering::Release);
        }
    }
}

/// The last key written: what is behind it was seen.
const END: &str = "end";

/// A whole load under kills and compactions, and what the judge says of it.
async fn story(bug: Bug, seed: u64) -> Result<usize, String> {
    let server = Server::new(bug);
    let done = Arc::<Mutex<Vec<Call>>>::default();
    let end = Arc::<Mutex<Option<Revision>>>::default();
    let seen = Arc::<AtomicU64>::default();
    let recorder = tokio::spawn(record(server.clone(), end.clone(), seen.clone(), seed));
    let clients: Vec<_> =
        (0..CLIENTS).map(|id| tokio::spawn(client(server.clone(), id, seed, done.clone()))).collect();
    let calls = || done.lock().unwrap_or_else(PoisonError::into_inner).len();
    for life in 1..=KILLS {
        while calls() < life * CALLS_PER_LIFE {
            if recorder.is_finished() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let store = server.life().0;
        if life % 3 == 0 && !recorder.is_finished() {
            // No further: a watch that has not seen what is dropped is told to list again, as it should.
            store.compact(Revision(seen.load(Ordering::Acquire))).await.ok();
        }
        server.kill().map_err(|error| format!("after a kill: {error}"))?;
    }
    server.stop.store(true, Ordering::Release);
    for client in clients {
        client.await.map_err(|error| error.to_string())?;
    }
    let store = server.life().0;
    let mark = |precondition| Write::Put { key: END.into(), value: Bytes::new(), precondition };
    let marked = store.write(mark(Precondition::Absent)).await.map_err(|error| error.to_string())?;
    *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(marked.revision);
    // Who saw the mark before it was known as one is woken by another.
    store.write(mark(Precondition::Unchanged(marked.revision))).await.map_err(|error| error.to_string())?;
    let recorded = tokio::time::timeout(std::time::Duration::from_secs(10), recorder).await;
    let changes =
        recorded.map_err(|_| "the watch never came to the end")?.map_err(|error| error.to_string())??;
    let calls = std::mem::take(&mut *done.lock().unwrap_or_else(PoisonError::into_inner));
    check(&calls, &changes)?;
    Ok(changes.len())
}

/// The bug shows itself in one of a few loads, and the judge says so.
async fn caught(bug: Bug) {
    for seed in 1..=SEEDS {
        if let Err(impossible) = story(bug, seed).await {
            println!("{bug:?}, seed {seed}: {impossible:.300}");
            return;
        }
    }
    panic!("{bug:?} goes unnoticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_store_is_believed() {
    let mut changes = 0;
    for seed in 1..=SEEDS {
        changes += story(Bug::None, seed).await.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
    println!("{changes} changes");
    assert!(changes as u64 > SEEDS * KILLS as u64 * 5, "too little happened to prove anything: {changes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_acknowledged_before_it_is_committed_is_caught() {
    caught(Bug::AcknowledgedBeforeCommit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_a_watch_is_caught() {
    caught(Bug::WatchGap).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_lost_at_compaction_is_caught() {
    caught(Bug::DeletionLostAtCompaction).await;
}
