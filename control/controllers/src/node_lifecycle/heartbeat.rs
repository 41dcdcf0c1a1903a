//! When each node was last heard of, by this process's own clock.
//!
//! In: renewals of Leases and heartbeats in node statuses, as they are seen. Out: how long a node has been silent.
//! What counts is that a time stamp changed, not what it says: clocks of nodes may be wrong. A restart grants every
//! node its full time anew.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Heartbeats by node.
#[derive(Default)]
pub(crate) struct Heartbeats {
    nodes: Mutex<HashMap<String, Heartbeat>>,
}

struct Heartbeat {
    lease: Option<Timestamp>,
    status: Option<Timestamp>,
    heard: Instant,
}

/// Where a heartbeat was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    Lease,
    Status,
}

impl Heartbeats {
    /// A time stamp was seen. Says how long the node had been silent if it is news.
    pub(crate) fn see(&self, node: &str, source: Source, stamp: Option<Timestamp>) -> Option<Duration> {
        let mut nodes = self.lock();
        let now = Instant::now();
        let known =
            nodes.entry(node.to_owned()).or_insert(Heartbeat { lease: None, status: None, heard: now });
        let last = match source {
            Source::Lease => &mut known.lease,
            Source::Status => &mut known.status,
        };
        if stamp.is_none() || *last == stamp {
            return None;
        }
        *last = stamp;
        let silence = now.duration_since(known.heard);
        known.heard = now;
        Some(silence)
    }

    /// How long the node has been silent, at least since it is known here.
    pub(crate) fn silence(&self, node: &str) -> Duration {
        self.lock().get(node).map_or(Duration::ZERO, |known| known.heard.elapsed())
    }

    pub(crate) fn forget(&self, node: &str) {
        self.lock().remove(node);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Heartbeat>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_time_stamp_that_changes_is_a_sign_of_life() {
        let heartbeats = Heartbeats::default();
        let stamp = |second: i64| Some(Timestamp::from_second(second).unwrap());
        assert!(heartbeats.see("n", Source::Lease, stamp(100)).is_some());
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(heartbeats.see("n", Source::Lease, stamp(100)).is_none(), "a re-list shows the old one");
        assert_eq!(heartbeats.silence("n").as_secs(), 30);
        assert_eq!(heartbeats.see("n", Source::Lease, stamp(50)).unwrap().as_secs(), 30, "a clock went back");
        assert_eq!(heartbeats.silence("n").as_secs(), 0);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(heartbeats.see("n", Source::Status, stamp(7)).is_some());
        assert_eq!(heartbeats.silence("n").as_secs(), 0);
        heartbeats.forget("n");
        assert_eq!(heartbeats.silence("n").as_secs(), 0);
    }
}
