//! Measurements as rows: ratios of one run, with their spread.
//!
//! In: measured values of a case and of its baseline, round by round and interleaved. Out: [`Row`]s, printed as a table
//! and written as JSON. A goal holds only where the interval of the ratio lies on its right side and is narrow enough.

pub mod control;
pub mod dataplane;
mod options;
mod percentile;
pub mod pods;
mod row;

use std::path::Path;

use anyhow::{Context, Result};

pub use options::{Options, Rounds};
use percentile::percentile;
pub use row::{Goal, Row, Verdict};

/// Prints the rows, writes them where that was asked for; false when a goal does not hold.
///
/// # Errors
/// When the file cannot be written.
pub fn conclude(rows: &[Row], options: &Options) -> Result<bool> {
    print(rows);
    if let Some(path) = &options.json {
        write_json(rows, path)?;
    }
    Ok(rows.iter().all(|row| matches!(row.held, None | Some(Verdict::Held))))
}

/// What the kernel says a process holds in memory, in MiB.
fn resident(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

fn print(rows: &[Row]) {
    println!(
        "{:<12} {:<58} {:>10} {:>10} {:<6} {:>9} {:>21} {:>5} {:<9} held",
        "ID", "CASE", "VALUE", "BASELINE", "UNIT", "RATIO", "95 %", "RUNS", "GOAL"
    );
    for row in rows {
        let held = match row.held {
            Some(Verdict::Held) => "yes",
            Some(Verdict::Missed) => "no",
            Some(Verdict::Undecided) => "undecided",
            None => "",
        };
        let interval = format!("{:.3}-{:.3}", row.low, row.high);
        println!(
            "{:<12} {:<58} {:>10.2} {:>10.2} {:<6} {:>9.3} {interval:>21} {:>5} {:<9} {held}",
            row.id, row.case, row.value, row.baseline, row.unit, row.ratio, row.runs, row.goal
        );
    }
}

fn write_json(rows: &[Row], path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(rows)?;
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
