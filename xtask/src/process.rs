//! The long-running processes of a development cluster: started detached, remembered by pid and start time.
//!
//! In: what to run and where. Out: a record per process below `DIR/processes`, so that a later command (also after
//! everything was killed) tells a live process from a reused pid.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::command::own_program;
use crate::namespace::Place;

/// A process as it was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: together with the pid it names one process for good.
    start_time: u64,
    pub command: Vec<String>,
}

/// What to start.
pub struct Daemon<'a> {
    /// `<member>.<program>`: names the record and the log.
    pub name: String,
    pub place: Place,
    /// Unprivileged uid and gid to run as.
    pub uid: Option<u32>,
    pub program: &'a Path,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
}

/// Records and logs of one cluster.
pub struct Processes {
    records: PathBuf,
    logs: PathBuf,
}

// === impl Record ===

impl Record {
    pub fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }
}

// === impl Processes ===

impl Processes {
    pub fn new(records: PathBuf, logs: PathBuf) -> Self {
        Self { records, logs }
    }

    /// The live process of this name.
    pub fn find(&self, name: &str) -> Option<Record> {
        let record: Record = serde_json::from_slice(&fs::read(self.record_path(name)).ok()?).ok()?;
        record.alive().then_some(record)
    }

    /// Starts a daemon in its place unless one of this name lives. True when it was started.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn ensure(&self, daemon: &Daemon<'_>) -> Result<bool> {
        if self.find(&daemon.name).is_some() {
            return Ok(false);
        }
        self.start(daemon)?;
        Ok(true)
    }

    fn start(&self, daemon: &Daemon<'_>) -> Result<()> {
        let log = self.log(&daemon.name)?;
        let mut command = enter_command(&daemon.place, daemon.uid)?;
        command.arg("--").arg(daemon.program).args(&daemon.args).envs(daemon.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.process_group(0).spawn().with_context(|| format!("starting {}", daemon.name))?;
        let shown = std::iter::once(daemon.program.display().to_string())
            .chain(daemon.args.iter().map(|a| a.to_string_lossy().into_owned()))
            .collect();
        self.remember(&daemon.name, child.id(), shown)
    }

    /// Starts this xtask again as the holder of a node and waits until it says that all is mounted.
    ///
    /// # Errors
    /// When the holder ends before that; its log says why.
    pub fn ensure_holder(&self, name: &str, args: &[OsString]) -> Result<Record> {
        if let Some(record) = self.find(name) {
            return Ok(record);
        }
        let mut command = Command::new(own_program()?);
        command.arg("hold").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(self.log(name)?);
        let mut child = command.process_group(0).spawn()?;
        let mut ready = [0_u8; 6];
        let read = child.stdout.take().context("the holder's output is piped")?.read_exact(&mut ready);
        if read.is_err() || &ready != b"ready\n" {
            child.wait().ok();
            let log = fs::read_to_string(self.log_path(name)).unwrap_or_default();
            bail!("{name} did not come up:\n{}", log.trim());
        }
        self.remember(name, child.id(), vec!["hold".into()])?;
        self.find(name).context("the holder ended at once")
    }

    /// Sends a signal to the process of this name, if it lives.
    pub fn signal(&self, name: &str, signal: Signal) {
        if let Some(record) = self.find(name) {
            // It may end between the look and the signal.
            kill(Pid::from_raw(record.pid), signal).ok();
        }
    }

    /// The last lines of a process's log, for error messages.
    pub fn log_tail(&self, name: &str) -> String {
        let log = fs::read_to_string(self.log_path(name)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn remember(&self, name: &str, pid: u32, command: Vec<String>) -> Result<()> {
        let pid = i32::try_from(pid)?;
        let Some(start_time) = start_time(pid) else {
            bail!("{name} ended at once:\n{}", self.log_tail(name));
        };
        fs::create_dir_all(&self.records)?;
        fs::write(self.record_path(name), serde_json::to_vec_pretty(&Record { pid, start_time, command })?)?;
        Ok(())
    }

    fn log(&self, name: &str) -> Result<fs::File> {
        fs::create_dir_all(&self.logs)?;
        let path = self.log_path(name);
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.records.join(format!("{name}.json"))
    }
}

/// `xtask enter …`: joins a place, then becomes the program (same pid).
pub fn enter_command(place: &Place, uid: Option<u32>) -> Result<Command> {
    let mut command = Command::new(own_program()?);
    command.arg("enter").arg("--cgroup").arg(&place.cgroup);
    if let Some(netns) = &place.netns {
        command.arg("--netns").arg(netns);
    }
    if let Some(holder) = place.holder {
        command.arg("--holder").arg(holder.to_string());
    }
    if let Some(uid) = uid {
        command.arg("--uid").arg(uid.to_string());
    }
    Ok(command)
}

/// Start time of a process that exists and is not a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::start_time;

    #[test]
    fn a_live_process_has_a_start_time_and_a_missing_one_has_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(own).is_some());
        assert_eq!(start_time(i32::MAX), None);
    }
}
