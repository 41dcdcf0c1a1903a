//! How long a Job waits after failed pods before it starts the next.
//!
//! In: the pods that ended, the time. Out: what is left of the wait. Pure. The wait doubles with every failure since
//! the last success and is read from the pods themselves, so that a restart does not forget it.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::pod;

/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(600);

/// What is left to wait; `None`: nothing. `first` is the wait after one failure.
pub(crate) fn left<'a>(
    ended: impl IntoIterator<Item = &'a Arc<Pod>>,
    first: Duration,
    now: Timestamp,
) -> Option<SignedDuration> {
    let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
    // A pod that was told to leave did not fail of itself.
    for pod in ended.into_iter().filter(|pod| pod::is_terminal(pod)) {
        let list = if pod::phase(pod) == "Succeeded" { &mut succeeded } else { &mut failed };
        list.push(ended_at(pod));
    }
    let last_success = succeeded.into_iter().max().unwrap_or(Timestamp::MIN);
    failed.retain(|at| *at > last_success);
    let last = failed.iter().max()?;
    let doublings = u32::try_from(failed.len() - 1).unwrap_or(u32::MAX).min(16);
    let wait = first.saturating_mul(1 << doublings).min(LONGEST);
    let left = SignedDuration::try_from(wait).unwrap_or(SignedDuration::ZERO) - now.duration_since(*last);
    left.is_positive().then_some(left)
}

/// When the pod's last container ended; else when it was deleted, else when it was not ready any more.
pub(crate) fn ended_at(pod: &Pod) -> Timestamp {
    let status = pod.status.as_ref();
    let containers = status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ended = containers
        .filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
        .map(|time| time.0)
        .max();
    let deleted = || {
        let at = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        at.checked_sub(SignedDuration::from_secs(grace)).ok()
    };
    let unready = || pod::condition(pod, "Ready")?.last_transition_time.as_ref().map(|time| time.0);
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    ended.or_else(deleted).or_else(unready).or_else(created).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(phase: &str, ended: i64) -> Arc<Pod> {
        let ended = Timestamp::from_second(ended).unwrap();
        let pod = json!({"status": {"phase": phase, "containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 1, "finishedAt": ended}},
        }]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn wait_doubles_with_failures_since_the_last_success() {
        let now = Timestamp::from_second(1000).unwrap();
        let ten = Duration::from_secs(10);
        let wait = |pods: &[Arc<Pod>]| left(pods, ten, now).map(|left| left.as_secs());
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&[pod("Succeeded", 999)]), None);
        assert_eq!(wait(&[pod("Failed", 997)]), Some(7));
        assert_eq!(wait(&[pod("Failed", 980)]), None);
        assert_eq!(wait(&[pod("Failed", 980), pod("Failed", 998)]), Some(18));
        assert_eq!(wait(&[pod("Failed", 980), pod("Succeeded", 990), pod("Failed", 998)]), Some(8));
        let many: Vec<Arc<Pod>> = (0..40).map(|_| pod("Failed", 1000)).collect();
        assert_eq!(wait(&many), Some(600));
    }
}
