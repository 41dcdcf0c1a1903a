//! The queue all controllers share: keys waiting to be reconciled.
//!
//! In: keys, now or after a delay, from watch events and from failed runs. Out: one key at a time to whoever asks.
//! A key is in the queue at most once and never handed out while a run of it is under way; asked for meanwhile, it
//! comes back when the run is done. Its length is bounded by the number of live objects times the controllers that
//! look at them, and by a hard capacity besides: a key refused there sets a flag that makes the owner ask for
//! everything again, so nothing is lost for good.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Limits of a [`WorkQueue`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    /// Keys waiting or delayed at once.
    pub(crate) capacity: usize,
    /// Wait after the first failure of a key; doubles with each further one.
    pub(crate) backoff_base: Duration,
    /// Longest wait after a failure.
    pub(crate) backoff_cap: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            capacity: 1_000_000,
            backoff_base: Duration::from_millis(5),
            backoff_cap: Duration::from_secs(60),
        }
    }
}

/// Keys waiting for a run.
///
/// ```text
///   add ──► ready ──get──► running ──done──► (gone, or ready again if added meanwhile)
///   add_after ──► delayed ──time──► ready
/// ```
pub(crate) struct WorkQueue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    limits: QueueLimits,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys that need a run: those in `ready` and those asked for while running.
    dirty: HashSet<K>,
    running: HashSet<K>,
    /// Timers; an entry counts only while `delayed` names the same instant for its key.
    timers: BinaryHeap<(Reverse<Instant>, u64)>,
    timer_keys: HashMap<u64, K>,
    delayed: HashMap<K, (Instant, u64)>,
    next_timer: u64,
    failures: HashMap<K, u32>,
    overflowed: bool,
    closed: bool,
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashSet::new(),
                running: HashSet::new(),
                timers: BinaryHeap::new(),
                timer_keys: HashMap::new(),
                delayed: HashMap::new(),
                next_timer: 0,
                failures: HashMap::new(),
                overflowed: false,
                closed: false,
            }),
            changed: Notify::new(),
            limits,
        }
    }

    /// Asks for a run of `key` as soon as possible.
    pub(crate) fn add(&self, key: K) {
        if self.lock().add(key, self.limits.capacity) {
            self.changed.notify_one();
        }
    }

    /// Asks for a run of `key` after `delay`; of several such requests the earliest counts.
    pub(crate) fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        if self.lock().delay(key, at, self.limits.capacity) {
            self.changed.notify_one();
        }
    }

    /// Asks for a run of `key` after a wait that doubles with each call until [`Self::forget`].
    pub(crate) fn add_rate_limited(&self, key: K) {
        let delay = {
            let mut state = self.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let factor = 2_u32.saturating_pow((*failures).min(31));
            *failures = failures.saturating_add(1);
            self.limits.backoff_base.saturating_mul(factor).min(self.limits.backoff_cap)
        };
        self.add_after(key, delay);
    }

    /// The key succeeded: its next failure waits the base again.
    pub(crate) fn forget(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// How often `key` failed in a row.
    pub(crate) fn failures(&self, key: &K) -> u32 {
        self.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key to run; the caller must report [`Self::done`]. `None` once the queue is closed.
    pub(crate) async fn get(&self) -> Option<K> {
        loop {
            let changed = self.changed.notified();
            let wake = {
                let mut state = self.lock();
                if state.closed {
                    return None;
                }
                state.fire_timers(Instant::now(), self.limits.capacity);
                if let Some(key) = state.take() {
                    return Some(key);
                }
                state.timers.peek().map(|(Reverse(at), _)| *at)
            };
            match wake {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// The run of `key` is over.
    pub(crate) fn done(&self, key: &K) {
        let again = {
            let mut state = self.lock();
            state.running.remove(key);
            let again = state.dirty.contains(key);
            if again {
                state.ready.push_back(key.clone());
            }
            again
        };
        if again {
            self.changed.notify_one();
        }
    }

    /// True once after keys were refused for lack of room.
    pub(crate) fn take_overflow(&self) -> bool {
        std::mem::take(&mut self.lock().overflowed)
    }

    /// Hands out nothing from now on.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// The state stays consistent over a panic in another holder: every method leaves it whole before it can panic.
    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K, capacity: usize) -> bool {
        if self.dirty.contains(&key) {
            return false;
        }
        if self.dirty.len() + self.delayed.len() >= capacity {
            self.overflowed = true;
            return false;
        }
        self.dirty.insert(key.clone());
        if self.running.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn delay(&mut self, key: K, at: Instant, capacity: usize) -> bool {
        match self.delayed.get(&key) {
            Some((earlier, _)) if *earlier <= at => return false,
            Some((_, timer)) => {
                self.timer_keys.remove(timer);
            }
            None if self.dirty.len() + self.delayed.len() >= capacity => {
                self.overflowed = true;
                return false;
            }
            None => {}
        }
        let timer = self.next_timer;
        self.next_timer += 1;
        self.timers.push((Reverse(at), timer));
        self.timer_keys.insert(timer, key.clone());
        self.delayed.insert(key, (at, timer));
        true
    }

    fn fire_timers(&mut self, now: Instant, capacity: usize) {
        while let Some((Reverse(at), timer)) = self.timers.peek().copied() {
            let Some(key) = self.timer_keys.get(&timer) else {
                self.timers.pop();
                continue;
            };
            if at > now {
                return;
            }
            let key = key.clone();
            self.timers.pop();
            self.timer_keys.remove(&timer);
            self.delayed.remove(&key);
            self.add(key, capacity);
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn queue() -> WorkQueue<&'static str> {
        WorkQueue::new(QueueLimits::default())
    }

    fn next(queue: &WorkQueue<&'static str>) -> Option<&'static str> {
        queue.get().now_or_never().flatten()
    }

    #[tokio::test]
    async fn queue_hands_out_a_key_once_when_added_twice() {
        let queue = queue();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(next(&queue), Some("a"));
        assert_eq!(next(&queue), Some("b"));
        assert_eq!(next(&queue), None);
    }

    #[tokio::test]
    async fn queue_never_runs_a_key_twice_at_once_and_brings_it_back() {
        let queue = queue();
        queue.add("a");
        assert_eq!(next(&queue), Some("a"));
        queue.add("a");
        assert_eq!(next(&queue), None);
        queue.done(&"a");
        assert_eq!(next(&queue), Some("a"));
        queue.done(&"a");
        assert_eq!(next(&queue), None);
    }

    #[tokio::test(start_paused = true)]
    async fn queue_keeps_the_earliest_of_several_delays() {
        let queue = queue();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(9));
        queue.add_after("a", Duration::from_secs(3));
        queue.add_after("a", Duration::from_secs(6));
        assert_eq!(queue.get().await, Some("a"));
        assert_eq!(start.elapsed().as_secs(), 3);
        queue.done(&"a");
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(next(&queue), None);
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_doubles_to_the_cap_and_starts_over_after_forget() {
        let queue = WorkQueue::new(QueueLimits {
            capacity: 10,
            backoff_base: Duration::from_millis(10),
            backoff_cap: Duration::from_millis(35),
        });
        let mut waits = Vec::new();
        for round in 0..5 {
            if round == 4 {
                queue.forget(&"a");
            }
            let start = Instant::now();
            queue.add_rate_limited("a");
            queue.get().await;
            queue.done(&"a");
            waits.push(start.elapsed().as_millis());
        }
        assert_eq!(waits, [10, 20, 35, 35, 10]);
    }

    #[tokio::test]
    async fn queue_reports_overflow_once_when_full() {
        let queue = WorkQueue::new(QueueLimits { capacity: 2, ..QueueLimits::default() });
        for key in ["a", "b", "c"] {
            queue.add(key);
        }
        assert!(queue.take_overflow());
        assert!(!queue.take_overflow());
        assert_eq!(next(&queue), Some("a"));
        assert_eq!(next(&queue), Some("b"));
        assert_eq!(next(&queue), None);
    }

    #[tokio::test]
    async fn closed_queue_ends_a_waiting_consumer() {
        let queue = std::sync::Arc::new(queue());
        let waiter = tokio::spawn({
            let queue = queue.clone();
            async move { queue.get().await }
        });
        tokio::task::yield_now().await;
        queue.close();
        assert_eq!(waiter.await.unwrap(), None);
    }
}
