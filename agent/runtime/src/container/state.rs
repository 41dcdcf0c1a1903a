//! A container's state out of its record, its marks and its task.
//!
//! In: three sources that may contradict each other while things happen. Out: one [`ContainerState`]. Pure.
//!
//! ```text
//! exit mark        → Exited     (it outlives everything)
//! task stopped     → Exited     (and the mark is made)
//! task running     → Running
//! task created     → Created
//! no task, started → Unknown    (containerd lost it)
//! no task          → Created    (never ran: start makes the task)
//! ```

use std::time::{SystemTime, UNIX_EPOCH};

use containerd_client::services::v1::Container as Record;
use containerd_client::types::v1::{Process, Status};

use super::marks::{Exit, Marks};
use super::record::Identity;
use crate::types::{Container, ContainerId, ContainerState};

/// The state, and the exit to remember when it was seen here first. `made` is when the record was made: what is said of a
/// process whose start was not kept because the agent was killed in that moment.
pub(crate) fn of(
    marks: &Marks,
    made: SystemTime,
    task: Option<&Process>,
    oom: impl Fn() -> bool,
) -> (ContainerState, Option<Exit>) {
    if let Some(exit) = &marks.exit {
        return (exited(exit, marks), None);
    }
    let Some(task) = task else {
        let state = if marks.started.is_some() { ContainerState::Unknown } else { ContainerState::Created };
        return (state, None);
    };
    match task.status() {
        Status::Created => (ContainerState::Created, None),
        Status::Stopped => {
            let exit = Exit::new(task.exit_status, time(task.exited_at), oom());
            (exited(&exit, marks), Some(exit))
        }
        // A process that is paused is there; one that containerd cannot tell about is taken for running.
        Status::Running | Status::Paused | Status::Pausing | Status::Unknown => {
            let started_at = marks.started.unwrap_or(made);
            (ContainerState::Running { pid: task.pid, started_at }, None)
        }
    }
}

fn exited(exit: &Exit, marks: &Marks) -> ContainerState {
    ContainerState::Exited {
        code: exit.code,
        // runc's shim reports a death by signal as 128 + signal, in the code.
        signal: None,
        started_at: marks.started,
        finished_at: exit.at(),
        oom_killed: exit.oom,
    }
}

pub(crate) fn container(record: Record, identity: Identity, state: ContainerState) -> Container {
    Container {
        id: ContainerId(record.id),
        key: identity.key,
        pod_namespace: identity.pod_namespace,
        pod_name: identity.pod_name,
        image_id: identity.image_id,
        image_name: record.image,
        created_at: time(record.created_at),
        state,
        labels: identity.labels,
    }
}

pub(crate) fn time(timestamp: Option<prost_types::Timestamp>) -> SystemTime {
    timestamp.and_then(|at| SystemTime::try_from(at).ok()).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(status: Status) -> Process {
        Process { pid: 7, status: status.into(), exit_status: 3, ..Default::default() }
    }

    #[test]
    fn every_source_has_its_say() {
        let fresh = Marks::default();
        let made = UNIX_EPOCH + std::time::Duration::from_secs(1);
        let started = Marks { started: Some(UNIX_EPOCH), exit: None };
        let done = Marks { started: Some(UNIX_EPOCH), exit: Some(Exit::new(9, UNIX_EPOCH, true)) };
        let state = |marks: &Marks, task: Option<Process>| of(marks, made, task.as_ref(), || false).0;
        let exited = |code, started_at, oom_killed| ContainerState::Exited {
            code,
            signal: None,
            started_at,
            finished_at: UNIX_EPOCH,
            oom_killed,
        };
        assert_eq!(state(&fresh, None), ContainerState::Created);
        assert_eq!(state(&fresh, Some(task(Status::Created))), ContainerState::Created);
        assert_eq!(state(&started, None), ContainerState::Unknown);
        let running = ContainerState::Running { pid: 7, started_at: UNIX_EPOCH };
        assert_eq!(state(&started, Some(task(Status::Running))), running);
        let unmarked = ContainerState::Running { pid: 7, started_at: made };
        assert_eq!(state(&fresh, Some(task(Status::Running))), unmarked);
        assert_eq!(state(&started, Some(task(Status::Stopped))), exited(3, Some(UNIX_EPOCH), false));
        for last in [None, Some(task(Status::Running)), Some(task(Status::Stopped))] {
            assert_eq!(state(&done, last), exited(9, Some(UNIX_EPOCH), true));
        }
    }

    #[test]
    fn an_exit_that_is_seen_first_is_to_be_remembered() {
        let stopped = task(Status::Stopped);
        let (_, exit) = of(&Marks::default(), UNIX_EPOCH, Some(&stopped), || true);
        assert!(exit.is_some_and(|exit| exit.oom && exit.code == 3));
        assert_eq!(of(&Marks::default(), UNIX_EPOCH, Some(&task(Status::Running)), || true).1, None);
    }
}
