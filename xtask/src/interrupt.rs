//! Ctrl-C and SIGTERM: long commands end what they started before they end themselves.
//!
//! In: signals. Out: a flag that long waits look at; a second signal ends this process at once.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Exit code of a command ended by SIGINT, by the shell's convention.
const EXIT_CODE: i32 = 130;

/// Listens from now on. Programs that are started get the usual handling back.
///
/// # Errors
/// When no thread or handler can be had.
pub fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _within = runtime.enter();
        let handler = |kind| signal(kind).context("listening for signals");
        (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if INTERRUPTED.swap(true, Ordering::Relaxed) {
                    std::process::exit(EXIT_CODE);
                }
                eprintln!("\ncleaning up; once more to leave at once");
            }
        });
    })?;
    Ok(())
}

pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// # Errors
/// After a signal.
pub fn check() -> Result<()> {
    if is_interrupted() {
        bail!("interrupted");
    }
    Ok(())
}
