//! The store as its callers see it, over engines that work, stall and fill up.

use std::sync::mpsc as std_mpsc;

use super::*;
use crate::engine::{Bounds, EngineError, FIRST_BOUNDS, Record, Visit};
use crate::types::{Event, Precondition};
use crate::watcher::WatchEnd;

fn memory() -> Store {
    Store::open(EngineConfig::Memory).unwrap()
}

fn create(key: &str, value: &str) -> Write {
    Write::Put {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        precondition: Precondition::Absent,
    }
}

fn update(key: &str, value: &str, revision: Revision) -> Write {
    Write::Put {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        precondition: Precondition::Unchanged(revision),
    }
}

fn delete(key: &str, unchanged: Revision) -> Write {
    Write::Delete { key: key.to_owned().into(), unchanged }
}

#[tokio::test]
async fn preconditions_decide() {
    let store = memory();
    let first = store.write(create("a", "1")).await.unwrap();
    assert_eq!(store.write(create("a", "2")).await, Err(StoreError::Exists { current: first.kv.clone() }));
    let second = store.write(update("a", "2", first.revision)).await.unwrap();
    assert_eq!(second.kv.create_revision, first.revision);
    let current = Some(second.kv.clone());
    assert_eq!(store.write(update("a", "3", first.revision)).await, Err(StoreError::Conflict { current }));
    let deleted = store.write(delete("a", second.revision)).await.unwrap();
    assert_eq!((deleted.kv, deleted.revision), (second.kv, second.revision.next()));
    assert_eq!(store.write(delete("a", second.revision)).await, Err(StoreError::Conflict { current: None }));
    assert_eq!(store.get(b"a"), None);
}

#[tokio::test]
async fn exactly_one_of_many_writers_wins_each_round() {
    let store = memory();
    let mut revision = store.write(create("a", "0")).await.unwrap().revision;
    for _ in 0..10 {
        let attempts = (0..100).map(|n| store.write(update("a", &n.to_string(), revision)));
        let won: Vec<_> =
            futures::future::join_all(attempts).await.into_iter().filter_map(Result::ok).collect();
        assert_eq!(won.len(), 1);
        revision = won[0].revision;
    }
}

#[tokio::test]
async fn oversized_writes_are_refused() {
    let store = memory();
    let refused = store.write(create("a", &"x".repeat(MAX_VALUE + 1))).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { what: "a value", .. })));
    let refused = store.write(create(&"k".repeat(MAX_KEY + 1), "")).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { what: "a key", .. })));
}

#[tokio::test]
async fn watch_goes_on_where_the_list_ended() {
    let store = memory();
    store.write(create("p/a", "1")).await.unwrap();
    let listed = store.list(b"p/", None, 0, None).unwrap();
    let b = store.write(create("p/b", "1")).await.unwrap();
    let mut watcher = store.watch(b"p/", listed.revision).unwrap();
    store.write(create("q/a", "1")).await.unwrap();
    let gone = store.write(delete("p/b", b.revision)).await.unwrap();

    let batch = watcher.next().await.unwrap();
    let mut events = batch.events;
    while events.len() < 2 {
        events.extend(watcher.next().await.unwrap().events);
    }
    assert_eq!(*events[0], Event::Put { current: b.kv.clone(), previous: None });
    assert_eq!(*events[1], Event::Delete { previous: b.kv, revision: gone.revision });
}

#[tokio::test]
async fn quiet_watch_still_advances() {
    let store = memory();
    let mut watcher = store.watch(b"p/", store.revision()).unwrap();
    let written = store.write(create("q/a", "1")).await.unwrap();
    let batch = watcher.ready().unwrap();
    assert_eq!((batch.events.len(), batch.revision), (0, written.revision));
}

#[tokio::test]
async fn watch_from_any_revision_sees_every_later_event_once() {
    let store = memory();
    for n in 0..40 {
        store.write(create(&format!("{}/{n}", ["p", "q"][n % 2]), "")).await.unwrap();
    }
    let end = store.revision();
    for after in 1..=end.0 {
        let expected: Vec<_> = (after + 1..=end.0).filter(|revision| revision % 2 == 0).collect();
        // One watcher that makes its channel, one that joins it.
        let mut watchers: Vec<_> = (0..2).map(|_| store.watch(b"p/", Revision(after)).unwrap()).collect();
        for watcher in &mut watchers {
            let mut seen = Vec::new();
            loop {
                let batch = watcher.ready().unwrap();
                seen.extend(batch.events.iter().map(|event| event.revision().0));
                if batch.revision == end {
                    break;
                }
            }
            assert_eq!(seen, expected, "after {after}");
        }
    }
}

#[tokio::test]
async fn slow_watcher_is_cut_only_when_its_history_is_gone() {
    let store = memory();
    let mut slow = store.watch(b"", store.revision()).unwrap();
    for n in 0..2000 {
        store.write(create(&n.to_string(), "")).await.unwrap();
    }
    let batch = slow.next().await.unwrap();
    assert!(batch.events.len() < 2000, "batches are bounded");
    store.compact(batch.revision).await.unwrap();
    let next = slow.next().await.unwrap();
    assert_eq!(next.events[0].revision(), batch.revision.next());
    let end = store.revision();
    store.compact(end).await.unwrap();
    assert_eq!(slow.next().await.unwrap_err(), WatchEnd::Lagged { oldest: end });
    let refused = store.watch(b"", next.revision).err();
    assert_eq!(refused, Some(StoreError::Compacted { oldest: end }));
    assert!(store.watch(b"", end).is_ok());
}

#[tokio::test]
async fn compaction_refuses_what_it_cannot_do() {
    let store = memory();
    let end = store.write(create("a", "")).await.unwrap().revision;
    assert_eq!(store.compact(end.next()).await, Err(StoreError::Future { current: end }));
    store.compact(end).await.unwrap();
    assert_eq!(store.compact(end).await, Err(StoreError::Compacted { oldest: end }));
    assert_eq!(store.get(b"a").unwrap().mod_revision, end);
}

#[tokio::test]
async fn closing_ends_watches_and_refuses_writes() {
    let store = memory();
    let mut watcher = store.watch(b"", store.revision()).unwrap();
    let (end, ()) = tokio::join!(watcher.next(), store.close());
    assert_eq!(end.unwrap_err(), WatchEnd::Closed);
    assert!(matches!(store.write(create("a", "")).await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.watch(b"", store.revision()), Err(StoreError::Unavailable { .. })));
}

/// An engine whose commits wait for, and answer with, what the test sends.
struct Scripted {
    started: std_mpsc::Sender<usize>,
    outcomes: std_mpsc::Receiver<Result<(), EngineError>>,
    /// Becomes durable although the commit failed.
    kept: Vec<Record>,
    keep_failed: bool,
}

impl Engine for Scripted {
    fn bounds(&mut self) -> Result<Bounds, EngineError> {
        Ok(FIRST_BOUNDS)
    }

    fn scan(&mut self, from: Revision, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        for record in self.kept.iter().filter(|record| record.revision >= from) {
            visit(record.clone()).map_err(|reason| self.corrupt(reason))?;
        }
        Ok(())
    }

    fn corrupt(&self, reason: String) -> EngineError {
        EngineError::Corrupt { path: "scripted".into(), reason }
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError> {
        self.started.send(batch.len()).unwrap();
        let outcome = self.outcomes.recv().unwrap();
        if outcome.is_ok() || self.keep_failed {
            self.kept.extend_from_slice(batch);
        }
        outcome
    }

    fn compact(&mut self, _bounds: Bounds, _obsolete: &[Revision]) -> Result<(), EngineError> {
        Ok(())
    }

    fn recover(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
}

struct Script {
    store: Store,
    started: std_mpsc::Receiver<usize>,
    outcomes: std_mpsc::Sender<Result<(), EngineError>>,
}

fn scripted(keep_failed: bool) -> Script {
    let (start, started) = std_mpsc::channel();
    let (outcomes, outcome) = std_mpsc::channel();
    let engine = Scripted { started: start, outcomes: outcome, kept: Vec::new(), keep_failed };
    Script { store: Store::with_engine(Box::new(engine)).unwrap(), started, outcomes }
}

fn full() -> EngineError {
    EngineError::Full { path: "scripted".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_or_shown_before_it_is_durable() {
    let script = scripted(false);
    let mut watcher = script.store.watch(b"", script.store.revision()).unwrap();
    let store = script.store.clone();
    let write = tokio::spawn(async move { store.write(create("a", "1")).await });
    script.started.recv().unwrap();

    assert!(!write.is_finished());
    assert_eq!(script.store.get(b"a"), None);
    assert!(watcher.ready().unwrap().events.is_empty());
    script.outcomes.send(Ok(())).unwrap();
    let written = write.await.unwrap().unwrap();
    assert_eq!(script.store.get(b"a"), Some(written.kv));
    assert_eq!(watcher.next().await.unwrap().events.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_wait_share_the_next_commit() {
    let script = scripted(false);
    let spawn = |n: usize| {
        let store = script.store.clone();
        tokio::spawn(async move { store.write(create(&n.to_string(), "")).await })
    };
    let first = spawn(0);
    assert_eq!(script.started.recv().unwrap(), 1);
    let rest: Vec<_> = (1..=100).map(spawn).collect();
    while script.store.queue.capacity() > QUEUE - 100 {
        tokio::task::yield_now().await;
    }
    script.outcomes.send(Ok(())).unwrap();
    assert_eq!(script.started.recv().unwrap(), 100);
    script.outcomes.send(Ok(())).unwrap();
    first.await.unwrap().unwrap();
    for write in rest {
        write.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_waits_for_the_write_it_rests_on() {
    let script = scripted(false);
    let spawn = |key: &'static str| {
        let store = script.store.clone();
        tokio::spawn(async move { store.write(create(key, "")).await })
    };
    let first = spawn("a");
    assert_eq!(script.started.recv().unwrap(), 1);
    let (one, other) = (spawn("b"), spawn("b"));
    while script.store.queue.capacity() > QUEUE - 2 {
        tokio::task::yield_now().await;
    }
    script.outcomes.send(Ok(())).unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(script.started.recv().unwrap(), 1);
    assert!(!one.is_finished() && !other.is_finished());
    script.outcomes.send(Err(full())).unwrap();
    for write in [one, other] {
        assert_eq!(write.await.unwrap(), Err(StoreError::DiskFull));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_refuses_writes_until_there_is_room() {
    let script = scripted(false);
    script.outcomes.send(Err(full())).unwrap();
    assert_eq!(script.store.write(create("a", "1")).await, Err(StoreError::DiskFull));
    assert_eq!(script.store.get(b"a"), None);
    script.outcomes.send(Ok(())).unwrap();
    let written = script.store.write(create("a", "2")).await.unwrap();
    assert_eq!(written.revision, FIRST_BOUNDS.revision.next(), "a refused write takes no revision");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_write_that_turns_out_durable_is_shown() {
    let script = scripted(true);
    script.outcomes.send(Err(full())).unwrap();
    assert_eq!(script.store.write(create("a", "1")).await, Err(StoreError::DiskFull));
    let refused = script.store.write(create("a", "2")).await;
    assert!(matches!(refused, Err(StoreError::Exists { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_engine_closes_the_store() {
    let script = scripted(false);
    let fault = EngineError::Io { path: "scripted".into(), reason: "input/output error".into() };
    script.outcomes.send(Err(fault.clone())).unwrap();
    assert!(matches!(script.store.write(create("a", "1")).await, Err(StoreError::Unavailable { .. })));
    assert_eq!(script.store.closed().await, fault.to_string());
}
