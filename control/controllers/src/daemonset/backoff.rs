//! How long a node is left alone after a DaemonSet's pod failed there.
//!
//! In: failures by set, generation and node. Out: whether the pod may be replaced now, or when. Doubles from a second to
//! fifteen minutes, as upstream's does: a node that refuses its pods must not be asked without end. Bounded; lost with
//! the process, which costs one early attempt.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// A node that failed nothing for this long begins anew.
const FORGOTTEN: Duration = Duration::from_secs(2 * 15 * 60);
/// Nodes remembered before those that would be forgotten are looked for.
const REMEMBERED: usize = 4096;

/// A set's UID, its generation, and the node.
pub(crate) type Site = (String, i64, String);

/// Failures of one controller's pods.
#[derive(Default)]
pub(crate) struct Backoff {
    sites: Mutex<HashMap<Site, Failures>>,
}

struct Failures {
    delay: Duration,
    last: Instant,
}

impl Backoff {
    /// Counts a failure whose pod is replaced now; `Err`: how long it is too early for that.
    pub(crate) fn replace(&self, site: Site, now: Instant) -> Result<(), Duration> {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        if sites.len() >= REMEMBERED {
            sites.retain(|_, failures| now.duration_since(failures.last) < FORGOTTEN);
        }
        let known = sites.get(&site).filter(|failures| now.duration_since(failures.last) < FORGOTTEN);
        let delay = match known {
            None => FIRST,
            Some(known) => {
                let age = now.duration_since(known.last);
                if age < known.delay {
                    return Err(known.delay - age);
                }
                (known.delay * 2).min(LONGEST)
            }
        };
        sites.insert(site, Failures { delay, last: now });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(node: &str) -> Site {
        ("u".to_owned(), 1, node.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn delays_double_to_the_longest_and_are_forgotten() {
        let backoff = Backoff::default();
        let mut waited = Vec::new();
        for _ in 0..12 {
            assert_eq!(backoff.replace(site("n"), Instant::now()), Ok(()));
            let left = backoff.replace(site("n"), Instant::now()).unwrap_err();
            waited.push(left.as_secs());
            tokio::time::advance(left).await;
        }
        assert_eq!(waited, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
        assert_eq!(backoff.replace(site("other"), Instant::now()), Ok(()), "each node for itself");
        tokio::time::advance(FORGOTTEN).await;
        backoff.replace(site("n"), Instant::now()).unwrap();
        assert_eq!(backoff.replace(site("n"), Instant::now()), Err(FIRST));
    }
}
