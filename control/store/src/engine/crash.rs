//! Power cuts: the embedded engine over a disk that forgets what was not synced.
//!
//! In: a workload, a seed. Out: at every sync of it, the disk as a power cut at that instant could leave it: all that
//! was synced, and of the rest an arbitrary subset of sectors. Each image has to open with every acknowledged write
//! in it and nothing half done.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use redb::StorageBackend;

use super::{EmbeddedEngine, EngineError};
use crate::error::StoreError;
use crate::store::Store;
use crate::types::{Event, KeyValue, Precondition, Revision, Write};

const SECTOR: usize = 512;

/// A disk with a volatile cache.
#[derive(Clone, Debug, Default)]
struct CrashDisk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What the program reads.
    cached: Vec<u8>,
    /// What a power cut leaves for certain.
    synced: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: Vec<usize>,
    random: Random,
    cuts: Vec<Cut>,
    /// Sectors that are free.
    free: Option<usize>,
    /// Sectors that hold something.
    used: BTreeSet<usize>,
    /// The last revision whose writer was told that it is durable.
    acknowledged: Arc<Mutex<Revision>>,
    lie: Lie,
}

/// A fault planted on purpose, to see that it is found.
#[derive(Clone, Debug, Default)]
enum Lie {
    #[default]
    None,
    /// A sync makes durable what was there at the sync before it: who is answered now was answered too early.
    Late { pending: Vec<u8> },
}

#[derive(Debug)]
struct Cut {
    image: Vec<u8>,
    acknowledged: Revision,
    lost_sectors: usize,
}

/// xorshift: the seed is the whole story of a run.
#[derive(Debug)]
struct Random(u64);

// === impl Random ===

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

// === impl CrashDisk ===

impl CrashDisk {
    fn holding(image: Vec<u8>) -> Self {
        let inner = Inner { synced: image.clone(), cached: image, ..Inner::default() };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn seeded(seed: u64, acknowledged: Arc<Mutex<Revision>>) -> Self {
        let random = Random(Random::default().0 ^ seed);
        Self(Arc::new(Mutex::new(Inner { random, acknowledged, ..Inner::default() })))
    }

    fn engine(&self) -> EmbeddedEngine {
        self.try_engine().unwrap()
    }

    fn try_engine(&self) -> Result<EmbeddedEngine, EngineError> {
        let disk = self.clone();
        EmbeddedEngine::with("crash disk".into(), Arc::new(AtomicBool::new(false)), move || Ok(disk.clone()))
    }
}

impl Inner {
    /// The disk after a power cut now: some of the dirty sectors made it, in no order.
    fn cut(&mut self) {
        let acknowledged = *self.acknowledged.lock().unwrap();
        let mut image = self.synced.clone();
        image.resize(self.cached.len().max(image.len()), 0);
        let mut lost_sectors = 0;
        // From nothing to nearly everything, so that lone sectors are lost as well as all of them.
        let survive = self.random.next() % 101;
        for &sector in &self.dirty {
            let bytes = sector * SECTOR..((sector + 1) * SECTOR).min(self.cached.len());
            if self.random.next() % 100 < survive {
                image[bytes.clone()].copy_from_slice(&self.cached[bytes]);
            } else {
                lost_sectors += 1;
            }
        }
        self.cuts.push(Cut { image, acknowledged, lost_sectors });
    }
}

impl StorageBackend for CrashDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.0.lock().unwrap();
        let start = offset as usize;
        out.copy_from_slice(inner.cached.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().cached.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.cut();
        let now = inner.cached.clone();
        inner.synced = match &mut inner.lie {
            Lie::None => now,
            Lie::Late { pending } => std::mem::replace(pending, now),
        };
        let sectors = 0..inner.cached.len().div_ceil(SECTOR);
        let differs = |sector: &usize| {
            let bytes = sector * SECTOR..((sector + 1) * SECTOR).min(inner.cached.len());
            inner.synced.get(bytes.clone()) != Some(&inner.cached[bytes])
        };
        inner.dirty = match inner.lie {
            Lie::None => Vec::new(),
            Lie::Late { .. } => sectors.filter(differs).collect(),
        };
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        let start = offset as usize;
        let end = start + data.len();
        let sectors = start / SECTOR..end.div_ceil(SECTOR);
        let fresh = sectors.clone().filter(|sector| !inner.used.contains(sector)).count();
        if let Some(free) = &mut inner.free {
            *free = free.checked_sub(fresh).ok_or(io::ErrorKind::StorageFull)?;
        }
        inner.used.extend(sectors.clone());
        if inner.cached.len() < end {
            inner.cached.resize(end, 0);
        }
        inner.cached[start..end].copy_from_slice(data);
        inner.dirty.extend(sectors);
        inner.dirty.sort_unstable();
        inner.dirty.dedup();
        Ok(())
    }
}

/// Everything that is live after the events up to a revision.
fn replayed(events: &[Arc<Event>], to: Revision) -> Vec<KeyValue> {
    let mut live = BTreeMap::new();
    for event in events.iter().filter(|event| event.revision() <= to) {
        match &**event {
            Event::Put { current, .. } => live.insert(current.key.clone(), current.clone()),
            Event::Delete { previous, .. } => live.remove(&previous.key),
        };
    }
    live.into_values().collect()
}

/// Creates, updates, deletes and now and then compacts, one write after the other.
async fn work(store: &Store, writes: u64, random: &mut Random, acknowledged: &Mutex<Revision>) {
    for _ in 0..writes {
        let key = Bytes::from(format!("/key/{}", random.next() % 20));
        let value = Bytes::from(vec![random.next() as u8; (random.next() % 3000) as usize]);
        let write = match store.get(&key) {
            None => Write::Put { key, value, precondition: Precondition::Absent },
            Some(current) if random.next().is_multiple_of(3) => {
                Write::Delete { key, unchanged: current.mod_revision }
            }
            Some(current) => {
                Write::Put { key, value, precondition: Precondition::Unchanged(current.mod_revision) }
            }
        };
        let written = store.write(write).await.unwrap();
        *acknowledged.lock().unwrap() = written.revision;
        if random.next().is_multiple_of(10) {
            // Refused when nothing happened since the last one.
            let _ = store.compact(Revision(written.revision.0 - random.next() % 5)).await;
        }
    }
}

/// Cuts seen and cuts that lost something, or what was wrong after one.
async fn cut_everywhere(seed: u64, lie: Lie) -> Result<(usize, usize), String> {
    let acknowledged = Arc::new(Mutex::new(Revision::default()));
    let disk = CrashDisk::seeded(seed, acknowledged.clone());
    let store = Store::with_engine(Box::new(disk.engine())).unwrap();
    {
        // A file gets its name only when it has been made, so a half-made one is never opened.
        let mut inner = disk.0.lock().unwrap();
        inner.cuts.clear();
        inner.lie = match lie {
            Lie::None => Lie::None,
            Lie::Late { .. } => Lie::Late { pending: inner.synced.clone() },
        };
    }
    let mut watcher = store.watch(b"", store.revision()).unwrap();
    let recorder = tokio::spawn(async move {
        let mut events = Vec::new();
        while let Ok(batch) = watcher.next().await {
            events.extend(batch.events);
        }
        events
    });
    work(&store, 60, &mut Random(seed | 1), &acknowledged).await;
    let end = store.revision();
    store.close().await;
    let events = recorder.await.unwrap();
    assert_eq!(events.last().unwrap().revision(), end, "seed {seed}: the recording is whole");

    let cuts = std::mem::take(&mut disk.0.lock().unwrap().cuts);
    let faulted = cuts.iter().filter(|cut| cut.lost_sectors > 0).count();
    for (index, cut) in cuts.iter().enumerate() {
        judge(cut, &events)
            .map_err(|wrong| format!("seed {seed}, cut {index} of {}: {wrong}", cuts.len()))?;
    }
    Ok((cuts.len(), faulted))
}

/// What a power cut left opens, with everything acknowledged in it and nothing half done.
fn judge(cut: &Cut, events: &[Arc<Event>]) -> Result<(), String> {
    let after = CrashDisk::holding(cut.image.clone());
    let store = Store::with_engine(Box::new(after.try_engine().map_err(|error| error.to_string())?))
        .map_err(|error| error.to_string())?;
    let revision = store.revision();
    if revision < cut.acknowledged {
        return Err(format!("{revision} is before {}, which was acknowledged", cut.acknowledged));
    }
    if store.list(b"", None, 0, None).unwrap().items != replayed(events, revision) {
        return Err(format!("what is there is not what was written up to {revision}"));
    }
    let compacted = store.stats().compacted;
    let history: Vec<_> = store.watch(b"", compacted).unwrap().ready().unwrap().events;
    let kept = events.iter().filter(|event| event.revision() > compacted && event.revision() <= revision);
    if !history.iter().eq(kept) {
        return Err("the history since the compaction has changed".into());
    }
    Ok(())
}

#[tokio::test]
async fn power_cut_at_any_sync_loses_nothing_acknowledged() {
    let (mut cuts, mut faulted) = (0, 0);
    for seed in 1..=20 {
        let (seen, lossy) = cut_everywhere(seed, Lie::None).await.unwrap_or_else(|wrong| panic!("{wrong}"));
        cuts += seen;
        faulted += lossy;
    }
    println!("{cuts} power cuts, {faulted} of them lost something");
    assert!(
        cuts >= 1000 && faulted * 2 > cuts,
        "{faulted} of {cuts} cuts lost anything: the disk is too kind"
    );
}

/// The planted fault that proves the test above: found in the first workload already, by less than a hundred images.
#[tokio::test]
async fn a_write_acknowledged_before_its_sync_is_caught() {
    for seed in 1..=5 {
        let caught = cut_everywhere(seed, Lie::Late { pending: Vec::new() }).await;
        println!("{}", caught.expect_err("a write acknowledged too early goes unnoticed"));
    }
}

#[tokio::test]
async fn full_disk_refuses_writes_keeps_reads_and_mends_itself() {
    let disk = CrashDisk::seeded(1, Arc::default());
    let store = Store::with_engine(Box::new(disk.engine())).unwrap();
    let create = |n: u32| Write::Put {
        key: format!("/key/{n}").into(),
        value: vec![7; 2000].into(),
        precondition: Precondition::Absent,
    };
    disk.0.lock().unwrap().free = Some(200);
    let mut written = Vec::new();
    let refused = loop {
        match store.write(create(written.len() as u32)).await {
            Ok(done) => written.push(done.kv),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, StoreError::DiskFull);
    assert!(!written.is_empty());
    assert_eq!(store.write(create(1000)).await, Err(StoreError::DiskFull));
    let listed = |store: &Store| {
        let mut items = store.list(b"", None, 0, None).unwrap().items;
        items.sort_by_key(|kv| kv.mod_revision);
        items
    };
    assert_eq!(listed(&store), written);

    disk.0.lock().unwrap().free = None;
    // It tries again on its own, now and then.
    let mended = loop {
        match store.write(create(2000)).await {
            Ok(done) => break done,
            Err(refused) => assert_eq!(refused, StoreError::DiskFull),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    written.push(mended.kv);
    assert_eq!(listed(&store), written);
    store.close().await;
    let reopened = Store::with_engine(Box::new(disk.engine())).unwrap();
    assert_eq!(listed(&reopened), written);
}
