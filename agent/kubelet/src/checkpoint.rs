//! What a pod worker must not forget over an agent restart: runs and how they ended, backoff, probe results, stops.
//!
//! In: [`Observed`]. Out: `pods/<uid>/state.json`, and an `Observed` made from it. Times are written on the wall clock
//! and read back as ages, so that a reboot or a clock that was set shortens a wait at most.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use xebec_runtime::types::ContainerId;

use crate::machine::StopReason;
use crate::machine::backoff::Backoff;
use crate::machine::observed::{
    ContainerObserved, Exit, Observed, ProbeResults, Run, RunState, Stop, StopStep,
};
use crate::status::Now;

const FILE: &str = "state.json";

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    boot_id: String,
    containers: BTreeMap<String, SavedContainer>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct SavedContainer {
    runs: Vec<SavedRun>,
    backoff: Option<SavedBackoff>,
    startup: Option<bool>,
    liveness: Option<bool>,
    readiness: Option<bool>,
    stop: Option<SavedStop>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SavedRun {
    id: String,
    attempt: u32,
    image_id: String,
    image_name: String,
    spec_hash: String,
    started_at: Option<Timestamp>,
    exit: Option<SavedExit>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SavedExit {
    code: i32,
    signal: Option<i32>,
    finished_at: Option<Timestamp>,
    reason: String,
    message: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SavedBackoff {
    delay_ms: u64,
    updated: Timestamp,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SavedStop {
    reason: String,
    deadline: Timestamp,
    /// The hook ran or was begun: it is not run again.
    hook_done: bool,
}

/// Runs that the file knows and which the runtime must still confirm.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) containers: BTreeMap<String, ContainerObserved>,
    /// The machine was booted since: what ran then is gone.
    pub(crate) rebooted: bool,
}

/// Identity of this boot.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

pub(crate) fn path(pod_dir: &Path) -> PathBuf {
    pod_dir.join(FILE)
}

impl Checkpoint {
    pub(crate) fn of(observed: &Observed, boot_id: &str, now: Now) -> Self {
        let containers = observed
            .containers
            .iter()
            .map(|(name, seen)| (name.clone(), SavedContainer::of(seen, now)))
            .collect();
        Self { boot_id: boot_id.to_owned(), containers }
    }

    /// Replaces the file as a whole. Not synced: after a power cut the API's status serves.
    pub(crate) fn save(&self, pod_dir: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec(self)?;
        let new = pod_dir.join(format!("{FILE}.new"));
        std::fs::write(&new, text)?;
        std::fs::rename(&new, path(pod_dir))
    }

    /// `None` when there is none or it cannot be read.
    pub(crate) fn load(pod_dir: &Path) -> Option<Self> {
        let bytes = std::fs::read(path(pod_dir)).ok()?;
        match serde_json::from_slice(&bytes) {
            Ok(checkpoint) => Some(checkpoint),
            Err(error) => {
                tracing::warn!(dir = %pod_dir.display(), %error, "unreadable pod state is ignored");
                None
            }
        }
    }

    pub(crate) fn restore(self, boot_id: &str, now: Now) -> Restored {
        let rebooted = self.boot_id != boot_id;
        let containers =
            self.containers.into_iter().map(|(name, saved)| (name, saved.restore(rebooted, now))).collect();
        Restored { containers, rebooted }
    }
}

impl SavedContainer {
    fn of(seen: &ContainerObserved, now: Now) -> Self {
        let to_wall = |at: Instant| {
            let ahead = at.saturating_duration_since(now.mono);
            let behind = now.mono.saturating_duration_since(at);
            let shift = SignedDuration::try_from(ahead).unwrap_or_default()
                - SignedDuration::try_from(behind).unwrap_or_default();
            // Whole seconds: the same state must give the same file again.
            now.wall.saturating_add(shift).unwrap_or(now.wall).round(jiff::Unit::Second).unwrap_or(now.wall)
        };
        Self {
            runs: seen.runs.values().map(SavedRun::of).collect(),
            backoff: seen.backoff.delay().zip(seen.backoff.updated()).map(|(delay, updated)| SavedBackoff {
                delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                updated: to_wall(updated),
            }),
            startup: seen.probes.startup,
            liveness: seen.probes.liveness,
            readiness: seen.probes.readiness,
            stop: seen.stop.as_ref().map(|stop| SavedStop {
                reason: format!("{:?}", stop.reason),
                deadline: to_wall(stop.deadline),
                hook_done: stop.step != StopStep::Asked,
            }),
        }
    }

    fn restore(self, rebooted: bool, now: Now) -> ContainerObserved {
        let to_mono = |at: Timestamp| {
            let age = Duration::try_from(now.wall.duration_since(at)).unwrap_or_default();
            let ahead = Duration::try_from(at.duration_since(now.wall)).unwrap_or_default();
            now.mono.checked_sub(age).unwrap_or(now.mono) + ahead.min(Duration::from_secs(3600))
        };
        let mut seen = ContainerObserved::default();
        if let Some(backoff) = &self.backoff {
            seen.backoff =
                Backoff::restore(Duration::from_millis(backoff.delay_ms), to_mono(backoff.updated));
        }
        if rebooted {
            seen.known_restarts = self.runs.iter().map(|r| r.attempt + 1).max().unwrap_or(0);
            return seen;
        }
        for run in self.runs {
            seen.runs.insert(run.attempt, run.restore(to_mono, now));
        }
        seen.probes =
            ProbeResults { startup: self.startup, liveness: self.liveness, readiness: self.readiness };
        seen.stop = self.stop.map(|stop| Stop {
            reason: match stop.reason.as_str() {
                "LivenessFailed" => StopReason::LivenessFailed,
                "StartupFailed" => StopReason::StartupFailed,
                "SpecChanged" => StopReason::SpecChanged,
                "PostStartFailed" => StopReason::PostStartFailed,
                _ => StopReason::PodEnds,
            },
            deadline: to_mono(stop.deadline),
            step: if stop.hook_done { StopStep::ReadyToSignal } else { StopStep::Asked },
        });
        seen
    }
}

impl SavedRun {
    fn of(run: &Run) -> Self {
        let (started_at, exit) = match &run.state {
            RunState::Running { started_at } => (Some(*started_at), None),
            RunState::Exited(exit) => (
                exit.started_at,
                Some(SavedExit {
                    code: exit.code,
                    signal: exit.signal,
                    finished_at: exit.finished_at,
                    reason: exit.reason.clone(),
                    message: exit.message.clone(),
                }),
            ),
        };
        Self {
            id: run.id.0.clone(),
            attempt: run.attempt,
            image_id: run.image_id.clone(),
            image_name: run.image_name.clone(),
            spec_hash: run.spec_hash.clone(),
            started_at,
            exit,
        }
    }

    fn restore(self, to_mono: impl Fn(Timestamp) -> Instant, now: Now) -> Run {
        let state = match (self.exit, self.started_at) {
            (Some(exit), started_at) => RunState::Exited(Exit {
                code: exit.code,
                signal: exit.signal,
                started_at,
                finished_at: exit.finished_at,
                at: exit.finished_at.map_or(now.mono, to_mono),
                reason: exit.reason,
                message: exit.message,
            }),
            (None, started_at) => RunState::Running { started_at: started_at.unwrap_or(now.wall) },
        };
        Run {
            id: ContainerId(self.id),
            attempt: self.attempt,
            image_id: self.image_id,
            image_name: self.image_name,
            spec_hash: self.spec_hash,
            state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(now: Now) -> Observed {
        let mut observed = Observed::new(now.wall, now.mono);
        let seen = observed.container_mut("c");
        let run = |attempt, state| Run {
            id: ContainerId(format!("id{attempt}")),
            attempt,
            image_id: "i".into(),
            image_name: "n".into(),
            spec_hash: "h".into(),
            state,
        };
        seen.absorb(run(
            3,
            RunState::Exited(Exit {
                code: 1,
                signal: None,
                started_at: Some(now.wall),
                finished_at: Some(now.wall),
                at: now.mono,
                reason: "Error".into(),
                message: "last words".into(),
            }),
        ));
        seen.absorb(run(4, RunState::Running { started_at: now.wall }));
        seen.backoff = Backoff::restore(Duration::from_secs(40), now.mono);
        seen.probes.readiness = Some(true);
        observed
    }

    fn whole_second() -> Now {
        Now { wall: Timestamp::from_second(1_700_000_000).unwrap(), mono: Instant::now() }
    }

    #[test]
    fn a_restart_of_the_agent_forgets_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let now = whole_second();
        let before = observed(now);
        Checkpoint::of(&before, "boot", now).save(tmp.path()).unwrap();
        let after = Checkpoint::load(tmp.path()).unwrap().restore("boot", now);
        assert!(!after.rebooted);
        assert_eq!(after.containers, before.containers);
    }

    #[test]
    fn a_reboot_keeps_the_count_of_restarts_only() {
        let now = whole_second();
        let after = Checkpoint::of(&observed(now), "boot", now).restore("other", now);
        let seen = &after.containers["c"];
        assert!(after.rebooted && seen.runs.is_empty());
        assert_eq!(seen.next_attempt(), 5);
        assert_eq!(seen.backoff.delay(), Some(Duration::from_secs(40)));
    }

    #[test]
    fn garbage_in_the_file_is_no_state() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(path(tmp.path()), "{\"containers\": 3}").unwrap();
        assert!(Checkpoint::load(tmp.path()).is_none());
    }
}
