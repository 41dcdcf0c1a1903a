//! A limit for streaming connections on which nothing happens.
//!
//! In: word of every piece of data, either way; pings are none. Out: when there was none for too long. Whoever forgets
//! a `kubectl exec` must not hold one of the node's streams for ever.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// As upstream's `streamingConnectionIdleTimeout`.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

/// When data last went over a connection.
#[derive(Clone, Debug)]
pub struct Activity(Arc<Mutex<Instant>>);

// === impl Activity ===

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Activity {
    pub fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Resolves once the connection was idle for the whole limit.
    pub async fn idle(&self) {
        loop {
            let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + LIMIT;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_limit_counts_from_the_last_data() {
        let (activity, began) = (Activity::default(), Instant::now());
        let watched = activity.clone();
        let idle = tokio::spawn(async move { watched.idle().await });
        tokio::time::sleep(LIMIT / 2).await;
        activity.note();
        idle.await.unwrap();
        assert_eq!(began.elapsed(), LIMIT / 2 + LIMIT);
    }
}
