//! Forgetting old revisions.
//!
//! In: time, how much history the store holds. Out: compactions. History is kept for five minutes, as upstream keeps
//! it, unless writes are so many that it would not fit; and for as long as a backup reads it, within twice of that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use xebec_store::{Revision, Stats, Store, StoreError};

const KEEP: Duration = Duration::from_secs(5 * 60);
const SAMPLE: Duration = Duration::from_secs(15);
/// History beyond either limit is dropped however young it is.
const MAX_EVENTS: usize = 1_000_000;
const MAX_BYTES: u64 = 512 << 20;

/// Keeps history while somebody reads at one revision. Clones count the same readers.
#[derive(Clone, Debug, Default)]
pub struct Hold {
    readers: Arc<AtomicUsize>,
}

/// One reader, until it is dropped.
#[derive(Debug)]
pub struct Held(Arc<AtomicUsize>);

/// When the store was at which revision.
#[derive(Debug, Default)]
struct Timeline {
    samples: VecDeque<(Instant, Revision)>,
}

/// Compacts until told to stop.
pub async fn run(store: Store, hold: Hold, stop: CancellationToken) {
    let mut timeline = Timeline::default();
    let mut ticks = interval(SAMPLE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let held = hold.is_held();
        let limit = if held { 2 * MAX_BYTES } else { MAX_BYTES };
        let now = tokio::select! {
            () = stop.cancelled() => return,
            now = ticks.tick() => now,
            // Between two samples large objects can make gigabytes of history.
            () = store.history_beyond(limit) => Instant::now(),
        };
        let Some(to) = timeline.plan(now, &store.stats(), store.revision_that_leaves(limit / 2), held) else {
            continue;
        };
        match store.compact(to).await {
            Ok(()) => tracing::debug!(revision = to.0, "history compacted"),
            Err(StoreError::Compacted { .. }) => {}
            Err(error) => {
                tracing::warn!(%error, "history not compacted");
                // Not again at once: it would fail again.
                ticks.tick().await;
            }
        }
    }
}

// === impl Hold ===

impl Hold {
    /// History from now on stays until the answer is dropped.
    pub fn hold(&self) -> Held {
        self.readers.fetch_add(1, Ordering::AcqRel);
        Held(Arc::clone(&self.readers))
    }

    fn is_held(&self) -> bool {
        self.readers.load(Ordering::Acquire) > 0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl Timeline ===

impl Timeline {
    /// Notes where the store is and says up to where history may go. `by_bytes` is where it must go when it is too
    /// large; `held` history goes for that alone, and later.
    fn plan(&mut self, now: Instant, stats: &Stats, by_bytes: Revision, held: bool) -> Option<Revision> {
        // One sample a while: large writes ask more often.
        if self.samples.back().is_none_or(|(at, _)| *at + SAMPLE <= now) {
            self.samples.push_back((now, stats.revision));
        }
        let mut to = None;
        if !held {
            while let Some((_, revision)) = self.samples.pop_front_if(|(at, _)| *at + KEEP <= now) {
                to = Some(revision);
            }
        }
        let (events, bytes) = if held { (2 * MAX_EVENTS, 2 * MAX_BYTES) } else { (MAX_EVENTS, MAX_BYTES) };
        if stats.history > events {
            let half = Revision(stats.revision.0 - (stats.history / 2) as u64);
            to = to.max(Some(half));
        }
        if stats.history_bytes > bytes {
            to = to.max(Some(by_bytes));
        }
        to.filter(|to| *to > stats.compacted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(revision: u64, compacted: u64) -> Stats {
        Stats {
            revision: Revision(revision),
            compacted: Revision(compacted),
            keys: 0,
            history: (revision - compacted) as usize,
            history_bytes: 0,
        }
    }

    #[test]
    fn history_is_kept_for_five_minutes() {
        let start = Instant::now();
        let mut timeline = Timeline::default();
        let mut plan = |seconds, revision| {
            timeline.plan(start + Duration::from_secs(seconds), &stats(revision, 0), Revision(0), false)
        };
        assert_eq!(plan(0, 10), None);
        assert_eq!(plan(200, 20), None);
        assert_eq!(plan(299, 30), None);
        assert_eq!(plan(300, 40), Some(Revision(10)));
        assert_eq!(plan(315, 40), None);
        assert_eq!(plan(700, 50), Some(Revision(40)));
    }

    #[test]
    fn idle_store_is_left_alone() {
        let start = Instant::now();
        let mut timeline = Timeline::default();
        for seconds in [0, 400, 800] {
            assert_eq!(
                timeline.plan(start + Duration::from_secs(seconds), &stats(10, 10), Revision(0), false),
                None
            );
        }
    }

    #[test]
    fn too_much_history_goes_at_once() {
        let mut timeline = Timeline::default();
        let plan = timeline.plan(Instant::now(), &stats(2_000_010, 10), Revision(0), false);
        assert_eq!(plan, Some(Revision(1_000_010)));
        let large = Stats { history_bytes: MAX_BYTES + 1, ..stats(100, 10) };
        assert_eq!(timeline.plan(Instant::now(), &large, Revision(77), false), Some(Revision(77)));
    }

    #[test]
    fn a_backup_keeps_history_until_it_is_twice_too_large() {
        let (hold, start) = (Hold::default(), Instant::now());
        let reader = hold.hold();
        assert!(hold.is_held());
        let mut timeline = Timeline::default();
        timeline.plan(start, &stats(10, 0), Revision(0), true);
        assert_eq!(timeline.plan(start + KEEP, &stats(20, 0), Revision(0), true), None);
        let bytes = |history_bytes| Stats { history_bytes, ..stats(100, 0) };
        assert_eq!(timeline.plan(start + KEEP, &bytes(MAX_BYTES + 1), Revision(77), true), None);
        let too_large = bytes(2 * MAX_BYTES + 1);
        assert_eq!(timeline.plan(start + KEEP, &too_large, Revision(77), true), Some(Revision(77)));
        drop(reader);
        assert!(!hold.is_held());
        assert_eq!(timeline.plan(start + KEEP, &stats(20, 0), Revision(0), false), Some(Revision(10)));
    }

    #[tokio::test]
    async fn large_objects_do_not_wait_for_the_next_sample() {
        use xebec_store::{EngineConfig, Precondition, Write};
        let store = Store::open(EngineConfig::Memory).unwrap();
        let key = bytes::Bytes::from_static(b"a");
        let value = bytes::Bytes::from(vec![0; 8 << 20]);
        let mut precondition = Precondition::Absent;
        let full = store.history_beyond(20 << 20);
        let mut full = std::pin::pin!(full);
        for round in 0..4 {
            assert!(futures::poll!(full.as_mut()).is_pending(), "{round}");
            let write = Write::Put { key: key.clone(), value: value.clone(), precondition };
            precondition = Precondition::Unchanged(store.write(write).await.unwrap().revision);
        }
        full.await;
        let to = store.revision_that_leaves(10 << 20);
        store.compact(to).await.unwrap();
        assert_eq!(store.stats().history_bytes, 8 << 20);
    }
}
