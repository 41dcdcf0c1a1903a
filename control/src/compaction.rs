//! Forgetting old revisions.
//!
//! In: time, how much history the store holds. Out: compactions. History is kept for five minutes, as upstream keeps
//! it, unless writes are so many that it would not fit.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use xebec_store::{Revision, Stats, Store, StoreError};

const KEEP: Duration = Duration::from_secs(5 * 60);
const SAMPLE: Duration = Duration::from_secs(15);
/// History beyond either limit is dropped however young it is.
const MAX_EVENTS: usize = 1_000_000;
const MAX_BYTES: u64 = 512 << 20;

/// When the store was at which revision.
#[derive(Debug, Default)]
struct Timeline {
    samples: VecDeque<(Instant, Revision)>,
}

/// Compacts until told to stop.
pub async fn run(store: Store, stop: CancellationToken) {
    let mut timeline = Timeline::default();
    let mut ticks = interval(SAMPLE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            now = ticks.tick() => {
                let Some(to) = timeline.plan(now, &store.stats()) else { continue };
                match store.compact(to).await {
                    Ok(()) => tracing::debug!(revision = to.0, "history compacted"),
                    Err(StoreError::Compacted { .. }) => {}
                    Err(error) => tracing::warn!(%error, "history not compacted"),
                }
            }
        }
    }
}

// === impl Timeline ===

impl Timeline {
    /// Notes where the store is and says up to where history may go.
    fn plan(&mut self, now: Instant, stats: &Stats) -> Option<Revision> {
        self.samples.push_back((now, stats.revision));
        let mut to = None;
        while let Some((_, revision)) = self.samples.pop_front_if(|(at, _)| *at + KEEP <= now) {
            to = Some(revision);
        }
        if stats.history > MAX_EVENTS || stats.history_bytes > MAX_BYTES {
            let half = Revision(stats.revision.0 - (stats.history / 2) as u64);
            to = to.max(Some(half));
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
        let mut plan =
            |seconds, revision| timeline.plan(start + Duration::from_secs(seconds), &stats(revision, 0));
        assert_eq!(plan(0, 10), None);
        assert_eq!(plan(200, 20), None);
        assert_eq!(plan(299, 30), None);
        assert_eq!(plan(300, 40), Some(Revision(10)));
        assert_eq!(plan(301, 40), None);
        assert_eq!(plan(700, 50), Some(Revision(40)));
    }

    #[test]
    fn idle_store_is_left_alone() {
        let start = Instant::now();
        let mut timeline = Timeline::default();
        for seconds in [0, 400, 800] {
            assert_eq!(timeline.plan(start + Duration::from_secs(seconds), &stats(10, 10)), None);
        }
    }

    #[test]
    fn too_much_history_goes_at_once() {
        let mut timeline = Timeline::default();
        let plan = timeline.plan(Instant::now(), &stats(2_000_010, 10));
        assert_eq!(plan, Some(Revision(1_000_010)));
    }
}
