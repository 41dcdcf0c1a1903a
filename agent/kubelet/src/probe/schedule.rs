//! When a probe runs and what its findings add up to. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

use super::Finding;

/// Numbers of a probe with upstream's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) initial_delay: Duration,
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    pub(super) success_threshold: u32,
    pub(super) failure_threshold: u32,
}

impl Settings {
    pub(super) fn of(probe: &Probe) -> Self {
        let at_least_one = |value: Option<i32>, default: u32| {
            value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        let delay = probe.initial_delay_seconds.and_then(|v| u64::try_from(v).ok()).unwrap_or(0);
        Self {
            initial_delay: Duration::from_secs(delay),
            period: Duration::from_secs(at_least_one(probe.period_seconds, 10).into()),
            timeout: Duration::from_secs(at_least_one(probe.timeout_seconds, 1).into()),
            success_threshold: at_least_one(probe.success_threshold, 1),
            failure_threshold: at_least_one(probe.failure_threshold, 3),
        }
    }

    /// Until the first check of a container that started `age` ago. When a result is known already, checks of many
    /// containers are spread over the period, lest an agent's restart asks them all at once.
    pub(super) fn first_delay(&self, age: Duration, known: bool) -> Duration {
        let delay = self.initial_delay.saturating_sub(age);
        if known && delay.is_zero() {
            return self.period.mul_f64(rand::random::<f64>());
        }
        delay
    }
}

/// Consecutive findings of one kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    settled: Option<bool>,
    last: Option<bool>,
    run: u32,
}

impl Tally {
    pub(super) fn new(settled: Option<bool>) -> Self {
        Self { settled, last: settled, run: 0 }
    }

    /// The newly settled result, when it is another than before.
    pub(super) fn count(&mut self, finding: &Finding, settings: &Settings) -> Option<bool> {
        let success = match finding {
            Finding::Success => true,
            Finding::Failure(_) => false,
            Finding::Unknown(_) => return None,
        };
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold = if success { settings.success_threshold } else { settings.failure_threshold };
        if self.run < threshold || self.settled == Some(success) {
            return None;
        }
        self.settled = Some(success);
        Some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(settled: Option<bool>, success: i32, failure: i32, findings: &str) -> Vec<(usize, bool)> {
        let probe =
            Probe { success_threshold: Some(success), failure_threshold: Some(failure), ..Probe::default() };
        let settings = Settings::of(&probe);
        let mut tally = Tally::new(settled);
        findings
            .chars()
            .enumerate()
            .filter_map(|(i, c)| {
                let finding = match c {
                    '+' => Finding::Success,
                    '-' => Finding::Failure(String::new()),
                    _ => Finding::Unknown(String::new()),
                };
                tally.count(&finding, &settings).map(|r| (i, r))
            })
            .collect()
    }

    #[test]
    fn results_settle_after_their_threshold_of_consecutive_findings() {
        assert_eq!(results(None, 1, 3, "+--+---+"), [(0, true), (6, false), (7, true)]);
        assert_eq!(results(None, 2, 1, "+-++"), [(1, false), (3, true)]);
        assert_eq!(results(None, 1, 3, "-?-?-"), [(4, false)]);
        assert_eq!(results(Some(true), 1, 3, "+--+--"), [], "known from before: nothing flips");
    }

    #[test]
    fn defaults_are_upstreams() {
        let settings = Settings::of(&Probe::default());
        assert_eq!(settings.period, Duration::from_secs(10));
        assert_eq!(settings.timeout, Duration::from_secs(1));
        assert_eq!((settings.success_threshold, settings.failure_threshold), (1, 3));
        let late = Settings { initial_delay: Duration::from_secs(30), ..settings };
        assert_eq!(late.first_delay(Duration::from_secs(10), true), Duration::from_secs(20));
        assert_eq!(late.first_delay(Duration::from_secs(40), false), Duration::ZERO);
    }
}
