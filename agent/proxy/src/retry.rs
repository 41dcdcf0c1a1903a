//! When to try again.
//!
//! In: failures, a success. Out: waits that double up to a bound, each with jitter, so that the nodes of a cluster do not
//! return to a struggling API server in step.

use std::time::Duration;

use kube::runtime::utils::Backoff;

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
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.longest);
        Some(wait.mul_f64(rand::random_range(0.5..1.0)))
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
