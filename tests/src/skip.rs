//! Saying what could not be tested here, and why.
//!
//! In: a reason. Out: a line on the terminal and in the file that `cargo xtask test` counts.

use std::io::Write;

/// Prints and records `skipped: <test>: <why>`; the caller then returns.
pub fn skipped(test: &str, why: &str) {
    let line = format!("skipped: {test}: {why}");
    println!("{line}");
    if let Some(file) = std::env::var_os("XEBEC_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
        // Without the file the line above still says it.
        file.and_then(|mut f| writeln!(f, "{line}")).ok();
    }
}
