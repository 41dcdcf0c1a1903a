//! Waiting longer after each failure.
//!
//! In: times of failures. Out: when to try again. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// First delay and ceiling. The delay doubles in between and starts over after twice the ceiling without failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    pub initial: Duration,
    pub max: Duration,
}

impl BackoffPolicy {
    /// Containers that ended and images that could not be pulled.
    pub const CRASH: Self = Self { initial: Duration::from_secs(10), max: Duration::from_secs(300) };
    /// Mounting, network, calls to the API server: mostly gone the next moment.
    pub const QUICK: Self = Self { initial: Duration::from_millis(500), max: Duration::from_secs(120) };
}

/// Delay of one thing that fails again and again. `None` inside: it never failed, or long ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    entry: Option<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    delay: Duration,
    updated: Instant,
}

impl Backoff {
    pub fn restore(delay: Duration, updated: Instant) -> Self {
        Self { entry: Some(Entry { delay, updated }) }
    }

    pub fn delay(&self) -> Option<Duration> {
        self.entry.map(|e| e.delay)
    }

    pub fn updated(&self) -> Option<Instant> {
        self.entry.map(|e| e.updated)
    }

    /// When a failure at `failed_at` may be followed by another try. A first failure: at once.
    pub fn until(&self, failed_at: Instant, policy: BackoffPolicy) -> Instant {
        match self.entry {
            Some(e) if !e.expired(failed_at, policy) => failed_at + e.delay,
            _ => failed_at,
        }
    }

    /// Another try begins at `now` after a failure at `failed_at`.
    #[must_use]
    pub fn advanced(self, failed_at: Instant, now: Instant, policy: BackoffPolicy) -> Self {
        let delay = match self.entry {
            Some(e) if !e.expired(failed_at, policy) => (e.delay * 2).min(policy.max),
            _ => policy.initial.min(policy.max),
        };
        Self { entry: Some(Entry { delay, updated: now }) }
    }
}

impl Entry {
    fn expired(&self, failed_at: Instant, policy: BackoffPolicy) -> bool {
        failed_at.saturating_duration_since(self.updated) > policy.max * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_ceiling_and_start_over_after_a_long_good_run() {
        let policy = BackoffPolicy::CRASH;
        let mut now = Instant::now();
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let failed_at = now;
            let until = backoff.until(failed_at, policy);
            waits.push((until - failed_at).as_secs());
            now = until;
            backoff = backoff.advanced(failed_at, now, policy);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let failed_at = now + Duration::from_secs(601);
        assert_eq!(backoff.until(failed_at, policy), failed_at);
        assert_eq!(backoff.advanced(failed_at, failed_at, policy).delay(), Some(Duration::from_secs(10)));
    }
}
