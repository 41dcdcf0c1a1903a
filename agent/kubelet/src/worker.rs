//! One task for each pod: asks the machine, does what it says, tells the status.
//!
//! In: the pod and news of its containers by [`Mailbox`]. Out: calls to runtime, network, volumes; statuses and Events.
//! Never two tasks for one uid; within the task actions run side by side, the machine decides which may.

mod adopt;
mod hooks;
mod mailbox;
mod release;
mod start;

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, Secret};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use xebec_network::types::PodRequest;
use xebec_runtime::types::ContainerRuntime;

use crate::admission::Rejection;
use crate::checkpoint::Checkpoint;
use crate::hosts;
use crate::machine::observed::{Observed, ProbeKind};
use crate::machine::outcome::{Outcome, Trouble};
use crate::machine::stop::DRAIN_LIMIT;
use crate::machine::{Action, Stage, StopReason, TerminationReason, plan};
use crate::node::Node;
use crate::objects::PodObjects;
use crate::pod::{self, PodRef};
use crate::pod_network::PodNetworking;
use crate::probe::{ProbeReport, Prober};
use crate::recorder::EventType;
use crate::runtime_class;
use crate::status::{self, Now};
use crate::volume::VolumeInput;

pub use mailbox::Mailbox;
pub(crate) use release::release;

/// Rounds of planning in a row before something is wrong with the machine.
const MAX_ROUNDS: usize = 64;
const SIGKILL: i32 = 9;

/// How a worker ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The pod is gone, and everything it had.
    Forgotten,
    /// A task of it panicked: a new worker adopts what there is.
    Broken,
}

/// The task of one pod.
pub(crate) struct Worker<R: ContainerRuntime, N: PodNetworking> {
    node: Arc<Node<R, N>>,
    pod: Arc<Pod>,
    observed: Observed,
    mailbox: Arc<Mailbox>,
    tasks: JoinSet<Outcome>,
    pulls: HashMap<String, AbortHandle>,
    prober: Prober<R>,
    reports: mpsc::Receiver<ProbeReport>,
    objects: PodObjects,
    objects_changed: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Brings volumes up to date while the pod runs; tells when to come again.
    refresh: Option<AbortOnDropHandle<Option<Timestamp>>>,
    refresh_again: bool,
    refresh_at: Option<Instant>,
    saved: Option<Checkpoint>,
    status: PodStatus,
    told_backoff: HashMap<String, String>,
}

impl<R: ContainerRuntime, N: PodNetworking> Worker<R, N> {
    /// Takes over whatever exists of the pod already.
    pub(crate) async fn adopt(
        node: Arc<Node<R, N>>,
        pod: Arc<Pod>,
        mailbox: Arc<Mailbox>,
        rejection: Option<Rejection>,
    ) -> Self {
        let mut observed = adopt::observe(&node, &pod).await;
        if let Some(rejection) = rejection {
            node.recorder.pod(&pod, None, EventType::Warning, &rejection.reason, rejection.message.clone());
            observed.stage = Stage::Terminating(TerminationReason::Rejected);
            observed.rejection = Some(rejection);
        }
        let (sender, reports) = mpsc::channel(16);
        let objects = node.objects.subscribe(&pod);
        let objects_changed = Box::pin(objects.changed());
        Self {
            prober: Prober::new(node.runtime.clone(), node.recorder.clone(), sender),
            status: pod.status.clone().unwrap_or_default(),
            node,
            pod,
            observed,
            mailbox,
            tasks: JoinSet::new(),
            pulls: HashMap::new(),
            reports,
            objects,
            objects_changed,
            refresh: None,
            refresh_again: false,
            refresh_at: None,
            saved: None,
            told_backoff: HashMap::new(),
        }
    }

    pub(crate) async fn run(mut self) -> Ended {
        loop {
            self.read_mail().await;
            let wake = self.advance();
            if self.observed.forget.done().is_some() {
                self.node.status.forget(&pod::uid(&self.pod));
                return Ended::Forgotten;
            }
            self.save();
            self.publish();
            let pod_ip = self.pod_ip();
            self.prober.reconcile(&self.pod, &self.observed, pod_ip);
            self.start_refresh();
            let wake = [wake, self.refresh_at].into_iter().flatten().min();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.mailbox.wait() => {}
                Some(result) = self.tasks.join_next() => match result {
                    Ok(outcome) => self.finish(outcome),
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => {
                        tracing::error!(pod = %PodRef::of(&self.pod), %error, "task of a pod panicked");
                        return Ended::Broken;
                    }
                },
                Some(report) = self.reports.recv() => self.absorb_probe(&report),
                () = &mut self.objects_changed => {
                    self.objects_changed = Box::pin(self.objects.changed());
                    self.observed.objects_changed(Instant::now());
                    self.refresh_again = true;
                }
                Some(again) = joined(&mut self.refresh) => {
                    self.refresh = None;
                    self.refresh_at = again.map(to_instant);
                }
                () = sleep => {}
            }
        }
    }

    /// Plans and begins until there is nothing more to begin; returns when to look again.
    fn advance(&mut self) -> Option<Instant> {
        for _ in 0..MAX_ROUNDS {
            let now = Instant::now();
            let mut wake = None;
            let mut begun = false;
            for action in plan(&self.pod, &self.observed, now) {
                if let Action::WakeAt(at) = action {
                    wake = Some(at);
                    continue;
                }
                tracing::debug!(pod = %PodRef::of(&self.pod), ?action, "begun");
                self.observed.begin(&action, now);
                self.begin(action);
                begun = true;
            }
            if !begun {
                return wake;
            }
        }
        tracing::error!(pod = %PodRef::of(&self.pod), "planning does not come to rest");
        Some(Instant::now() + Duration::from_secs(1))
    }

    fn begin(&mut self, action: Action) {
        match action {
            Action::MountVolumes => self.mount_volumes(),
            Action::AttachNetwork => self.attach_network(),
            Action::EnsureImage { container } => self.ensure_image(container),
            Action::AbortPull { container } => {
                if let Some(pull) = self.pulls.remove(&container) {
                    pull.abort();
                }
            }
            Action::Start { container, attempt } => self.start(container, attempt),
            Action::Stop { container, reason, .. } => self.tell_stop(&container, &reason),
            Action::Drain => self.drain(),
            Action::PreStop { container, attempt, deadline } => self.pre_stop(container, attempt, deadline),
            Action::Signal { container, attempt, kill } => self.signal(container, attempt, kill),
            Action::Remove { container, attempt } => self.remove(container, attempt),
            Action::Release => self.release(),
            Action::DeleteFromApi => self.delete_from_api(),
            Action::Forget => self.forget(),
            Action::Terminate(_) | Action::Terminated | Action::HurryStop { .. } | Action::WakeAt(_) => {}
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        match &outcome {
            Outcome::Volumes(Err(trouble)) => {
                let event = (EventType::Warning, "FailedMount", trouble.message.clone());
                self.node.recorder.pod(&self.pod, None, event.0, event.1, event.2);
            }
            Outcome::Network(Err(trouble)) => {
                let message = format!("Failed to create pod sandbox: {}", trouble.message);
                self.node.recorder.pod(
                    &self.pod,
                    None,
                    EventType::Warning,
                    "FailedCreatePodSandBox",
                    message,
                );
            }
            Outcome::Image { container, .. } => {
                self.pulls.remove(container);
            }
            _ => {}
        }
        self.observed.finish(outcome, Instant::now());
    }

    fn pod_ips(&self) -> Vec<IpAddr> {
        self.observed.network.done().map(|n| n.addresses.clone()).unwrap_or_default()
    }

    fn pod_ip(&self) -> Option<IpAddr> {
        self.pod_ips().first().copied()
    }

    fn mount_volumes(&mut self) {
        let (node, pod, objects) = (Arc::clone(&self.node), Arc::clone(&self.pod), self.objects.clone());
        self.tasks.spawn(async move {
            let made = async {
                node.cgroups
                    .make_pod(&pod)
                    .map_err(|e| Trouble::new("FailedCreatePodContainer", e.to_string()))?;
                sync_volumes(&node, &pod, &objects, &[]).await
            };
            Outcome::Volumes(made.await.map(drop))
        });
        // Tokens that were given now grow old; what needs the pod's addresses is written once they are known.
        self.refresh_again = true;
    }

    /// Volumes are brought up to date by one task at a time, while the pod lives.
    fn start_refresh(&mut self) {
        let due = self.refresh_again || self.refresh_at.is_some_and(|at| at <= Instant::now());
        let lives = self.observed.stage == Stage::Syncing;
        if !due || !lives || self.refresh.is_some() || self.observed.volumes.done().is_none() {
            return;
        }
        self.refresh_again = false;
        self.refresh_at = None;
        let (node, pod, objects) = (Arc::clone(&self.node), Arc::clone(&self.pod), self.objects.clone());
        let pod_ips = self.pod_ips();
        self.refresh = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            match sync_volumes(&node, &pod, &objects, &pod_ips).await {
                Ok(refresh_at) => refresh_at,
                Err(trouble) => {
                    // A deleted ConfigMap leaves its last content in place.
                    tracing::debug!(pod = %PodRef::of(&pod), reason = trouble.message, "volumes not refreshed");
                    Timestamp::now().checked_add(jiff::SignedDuration::from_secs(60)).ok()
                }
            }
        })));
    }

    fn attach_network(&mut self) {
        let (node, pod) = (Arc::clone(&self.node), Arc::clone(&self.pod));
        self.tasks.spawn(async move { Outcome::Network(attach(&node, &pod).await) });
    }

    fn drain(&mut self) {
        let (node, uid, addresses) = (Arc::clone(&self.node), pod::uid(&self.pod), self.pod_ips());
        self.tasks.spawn(async move {
            let drained = node.network.drained(&uid.0, &addresses);
            if tokio::time::timeout(DRAIN_LIMIT, drained).await.is_err() {
                tracing::debug!(pod = %uid, "Services may still send to a pod that is about to stop");
            }
            Outcome::Drained
        });
    }

    fn ensure_image(&mut self, container: String) {
        let Some(spec) = pod::find(&self.pod, &container) else { return };
        let (node, pod, objects) = (Arc::clone(&self.node), Arc::clone(&self.pod), self.objects.clone());
        let name = container.clone();
        let pull = self.tasks.spawn(async move {
            let snapshot = objects.snapshot().await;
            let names = pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten());
            // A pull secret that is missing is not needed until the registry says so.
            let secrets: Vec<Secret> =
                names.filter_map(|s| snapshot.secret(&s.name, true).ok().flatten().cloned()).collect();
            let result = node.images.ensure(&pod, &spec, &secrets, &node.recorder).await;
            Outcome::Image { container, result }
        });
        self.pulls.insert(name, pull);
    }

    fn tell_stop(&self, container: &str, reason: &StopReason) {
        let message = match reason {
            StopReason::PodEnds => format!("Stopping container {container}"),
            StopReason::LivenessFailed => {
                format!("Container {container} failed liveness probe, will be restarted")
            }
            StopReason::StartupFailed => {
                format!("Container {container} failed startup probe, will be restarted")
            }
            StopReason::SpecChanged => {
                format!("Container {container} definition changed, will be restarted")
            }
            StopReason::PostStartFailed => "FailedPostStartHook".to_owned(),
        };
        self.node.recorder.pod(&self.pod, Some(container), EventType::Normal, "Killing", message);
    }

    fn signal(&mut self, container: String, attempt: u32, kill: bool) {
        let Some(run) = self.observed.container(&container).and_then(|c| c.runs.get(&attempt)) else {
            return;
        };
        let (node, id) = (Arc::clone(&self.node), run.id.clone());
        let stop_signal = pod::container(&self.pod, &container)
            .and_then(|s| s.container.lifecycle.as_ref()?.stop_signal.clone());
        self.tasks.spawn(async move {
            let signal = if kill { SIGKILL } else { node.stop_signal(&id, stop_signal.as_deref()).await };
            let result = node.runtime.signal(&id, signal).await;
            if let Err(error) = &result {
                tracing::warn!(container, %error, "signal not sent");
            }
            Outcome::Signalled { container, attempt, sent: result.is_ok() }
        });
    }

    fn absorb_probe(&mut self, report: &ProbeReport) {
        let seen = self.observed.container_mut(&report.key.container);
        if seen.running().is_none_or(|run| run.attempt != report.key.attempt) {
            return;
        }
        let slot = match report.key.kind {
            ProbeKind::Startup => &mut seen.probes.startup,
            ProbeKind::Liveness => &mut seen.probes.liveness,
            ProbeKind::Readiness => &mut seen.probes.readiness,
        };
        *slot = Some(report.success);
    }

    /// Writes the checkpoint when it would be another one.
    fn save(&mut self) {
        let dir = self.node.volumes.dirs().pod(&pod::uid(&self.pod));
        if !dir.is_dir() || self.observed.forget.is_doing() {
            return;
        }
        let checkpoint = Checkpoint::of(&self.observed, &self.node.boot_id, Now::read());
        if self.saved.as_ref() == Some(&checkpoint) {
            return;
        }
        match checkpoint.save(&dir) {
            Ok(()) => self.saved = Some(checkpoint),
            Err(error) => tracing::warn!(dir = %dir.display(), %error, "pod state not saved"),
        }
    }

    /// Tells the status manager when the status is another one.
    fn publish(&mut self) {
        if self.observed.gone {
            return;
        }
        let mut previous = self.status.clone();
        status::take_foreign(&mut previous, self.pod.status.as_ref());
        let status =
            status::generate(&self.pod, &self.observed, &previous, &self.node.status_context, Now::read());
        if status == self.status {
            return;
        }
        self.tell_backoff(&status);
        self.status = status.clone();
        self.node.status.submit(&self.pod, status);
        self.node.known.set_status(&self.pod, &self.status);
    }

    /// An event when a container begins to wait for its backoff.
    fn tell_backoff(&mut self, status: &PodStatus) {
        let lists = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        for container in lists.into_iter().flatten().flatten() {
            let waiting = container.state.as_ref().and_then(|s| s.waiting.as_ref());
            let reason = waiting.and_then(|w| w.reason.as_deref()).unwrap_or_default();
            let last = self.told_backoff.insert(container.name.clone(), reason.to_owned());
            if last.as_deref() == Some(reason) {
                continue;
            }
            let message = match reason {
                "CrashLoopBackOff" => format!(
                    "Back-off restarting failed container {} in pod {}",
                    container.name,
                    PodRef::of(&self.pod)
                ),
                "ImagePullBackOff" => {
                    let spec = pod::find(&self.pod, &container.name);
                    let image = spec.and_then(|c| c.image).unwrap_or_default();
                    format!("Back-off pulling image \"{image}\"")
                }
                _ => continue,
            };
            let type_ = if reason == "CrashLoopBackOff" { EventType::Warning } else { EventType::Normal };
            self.node.recorder.pod(&self.pod, Some(&container.name), type_, "BackOff", message);
        }
    }
}

async fn sync_volumes<R: ContainerRuntime, N: PodNetworking>(
    node: &Node<R, N>,
    pod: &Pod,
    objects: &PodObjects,
    pod_ips: &[IpAddr],
) -> Result<Option<Timestamp>, Trouble> {
    let snapshot = objects.snapshot().await;
    let host_ips = &node.config.node_addresses;
    let input = VolumeInput { pod, objects: &snapshot, host_ips, pod_ips };
    node.volumes.sync(&input).await.map_err(|error| Trouble {
        reason: "FailedMount",
        heals_by_change: error.heals_by_change(),
        message: error.to_string(),
    })
}

async fn attach<R: ContainerRuntime, N: PodNetworking>(
    node: &Node<R, N>,
    pod: &Pod,
) -> Result<xebec_network::types::PodNetwork, Trouble> {
    let trouble = |message: String| Trouble::new("FailedCreatePodSandBox", message);
    let name = hosts::host_name(pod, &node.config.cluster_dns.domain).map_err(trouble)?;
    let spec = pod.spec.as_ref();
    let class = spec.and_then(|s| s.runtime_class_name.as_deref());
    runtime_class::check(&node.client, class).await.map_err(trouble)?;
    let request = PodRequest {
        uid: pod::uid(pod).0,
        namespace: pod::namespace(pod).to_owned(),
        name: pod::name(pod).to_owned(),
        hostname: name.kernel.clone(),
        host_network: pod::is_host_network(pod),
        host_ipc: spec.and_then(|s| s.host_ipc).unwrap_or(false),
    };
    let network = node.network.attach(&request).await.map_err(trouble)?;
    crate::container_config::write_pod_files(&node.config, node.volumes.dirs(), pod, &network, &name)
        .map_err(|e| trouble(e.to_string()))?;
    Ok(network)
}

/// Waits for the refresh task; pending while there is none. `None` inside: it was cancelled.
async fn joined(task: &mut Option<AbortOnDropHandle<Option<Timestamp>>>) -> Option<Option<Timestamp>> {
    match task {
        Some(task) => Some(task.await.unwrap_or_default()),
        None => std::future::pending().await,
    }
}

fn to_instant(at: Timestamp) -> Instant {
    let ahead = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
    // A clock far off must not stop the refresh for ever.
    Instant::now() + ahead.min(Duration::from_secs(24 * 3600))
}
