//! What `cargo xtask bench` runs, once all that it needs is built and set up.
//!
//! In: `dataplane`, `pods` or `control`, `--quick`, `--json FILE`; see each bench for its environment. Out: rows on stdout,
//! exit code 0 only if every goal holds.

use std::process::ExitCode;

use anyhow::{Result, bail};
use xebec_tests::bench::{Options, Row, conclude, control, dataplane, pods};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    // The library of TLS is chosen once in a process; only a second choice could fail.
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut arguments = std::env::args().skip(1);
    let measure: fn(&Options) -> Result<Vec<Row>> = match arguments.next().as_deref() {
        Some("dataplane") => dataplane::measure,
        Some("pods") => pods::measure,
        Some("control") => control::measure,
        _ => bail!("say what to measure: dataplane, pods or control"),
    };
    let options = Options::parse(arguments)?;
    conclude(&measure(&options)?, &options)
}
