//! What containerd does not keep about a container: when it was started, how it ended.
//!
//! In: starts and exits as they are seen. Out: labels on the record, and a copy in memory for what has not been written
//! yet. An exit that was written outlives task, shim and containerd.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_client::services::v1::{Container as Record, UpdateContainerRequest};
use prost_types::FieldMask;
use serde::{Deserialize, Serialize};

use super::state::time;
use crate::error::RuntimeError;
use crate::rpc::{Client, Optional, rpc};

const STARTED: &str = "xebec.dev/started";
const EXIT: &str = "xebec.dev/exit";
/// Upstream's exit code of a container that could not be started.
pub(crate) const START_FAILED: i32 = 128;
/// A reason in a label, so that label and name stay below containerd's limit.
const LONGEST_REASON: usize = 2048;

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    /// Nanoseconds since 1970.
    pub(super) at: u64,
    #[serde(default)]
    pub(crate) oom: bool,
    /// Why it never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refusal: Option<String>,
}

/// The marks of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) started: Option<SystemTime>,
    pub(crate) exit: Option<Exit>,
}

/// Marks that may not be on their records yet. An entry goes with its container.
#[derive(Clone, Default)]
pub(crate) struct MarkBook(Arc<Mutex<HashMap<String, Marks>>>);

// === impl Exit ===

impl Exit {
    pub(crate) fn new(code: u32, at: SystemTime, oom: bool) -> Self {
        Self { code: i32::try_from(code).unwrap_or(i32::MAX), at: nanos(at), oom, refusal: None }
    }

    pub(crate) fn refused(reason: &str) -> Self {
        let mut end = reason.len().min(LONGEST_REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let refusal = Some(reason[..end].to_owned());
        Self { code: START_FAILED, at: nanos(SystemTime::now()), oom: false, refusal }
    }

    pub(crate) fn at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.at)
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    u64::try_from(since).unwrap_or(u64::MAX)
}

// === impl Marks ===

impl Marks {
    /// The marks on a record.
    pub(crate) fn of(record: &Record) -> Self {
        let started = record.labels.get(STARTED).and_then(|nanos| nanos.parse().ok());
        Self {
            started: started.map(|nanos| UNIX_EPOCH + Duration::from_nanos(nanos)),
            exit: record.labels.get(EXIT).and_then(|exit| serde_json::from_str(exit).ok()),
        }
    }
}

// === impl MarkBook ===

impl MarkBook {
    /// The marks of a record, with those that were not written yet. The first exit that was seen counts, but not one from
    /// before the record was made: that of a container which had the same id, told late.
    pub(crate) fn of(&self, record: &Record) -> Marks {
        let written = Marks::of(record);
        let fresh = self.lock().get(&record.id).cloned().unwrap_or_default();
        let made = time(record.created_at);
        let own = |exit: &Exit| exit.at() >= made;
        Marks {
            started: fresh.started.or(written.started),
            exit: written.exit.filter(own).or(fresh.exit.filter(own)),
        }
    }

    pub(crate) fn note_start(&self, id: &str, at: SystemTime) {
        self.lock().entry(id.to_owned()).or_default().started = Some(at);
    }

    /// False when an exit of this record was noted before.
    pub(crate) fn note_exit(&self, record: &Record, exit: &Exit) -> bool {
        let made = time(record.created_at);
        if exit.at() < made {
            return false;
        }
        let mut book = self.lock();
        let noted = &mut book.entry(record.id.clone()).or_default().exit;
        let first = noted.as_ref().is_none_or(|earlier| earlier.at() < made);
        if first {
            *noted = Some(exit.clone());
        }
        first
    }

    /// Notes the end of a container that will not start.
    pub(crate) fn note_refusal(&self, id: &str, exit: &Exit) {
        self.lock().entry(id.to_owned()).or_default().exit = Some(exit.clone());
    }

    pub(crate) fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Marks>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Client ===

impl Client {
    pub(crate) async fn mark_started(&self, id: &str, at: SystemTime) -> Result<(), RuntimeError> {
        self.mark(id, STARTED, nanos(at).to_string()).await
    }

    pub(crate) async fn mark_exit(&self, id: &str, exit: &Exit) -> Result<(), RuntimeError> {
        let text = serde_json::to_string(exit)
            .map_err(|e| RuntimeError::Config(format!("an exit cannot be written: {e}")))?;
        self.mark(id, EXIT, text).await
    }

    /// Sets a label; no error when the container is gone.
    pub(super) async fn mark(&self, id: &str, label: &str, value: String) -> Result<(), RuntimeError> {
        let container =
            Record { id: id.to_owned(), labels: [(label.to_owned(), value)].into(), ..Default::default() };
        let mask = FieldMask { paths: vec![format!("labels.{label}")] };
        let request = UpdateContainerRequest { container: Some(container), update_mask: Some(mask) };
        rpc!(self, self.timeouts.metadata, containers.update(request)).await.optional()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_survive_a_record() {
        let exit = Exit::new(137, UNIX_EPOCH + Duration::from_millis(1_700_000_000_123), true);
        let mut record = Record { id: "a".into(), ..Default::default() };
        record.labels.insert(EXIT.into(), serde_json::to_string(&exit).unwrap());
        record.labels.insert(STARTED.into(), "5".into());
        let marks = Marks::of(&record);
        assert_eq!(marks.exit, Some(exit));
        assert_eq!(marks.started, Some(UNIX_EPOCH + Duration::from_nanos(5)));
    }

    #[test]
    fn the_first_exit_counts() {
        let book = MarkBook::default();
        let record = Record { id: "a".into(), ..Default::default() };
        assert_eq!(book.of(&record), Marks::default());
        assert!(book.note_exit(&record, &Exit::new(0, UNIX_EPOCH, false)));
        assert!(!book.note_exit(&record, &Exit::new(137, UNIX_EPOCH, false)));
        assert_eq!(book.of(&record).exit.unwrap().code, 0);
        book.forget("a");
        assert_eq!(book.of(&record), Marks::default());
    }

    #[test]
    fn an_exit_from_before_the_record_is_not_its_own() {
        let book = MarkBook::default();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let made = |seconds| {
            let created_at = Some(prost_types::Timestamp::from(at(seconds)));
            Record { id: "a".into(), created_at, ..Default::default() }
        };
        assert!(book.note_exit(&made(1), &Exit::new(137, at(5), false)));
        let second = made(10);
        assert_eq!(book.of(&second).exit, None, "left from the first container of this id");
        assert!(!book.note_exit(&second, &Exit::new(137, at(6), false)), "told late");
        assert_eq!(book.of(&second).exit, None);
        assert!(book.note_exit(&second, &Exit::new(3, at(11), false)));
        assert_eq!(book.of(&second).exit.unwrap().code, 3);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let exit = Exit::refused(&"é".repeat(3000));
        assert_eq!(exit.refusal.unwrap().len(), LONGEST_REASON);
    }
}
