//! Measurements as rows: ratios of one run, with their spread.
//!
//! In: measured values of a case and of its baseline, round by round and interleaved. Out: [`Row`]s, printed as a table
//! and written as JSON. A goal holds only where the interval of the ratio lies on its right side and is narrow enough.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Widest interval, relative to the ratio, that still decides a goal.
const DECISIVE: f64 = 0.03;

/// What a ratio has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
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
    /// Median of the baseline over the same rounds.
    pub baseline: f64,
    /// Median of the rounds' own ratios.
    pub ratio: f64,
    /// 95 % interval of the median ratio, by order statistics.
    pub low: f64,
    pub high: f64,
    pub runs: usize,
    pub goal: String,
    /// Absent when the interval is too wide to tell, or without a goal.
    pub held: Option<bool>,
}

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
        let (ratio, low, high) = median_with_interval(&ratios);
        Self {
            id: id.to_owned(),
            case: case.to_owned(),
            value: median_with_interval(values).0,
            unit,
            baseline: median_with_interval(baselines).0,
            ratio,
            low,
            high,
            runs: ratios.len(),
            goal: goal.map(say).unwrap_or_default(),
            held: goal.and_then(|goal| held(goal, ratio, low, high)),
        }
    }
}

fn say(goal: Goal) -> String {
    match goal {
        Goal::AtMost(limit) => format!("≤ {limit}"),
        Goal::AtLeast(limit) => format!("≥ {limit}"),
    }
}

fn held(goal: Goal, ratio: f64, low: f64, high: f64) -> Option<bool> {
    let (surely, surely_not) = match goal {
        Goal::AtMost(limit) => (low <= limit, low > limit),
        Goal::AtLeast(limit) => (high >= limit, high < limit),
    };
    if surely_not {
        return Some(false);
    }
    ((high - low) / ratio <= DECISIVE).then_some(surely)
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

/// Prints the rows as a table.
pub fn print(rows: &[Row]) {
    println!(
        "{:<12} {:<44} {:>12} {:>12} {:<8} {:>7} {:>15}  {:<8} held",
        "ID", "CASE", "VALUE", "BASELINE", "UNIT", "RATIO", "95 %", "GOAL"
    );
    for row in rows {
        let held = match row.held {
            Some(true) => "yes",
            Some(false) => "no",
            None if row.goal.is_empty() => "",
            None => "undecided",
        };
        println!(
            "{:<12} {:<44} {:>12.2} {:>12.2} {:<8} {:>7.3} {:>7.3}-{:<7.3}  {:<8} {held}",
            row.id, row.case, row.value, row.baseline, row.unit, row.ratio, row.low, row.high, row.goal
        );
    }
}

/// Writes the rows as JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(rows: &[Row], path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(rows)?;
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_rounds() {
        let row = Row::new("D2", "x", "µs", &[2.0, 4.0, 6.0], &[1.0, 2.0, 3.0], None);
        assert_eq!((row.value, row.baseline, row.ratio, row.runs), (4.0, 2.0, 2.0, 3));
        assert_eq!((row.low, row.high), (2.0, 2.0));
    }

    #[test]
    fn a_goal_is_missed_when_the_interval_excludes_it() {
        assert_eq!(held(Goal::AtMost(1.02), 1.05, 1.04, 1.06), Some(false));
        assert_eq!(held(Goal::AtLeast(0.995), 0.95, 0.94, 0.96), Some(false));
    }

    #[test]
    fn a_wide_interval_decides_nothing() {
        assert_eq!(held(Goal::AtMost(1.02), 1.0, 0.9, 1.1), None);
        assert_eq!(held(Goal::AtMost(1.02), 1.0, 0.99, 1.01), Some(true));
    }
}
