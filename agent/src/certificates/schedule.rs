//! When a certificate is renewed. Pure.
//!
//! In: its validity, a number that spreads nodes. Out: a moment between 70 and 90 % of its life, as upstream's kubelet.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

const EARLIEST: f64 = 0.7;
const SPREAD: f64 = 0.2;
/// What is left when the log begins to warn, unless the whole life is shorter than that.
const WARN_BEFORE: i64 = 30 * 24 * 3600;

/// From when to when, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

/// Now, in the same seconds.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

// === impl Validity ===

impl Validity {
    pub fn is_over(self, now: i64) -> bool {
        now >= self.not_after
    }

    /// `fraction` lies between 0 and 1 and is the same for a certificate whenever it is asked.
    pub(super) fn renewal(self, fraction: f64) -> i64 {
        let life = self.not_after.saturating_sub(self.not_before).max(0);
        // A life is far below the 2^52 seconds that a float holds exactly.
        self.not_before.saturating_add((life as f64 * (EARLIEST + SPREAD * fraction)) as i64)
    }

    /// Whether somebody has to look: it should have been renewed long ago, and ends soon.
    pub(super) fn is_late(self, now: i64) -> bool {
        let life = self.not_after.saturating_sub(self.not_before).max(0);
        self.not_after.saturating_sub(now) < WARN_BEFORE.min(life / 10)
    }
}

/// A number between 0 and 1 out of a certificate: nodes that joined together do not renew together, and a node that
/// looks twice does not draw twice.
pub(super) fn fraction(certificate: &str) -> f64 {
    let digest: [u8; 32] = Sha256::digest(certificate).into();
    f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX)
}

/// How long to wait for `moment`, at most `longest`: clocks are set and files replaced meanwhile.
pub(super) fn until(moment: i64, now: i64, longest: Duration) -> Duration {
    Duration::from_secs(u64::try_from(moment.saturating_sub(now)).unwrap_or(0)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Validity = Validity { not_before: 1_000, not_after: 1_000 + 365 * 24 * 3600 };

    #[test]
    fn certificates_are_renewed_between_70_and_90_percent_of_their_life() {
        let at = |fraction| (YEAR.renewal(fraction) - YEAR.not_before) as f64 / (365.0 * 24.0 * 3600.0);
        assert!((at(0.0) - 0.7).abs() < 1e-6 && (at(1.0) - 0.9).abs() < 1e-6);
        let broken = Validity { not_before: 10, not_after: 5 };
        assert_eq!((broken.renewal(0.5), broken.is_over(5)), (10, true));
    }

    #[test]
    fn certificates_spread_and_each_keeps_its_moment() {
        assert_eq!(fraction("a").to_bits(), fraction("a").to_bits());
        let all: Vec<f64> = (0..100).map(|n| fraction(&format!("certificate {n}"))).collect();
        assert!(all.iter().all(|f| (0.0..=1.0).contains(f)));
        assert!(all.iter().any(|f| *f < 0.25) && all.iter().any(|f| *f > 0.75));
    }

    #[test]
    fn lateness_is_told_within_the_last_days_only() {
        let days = |n: i64| YEAR.not_after - n * 24 * 3600;
        assert!(!YEAR.is_late(days(40)) && YEAR.is_late(days(29)));
        let short = Validity { not_before: 0, not_after: 600 };
        assert!(!short.is_late(500) && short.is_late(550));
    }

    #[test]
    fn waits_end() {
        assert_eq!(until(100, 40, Duration::from_secs(600)), Duration::from_secs(60));
        assert_eq!(until(100, 40, Duration::from_secs(6)), Duration::from_secs(6));
        assert_eq!(until(100, 400, Duration::from_secs(6)), Duration::ZERO);
    }
}
