//! Lifecycle hooks: exec, HTTP, TCP, sleep.
//!
//! In: a handler and how long it may take. Out: whether it succeeded, in words.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use tokio::time::Instant;
use xebec_runtime::types::{ContainerId, ContainerRuntime};

use super::Worker;
use crate::machine::outcome::Outcome;
use crate::pod;
use crate::pod_network::PodNetworking;
use crate::probe::{Finding, HttpCheck, get};
use crate::recorder::EventType;

/// Upstream sets no limit to a postStart hook; here none holds a pod for ever.
pub(super) const POST_START_LIMIT: Duration = Duration::from_secs(3600);
/// An HTTP hook's answer.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn run<R: ContainerRuntime>(
    runtime: &R,
    container: &Container,
    id: &ContainerId,
    hook: &LifecycleHandler,
    pod_ip: Option<IpAddr>,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        return match runtime.exec(id, &command, limit).await {
            Ok(output) if output.exit_code == 0 => Ok(()),
            Ok(output) => Err(format!(
                "command '{}' exited with {}: {}",
                command.join(" "),
                output.exit_code,
                String::from_utf8_lossy(&output.output)
            )),
            Err(error) => Err(error.to_string()),
        };
    }
    if let Some(sleep) = &hook.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds).min(limit)).await;
        return Ok(());
    }
    if let Some(action) = &hook.http_get {
        let check = HttpCheck::of(action, container, pod_ip)?;
        return match get(&check, HTTP_TIMEOUT.min(limit)).await {
            Finding::Success => Ok(()),
            Finding::Failure(reason) | Finding::Unknown(reason) => Err(reason),
        };
    }
    if hook.tcp_socket.is_some() {
        return Err("tcpSocket is not supported for lifecycle hooks".to_owned());
    }
    Err("missing hook handler".to_owned())
}

impl<R: ContainerRuntime, N: PodNetworking> Worker<R, N> {
    pub(super) fn pre_stop(&mut self, container: String, attempt: u32, deadline: Instant) {
        let spec = pod::container(&self.pod, &container).map(|s| s.container.clone());
        let hook = spec.as_ref().and_then(|c| c.lifecycle.as_ref()?.pre_stop.clone());
        let run = self.observed.container(&container).and_then(|c| c.runs.get(&attempt));
        let (Some(spec), Some(hook), Some(run)) = (spec, hook, run) else { return };
        let (node, pod, id, pod_ip) =
            (Arc::clone(&self.node), Arc::clone(&self.pod), run.id.clone(), self.pod_ip());
        self.tasks.spawn(async move {
            let limit = deadline.saturating_duration_since(Instant::now());
            let hook = self::run(&node.runtime, &spec, &id, &hook, pod_ip, limit);
            let result = tokio::time::timeout(limit, hook)
                .await
                .unwrap_or_else(|_| Err("grace period has elapsed".to_owned()));
            if let Err(message) = result {
                let message = format!("PreStopHook failed: {message}");
                node.recorder.pod(&pod, Some(&container), EventType::Warning, "FailedPreStopHook", message);
            }
            Outcome::PreStopEnded { container, attempt }
        });
    }
}
