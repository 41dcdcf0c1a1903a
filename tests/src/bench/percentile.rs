//! Percentiles of single events, where a round is too short to have one of its own.
//!
//! In: samples by round, of a case and of its baseline. Out: the ratio of their percentiles with an interval found by
//! drawing the rounds again and again (bootstrap): rounds, not samples, because what disturbs one disturbs its
//! neighbours. Pure: the drawing starts from the same seed each time.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::row::{Goal, Row};

const DRAWS: usize = 1000;
const SEED: u64 = 1;

/// Compares the percentile (`0.5` is the median) of a case with that of its baseline. Without a baseline the goal is
/// about the value itself.
///
/// # Panics
/// Without a single sample.
#[must_use]
pub fn percentile(
    name: (&str, &str, &'static str),
    rank: f64,
    rounds: &[Vec<f64>],
    baselines: Option<&[Vec<f64>]>,
    goal: Option<Goal>,
) -> Row {
    let picks: Vec<usize> = (0..rounds.len()).collect();
    let value = of_rounds(rounds, &picks, rank);
    let baseline = |picks: &[usize]| baselines.map_or(1.0, |baselines| of_rounds(baselines, picks, rank));
    let mut random = StdRng::seed_from_u64(SEED);
    let mut ratios: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<usize> = picks.iter().map(|_| random.random_range(0..rounds.len())).collect();
            of_rounds(rounds, &drawn, rank) / baseline(&drawn)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let interval = (at_rank(&ratios, 0.025), at_rank(&ratios, 0.975));
    let base = baseline(&picks);
    Row::of(name, (value, base), (value / base, interval.0, interval.1), rounds.len(), goal)
}

/// The percentile of the samples of these rounds together.
fn of_rounds(rounds: &[Vec<f64>], picks: &[usize], rank: f64) -> f64 {
    let mut samples: Vec<f64> = picks.iter().flat_map(|pick| rounds[*pick].iter().copied()).collect();
    samples.sort_by(f64::total_cmp);
    at_rank(&samples, rank)
}

/// The smallest value that so much of all is not above.
fn at_rank(sorted: &[f64], rank: f64) -> f64 {
    assert!(!sorted.is_empty(), "a percentile needs a sample");
    let place = (rank * sorted.len() as f64).ceil() as usize;
    sorted[place.saturating_sub(1).min(sorted.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_samples_together() {
        let rounds: Vec<Vec<f64>> =
            (0..20).map(|round| (1..=5).map(|n| f64::from(round * 5 + n)).collect()).collect();
        let twice: Vec<Vec<f64>> =
            rounds.iter().map(|round| round.iter().map(|sample| sample * 2.0).collect()).collect();
        let median = percentile(("K1", "x", "ms"), 0.5, &twice, Some(&rounds), None);
        assert_eq!((median.value, median.baseline, median.ratio, median.runs), (100.0, 50.0, 2.0, 20));
        assert_eq!((median.low, median.high), (2.0, 2.0));
        assert_eq!(percentile(("K1.p99", "x", "ms"), 0.99, &rounds, None, None).value, 99.0);
    }

    #[test]
    fn the_interval_holds_the_value_and_widens_with_the_spread() {
        let spread = |width: f64| -> Row {
            let rounds: Vec<Vec<f64>> = (0..30).map(|n| vec![100.0 + width * f64::from(n % 7 - 3)]).collect();
            percentile(("K4", "x", "ms"), 0.5, &rounds, None, Some(Goal::AtMost(200.0)))
        };
        let (tight, wide) = (spread(0.1), spread(10.0));
        assert!(tight.low <= tight.ratio && tight.ratio <= tight.high);
        assert!(wide.high - wide.low > tight.high - tight.low);
        assert!(tight.is_settled() && !wide.is_settled());
    }
}
