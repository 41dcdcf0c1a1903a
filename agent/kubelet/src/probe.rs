//! Probes: one task for each probe of a running container.
//!
//! In: running containers. Out: settled results, told only when they change. Checks: `exec`, `http`, `tcp`,
//! `grpc`.

mod grpc;
mod http;
mod schedule;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio_util::task::AbortOnDropHandle;
use xebec_runtime::types::{ContainerId, ContainerRuntime};

use crate::machine::observed::{Observed, ProbeKind, RunState};
use crate::pod;
use crate::recorder::{EventType, Recorder};

pub(crate) use http::{HttpCheck, get};
use schedule::{Settings, Tally};

/// A probe of one run of one container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeKey {
    pub container: String,
    pub attempt: u32,
    pub kind: ProbeKind,
}

/// A settled result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    pub key: ProbeKey,
    pub success: bool,
}

/// What a check found. `Unknown`: it could not be made, which says nothing about the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Success,
    Failure(String),
    Unknown(String),
}

/// Which probes are to run now: after the startup probe succeeded the others, before that it alone.
pub fn wanted(pod: &Pod, observed: &Observed) -> Vec<ProbeKey> {
    let mut out = Vec::new();
    for spec in pod::containers(pod) {
        let container = spec.container;
        let Some(seen) = observed.container(&container.name) else { continue };
        let Some(run) = seen.running().filter(|_| seen.starting.is_none()) else { continue };
        // While it stops it may still serve: readiness is told to the end, nothing else could restart it.
        let stopping = seen.stop.is_some();
        let key = |kind| ProbeKey { container: container.name.clone(), attempt: run.attempt, kind };
        if container.startup_probe.is_some() && seen.probes.startup != Some(true) {
            out.extend((!stopping).then(|| key(ProbeKind::Startup)));
            continue;
        }
        if container.liveness_probe.is_some() && !stopping {
            out.push(key(ProbeKind::Liveness));
        }
        if container.readiness_probe.is_some() {
            out.push(key(ProbeKind::Readiness));
        }
    }
    out
}

/// Runs the probes of one pod.
pub struct Prober<R> {
    runtime: R,
    recorder: Recorder,
    running: HashMap<ProbeKey, AbortOnDropHandle<()>>,
    reports: tokio::sync::mpsc::Sender<ProbeReport>,
}

impl<R: ContainerRuntime> Prober<R> {
    pub fn new(runtime: R, recorder: Recorder, reports: tokio::sync::mpsc::Sender<ProbeReport>) -> Self {
        Self { runtime, recorder, running: HashMap::new(), reports }
    }

    /// Starts what is wanted and not running, ends what is no longer wanted.
    pub fn reconcile(&mut self, pod: &Arc<Pod>, observed: &Observed, pod_ip: Option<IpAddr>) {
        let wanted = wanted(pod, observed);
        self.running.retain(|key, _| wanted.contains(key));
        for key in wanted {
            if self.running.contains_key(&key) {
                continue;
            }
            let Some(target) = self.target(pod, observed, &key, pod_ip) else { continue };
            let task = tokio::spawn(target.run(self.reports.clone()));
            self.running.insert(key, AbortOnDropHandle::new(task));
        }
    }

    fn target(
        &self,
        pod: &Arc<Pod>,
        observed: &Observed,
        key: &ProbeKey,
        pod_ip: Option<IpAddr>,
    ) -> Option<Target<R>> {
        let container = pod::container(pod, &key.container)?.container.clone();
        let probe = probe_of(&container, key.kind)?.clone();
        let seen = observed.container(&key.container)?;
        let settled = match key.kind {
            ProbeKind::Startup => seen.probes.startup,
            ProbeKind::Liveness => seen.probes.liveness,
            ProbeKind::Readiness => seen.probes.readiness,
        };
        let RunState::Running { started_at } = seen.running()?.state else { return None };
        Some(Target {
            runtime: self.runtime.clone(),
            recorder: self.recorder.clone(),
            pod: Arc::clone(pod),
            id: seen.running()?.id.clone(),
            key: key.clone(),
            container,
            probe,
            pod_ip,
            settled,
            started_at,
        })
    }
}

pub(crate) fn probe_of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

/// Everything one probe task needs.
struct Target<R> {
    runtime: R,
    recorder: Recorder,
    pod: Arc<Pod>,
    id: ContainerId,
    key: ProbeKey,
    container: Container,
    probe: Probe,
    pod_ip: Option<IpAddr>,
    /// Known from before an agent restart.
    settled: Option<bool>,
    started_at: jiff::Timestamp,
}

impl<R: ContainerRuntime> Target<R> {
    async fn run(self, reports: tokio::sync::mpsc::Sender<ProbeReport>) {
        let settings = Settings::of(&self.probe);
        let age = jiff::Timestamp::now().duration_since(self.started_at);
        let age = Duration::try_from(age).unwrap_or_default();
        tokio::time::sleep(settings.first_delay(age, self.settled.is_some())).await;
        let mut tally = Tally::new(self.settled);
        let mut ticks = tokio::time::interval(settings.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let finding = self.check(settings.timeout).await;
            self.tell(&finding);
            if let Some(success) = tally.count(&finding, &settings) {
                let report = ProbeReport { key: self.key.clone(), success };
                if reports.send(report).await.is_err() {
                    return;
                }
            }
        }
    }

    fn tell(&self, finding: &Finding) {
        let kind = match self.key.kind {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        };
        let message = match finding {
            Finding::Success => return,
            Finding::Failure(output) => format!("{kind} probe failed: {output}"),
            Finding::Unknown(reason) => format!("{kind} probe errored: {reason}"),
        };
        self.recorder.pod(&self.pod, Some(&self.container.name), EventType::Warning, "Unhealthy", message);
    }

    async fn check(&self, timeout: Duration) -> Finding {
        if let Some(exec) = &self.probe.exec {
            return self.exec(exec.command.as_deref().unwrap_or_default(), timeout).await;
        }
        if let Some(action) = &self.probe.http_get {
            return match HttpCheck::of(action, &self.container, self.pod_ip) {
                Ok(check) => get(&check, timeout).await,
                Err(reason) => Finding::Unknown(reason),
            };
        }
        if let Some(action) = &self.probe.tcp_socket {
            let Some(port) = port_of(&action.port, &self.container) else {
                return Finding::Unknown(format!("no port {:?}", action.port));
            };
            let host = action.host.clone().filter(|h| !h.is_empty());
            let Some(host) = host.or_else(|| self.pod_ip.map(|ip| ip.to_string())) else {
                return Finding::Unknown("the pod has no address".to_owned());
            };
            return tcp(&host, port, timeout).await;
        }
        if let Some(action) = &self.probe.grpc {
            let Some(port) = u16::try_from(action.port).ok().filter(|port| *port > 0) else {
                return Finding::Unknown(format!("no port {}", action.port));
            };
            let Some(ip) = self.pod_ip else {
                return Finding::Unknown("the pod has no address".to_owned());
            };
            return grpc::check(ip, port, action.service.as_deref().unwrap_or_default(), timeout).await;
        }
        Finding::Unknown("missing probe handler".to_owned())
    }

    async fn exec(&self, command: &[String], timeout: Duration) -> Finding {
        match self.runtime.exec(&self.id, command, timeout).await {
            Ok(output) if output.exit_code == 0 => Finding::Success,
            Ok(output) => Finding::Failure(String::from_utf8_lossy(&output.output).into_owned()),
            Err(xebec_runtime::error::RuntimeError::Timeout { .. }) => Finding::Failure(format!(
                "command timed out: {command:?} timed out after {}s",
                timeout.as_secs()
            )),
            Err(error) => Finding::Unknown(error.to_string()),
        }
    }
}

/// A number, or the name of one of the container's ports.
pub(crate) fn port_of(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref() == Some(name))
            .map(|p| p.container_port)
            .or_else(|| name.parse().ok())?,
    };
    u16::try_from(number).ok().filter(|n| *n > 0)
}

async fn tcp(host: &str, port: u16, timeout: Duration) -> Finding {
    let connect = tokio::net::TcpStream::connect((host, port));
    match tokio::time::timeout(timeout, connect).await {
        Ok(Ok(_)) => Finding::Success,
        Ok(Err(error)) => Finding::Failure(format!("dial tcp {}: connect: {error}", joined(host, port))),
        Err(_) => Finding::Failure(format!("dial tcp {}: i/o timeout", joined(host, port))),
    }
}

pub(crate) fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
