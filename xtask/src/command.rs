//! Running other programs: every one with its output kept, a clear error and, where it may hang, a deadline.
//!
//! In: a program and its arguments. Out: its standard output, or an error that names the command and what it said.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// This program, to be started again. A build may have replaced its file meanwhile: the new one is as good.
///
/// # Errors
/// When the kernel does not tell.
pub fn own_program() -> Result<PathBuf> {
    let path = std::env::current_exe().context("finding this program")?;
    // How the kernel shows a file that was replaced.
    let kept = path.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(kept.unwrap_or(path))
}

/// Runs to the end and returns standard output.
///
/// # Errors
/// When the program is missing or exits non-zero; the last lines it said are part of the error.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{shown}`: is {} installed?", program(command)))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let said = if said.trim().is_empty() { String::from_utf8_lossy(&out.stdout) } else { said };
        let tail: Vec<&str> = said.trim().lines().rev().take(12).collect();
        bail!(
            "`{shown}` ended with {}:\n{}",
            out.status,
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs to the end with the terminal's own output streams.
///
/// # Errors
/// When the program is missing or exits non-zero.
pub fn inherit(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run `{shown}`: is {} installed?", program(command)))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// Shorthand for a command with arguments.
pub fn cmd<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn show(command: &Command) -> String {
    let mut shown = program(command);
    for arg in command.get_args() {
        shown.push(' ');
        shown.push_str(&arg.to_string_lossy());
    }
    shown
}
