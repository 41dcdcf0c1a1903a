//! `status.phase` from container statuses.
//!
//! Pure. In: statuses. Out: Pending, Running, Succeeded or Failed.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::containers::ContainerStatuses;
use crate::pod::{self, ContainerKind, RestartPolicy};

#[derive(Default)]
struct Count {
    waiting: usize,
    running: usize,
    stopped: usize,
    failed: usize,
}

pub(super) fn phase(pod: &Pod, statuses: &ContainerStatuses, ended: bool) -> &'static str {
    let (mut init_pending, mut init_failed) = (0, 0);
    let mut count = Count::default();
    let mut all_policies_never = true;
    let mut all_policies_allow_end = true;
    for spec in pod::containers(pod) {
        let status = statuses.of(&spec.container.name);
        let terminated = status.and_then(|s| s.state.as_ref()).and_then(|s| s.terminated.as_ref());
        match spec.kind {
            ContainerKind::Init => match (terminated, status) {
                (Some(t), _) if t.exit_code != 0 => {
                    if pod::restart_policy(pod, spec) == RestartPolicy::Never {
                        init_failed += 1;
                    } else {
                        init_pending += 1;
                    }
                }
                (Some(_), _) => {}
                (None, _) => init_pending += 1,
            },
            ContainerKind::Sidecar => {
                if terminated.is_none() && status.and_then(|s| s.started) != Some(true) {
                    init_pending += 1;
                }
            }
            ContainerKind::Ephemeral => {}
            ContainerKind::Main => {
                count.add(status);
                match pod::restart_policy(pod, spec) {
                    RestartPolicy::Always => {
                        all_policies_never = false;
                        all_policies_allow_end = false;
                    }
                    RestartPolicy::OnFailure => all_policies_never = false,
                    RestartPolicy::Never => {}
                }
            }
        }
    }
    let mains_began = count.running + count.stopped > 0;
    if ended {
        return if count.failed == 0 && count.stopped > 0 && init_failed == 0 {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    if init_failed > 0 {
        "Failed"
    } else if (init_pending > 0 && !mains_began) || count.waiting > 0 {
        "Pending"
    } else if count.running > 0 {
        "Running"
    } else if count.stopped == 0 {
        "Pending"
    } else if all_policies_allow_end && count.failed == 0 {
        "Succeeded"
    } else if all_policies_never {
        "Failed"
    } else {
        "Running"
    }
}

impl Count {
    fn add(&mut self, status: Option<&ContainerStatus>) {
        let Some(state) = status.and_then(|s| s.state.as_ref()) else {
            self.waiting += 1;
            return;
        };
        let before = status.and_then(|s| s.last_state.as_ref()).and_then(|s| s.terminated.as_ref());
        if state.running.is_some() {
            self.running += 1;
        } else if let Some(t) = &state.terminated {
            self.stopped += 1;
            self.failed += usize::from(t.exit_code != 0);
        } else if let Some(t) = before {
            // Waits between two runs.
            self.stopped += 1;
            self.failed += usize::from(t.exit_code != 0);
        } else {
            self.waiting += 1;
        }
    }
}
