//! When to try again.
//!
//! In: failures, a success. Out: waits that double up to a bound, each with jitter, so that the nodes of a cluster do not
//! return to a struggling API server in step.

use std::time::Duration;

use kube::runtime::utils::Backoff;
use tokio::time::Instant;

/// Doubling waits; never ends.
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Retry {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// Starts over, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.longest);
        Some(wait.mul_f64(rand::random_range(0.5..1.0)))
    }
}

/// Waits of a watch. It announces each attempt, also one that fails at once, in the way it announces success; so only a
/// while without a failure counts as one.
#[derive(Clone, Debug)]
pub(crate) struct WatchRetry {
    retry: Retry,
    failed: Option<Instant>,
}

impl WatchRetry {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { retry: Retry::new(first, longest), failed: None }
    }
}

impl Iterator for WatchRetry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        // A wait is part of the time since the last failure, hence twice the longest.
        if self.failed.is_some_and(|last| now.saturating_duration_since(last) > self.retry.longest * 2) {
            self.retry.reset();
        }
        self.failed = Some(now);
        self.retry.next()
    }
}

impl Backoff for WatchRetry {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn watch_that_fails_again_and_again_waits_longer_though_it_announces_success() {
        let mut retry = WatchRetry::new(Duration::from_millis(100), Duration::from_secs(10));
        for _ in 0..10 {
            retry.reset();
            tokio::time::advance(retry.next().unwrap()).await;
        }
        assert!(retry.next().unwrap() >= Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(21)).await;
        assert!(retry.next().unwrap() < Duration::from_millis(100), "it went well for a while");
    }

    #[test]
    fn waits_grow_to_the_bound_and_start_over_after_success() {
        let mut retry = Retry::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<_> = (&mut retry).take(20).collect();
        assert!(waits[0] < Duration::from_millis(100) && waits[0] >= Duration::from_millis(50));
        assert!(waits[19] >= Duration::from_millis(500) && waits[19] < Duration::from_secs(1));
        retry.reset();
        assert!(retry.next().is_some_and(|wait| wait < Duration::from_millis(100)));
    }
}
