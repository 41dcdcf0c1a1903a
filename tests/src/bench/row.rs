//! One measured quantity beside its baseline.
//!
//! In: values by round. Out: medians, the ratio with its interval, and whether the goal holds. Pure.

use serde::{Serialize, Serializer};

/// Widest interval, relative to the ratio, that still decides a goal.
const DECISIVE: f64 = 0.03;

/// What a ratio has to be. Of a quantity without a baseline (memory, a rate) the ratio is the value itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

/// Whether a goal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Held,
    Missed,
    /// The interval is too wide to tell.
    Undecided,
}

/// One measured quantity beside its baseline.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Of the list of goals, with a suffix for further quantities.
    pub id: String,
    pub case: String,
    /// Median over the rounds.
    pub value: f64,
    pub unit: &'static str,
    /// Median of the baseline over the same rounds; 1 where there is none.
    pub baseline: f64,
    /// Median of the rounds' own ratios.
    pub ratio: f64,
    /// 95 % interval of the ratio.
    pub low: f64,
    pub high: f64,
    pub runs: usize,
    pub goal: String,
    /// Absent without a goal.
    pub held: Option<Verdict>,
}

// === impl Goal ===

impl Goal {
    fn say(self) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {limit}"),
            Self::AtLeast(limit) => format!("≥ {limit}"),
        }
    }

    fn verdict(self, ratio: f64, low: f64, high: f64) -> Verdict {
        let excluded = match self {
            Self::AtMost(limit) => low > limit,
            Self::AtLeast(limit) => high < limit,
        };
        if excluded {
            Verdict::Missed
        } else if is_narrow(ratio, low, high) {
            Verdict::Held
        } else {
            Verdict::Undecided
        }
    }
}

fn is_narrow(ratio: f64, low: f64, high: f64) -> bool {
    (high - low) / ratio <= DECISIVE
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Held => serializer.serialize_bool(true),
            Self::Missed => serializer.serialize_bool(false),
            Self::Undecided => serializer.serialize_str("undecided"),
        }
    }
}

// === impl Row ===

impl Row {
    /// Compares a case with its baseline, measured in the same rounds.
    ///
    /// # Panics
    /// Without a single round.
    #[must_use]
    pub fn new(
        id: &str,
        case: &str,
        unit: &'static str,
        values: &[f64],
        baselines: &[f64],
        goal: Option<Goal>,
    ) -> Self {
        let ratios: Vec<f64> =
            values.iter().zip(baselines).map(|(value, baseline)| value / baseline).collect();
        let interval = median_with_interval(&ratios);
        let medians = (median_with_interval(values).0, median_with_interval(baselines).0);
        Self::of((id, case, unit), medians, interval, ratios.len(), goal)
    }

    /// A quantity with nothing to compare it with: the goal is about the value itself.
    ///
    /// # Panics
    /// Without a single round.
    #[must_use]
    pub fn absolute(id: &str, case: &str, unit: &'static str, values: &[f64], goal: Option<Goal>) -> Self {
        Self::new(id, case, unit, values, &vec![1.0; values.len()], goal)
    }

    /// Out of numbers that were made elsewhere: `(id, case, unit)`, value and baseline, the ratio and its interval.
    pub(super) fn of(
        (id, case, unit): (&str, &str, &'static str),
        (value, baseline): (f64, f64),
        (ratio, low, high): (f64, f64, f64),
        runs: usize,
        goal: Option<Goal>,
    ) -> Self {
        Self {
            id: id.to_owned(),
            case: case.to_owned(),
            value,
            unit,
            baseline,
            ratio,
            low,
            high,
            runs,
            goal: goal.map(Goal::say).unwrap_or_default(),
            held: goal.map(|goal| goal.verdict(ratio, low, high)),
        }
    }

    /// More rounds would not change what the row says. Of the width only: whoever stopped at a favourable moment would
    /// measure his own patience.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.held.is_none() || is_narrow(self.ratio, self.low, self.high)
    }
}

/// The median and the order statistics between which it lies with 95 % confidence.
fn median_with_interval(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    assert!(count > 0, "a median needs a value");
    let middle = count / 2;
    let median =
        if count % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
    // The number of values below the median is binomial with p = 1/2; its normal approximation does from six on.
    let reach = 0.98 * (count as f64).sqrt();
    let low = ((count as f64) / 2.0 - reach).floor().max(0.0) as usize;
    (median, sorted[low.min(count - 1)], sorted[count - 1 - low.min(count - 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_rounds() {
        let row = Row::new("D2", "x", "µs", &[2.0, 4.0, 6.0], &[1.0, 2.0, 3.0], None);
        assert_eq!((row.value, row.baseline, row.ratio, row.runs), (4.0, 2.0, 2.0, 3));
        assert_eq!((row.low, row.high, row.held), (2.0, 2.0, None));
    }

    #[test]
    fn without_a_baseline_the_ratio_is_the_value() {
        let row = Row::absolute("C5", "x", "MiB", &[20.0, 20.1, 20.2], Some(Goal::AtMost(64.0)));
        assert_eq!((row.value, row.baseline, row.ratio), (20.1, 1.0, 20.1));
        assert_eq!((row.goal.as_str(), row.held), ("≤ 64", Some(Verdict::Held)));
    }

    #[test]
    fn a_goal_is_missed_when_the_interval_excludes_it() {
        assert_eq!(Goal::AtMost(1.02).verdict(1.05, 1.04, 1.06), Verdict::Missed);
        assert_eq!(Goal::AtLeast(0.995).verdict(0.95, 0.94, 0.96), Verdict::Missed);
        assert_eq!(Goal::AtLeast(0.995).verdict(0.9, 0.7, 0.96), Verdict::Missed);
    }

    #[test]
    fn a_wide_interval_decides_nothing() {
        assert_eq!(Goal::AtMost(1.02).verdict(1.0, 0.9, 1.1), Verdict::Undecided);
        assert_eq!(Goal::AtMost(1.02).verdict(1.0, 0.99, 1.01), Verdict::Held);
    }

    #[test]
    fn rows_have_these_keys() {
        let row = Row::new("D2", "x", "µs", &[1.0], &[1.0], Some(Goal::AtMost(1.0)));
        let json = serde_json::to_value(&row).expect("JSON");
        let mut keys: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        keys.sort_unstable();
        let mut wanted =
            ["id", "case", "value", "unit", "baseline", "ratio", "low", "high", "runs", "goal", "held"];
        wanted.sort_unstable();
        assert_eq!(keys, wanted);
        assert_eq!(json["held"], true);
        assert_eq!(serde_json::to_value(Verdict::Undecided).expect("JSON"), "undecided");
    }
}
