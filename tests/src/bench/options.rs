//! What every bench can be told.
//!
//! In: the command line. Out: [`Options`], and how many [`Rounds`] that means.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::row::Row;

/// Fewer rounds say nothing about the spread.
pub const LEAST_ROUNDS: usize = 15;

/// The command line of a bench.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Fewer and shorter rounds.
    pub quick: bool,
    /// Where to write the rows too.
    pub json: Option<PathBuf>,
}

/// From how many rounds on the rows are looked at, and how many there are at most.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    least: usize,
    most: usize,
}

// === impl Options ===

impl Options {
    /// # Errors
    /// When there is something among the arguments that is not known.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--json" => options.json = Some(arguments.next().context("--json needs a file")?.into()),
                other => bail!("unknown argument {other:?}: --quick and --json FILE are known"),
            }
        }
        Ok(options)
    }

    /// At least 15 rounds, then as many as it takes to tell, up to `most`; of a quick run a third of them.
    #[must_use]
    pub fn rounds(&self, most: usize) -> Rounds {
        let most = if self.quick { most / 3 } else { most };
        Rounds { least: LEAST_ROUNDS, most: most.max(LEAST_ROUNDS) }
    }
}

// === impl Rounds ===

impl Rounds {
    /// Whether what was measured in so many rounds is enough.
    pub fn enough(self, done: usize, rows: impl FnOnce() -> Vec<Row>) -> bool {
        done >= self.most || (done >= self.least && rows().iter().all(Row::is_settled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Goal;

    #[test]
    fn the_command_line_is_read_or_refused() {
        let parse = |words: &[&str]| Options::parse(words.iter().map(ToString::to_string));
        let options = parse(&["--quick", "--json", "a.json"]).expect("known");
        assert_eq!((options.quick, options.json), (true, Some("a.json".into())));
        assert!(parse(&["--json"]).is_err());
        assert!(parse(&["fast"]).is_err());
    }

    #[test]
    fn rounds_go_on_until_all_rows_can_tell() {
        let rounds = Options::default().rounds(60);
        let row = |values: &[f64]| vec![Row::absolute("C5", "x", "MiB", values, Some(Goal::AtMost(9.0)))];
        assert!(!rounds.enough(14, || row(&[1.0])));
        assert!(rounds.enough(15, || row(&[1.0; 15])));
        let wide: Vec<f64> = (0..20).map(|n| f64::from(n % 5 + 1)).collect();
        assert!(!rounds.enough(20, || row(&wide)));
        assert!(rounds.enough(60, || row(&wide)));
        assert!(Options { quick: true, json: None }.rounds(60).enough(20, || row(&wide)));
    }
}
