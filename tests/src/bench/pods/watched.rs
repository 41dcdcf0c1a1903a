//! Pods, and when a watch shows what becomes of them.
//!
//! In: names. Out: times between events of one watch.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ContainerStatus, Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::rivals::Rivals;
use crate::cluster::Cluster;

const NAMESPACE: &str = "bench";
const PATIENCE: Duration = Duration::from_secs(60);

/// A pod as one event showed it; `None` when it is gone.
struct Seen {
    at: Instant,
    name: String,
    pod: Option<Pod>,
}

/// The watch and what makes pods.
pub(super) struct Watched {
    pods: Api<Pod>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Watched {
    /// Makes the namespace and begins to watch it.
    pub(super) async fn start(cluster: &Cluster) -> Result<Self> {
        let client = client(&cluster.dir.join("kubeconfig")).await?;
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE);
        let begun = Instant::now();
        while accounts.get_opt("default").await?.is_none() {
            if begun.elapsed() > PATIENCE {
                bail!("no default service account appears");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let pods = Api::<Pod>::namespaced(client, NAMESPACE);
        let events = pods.watch(&WatchParams::default().timeout(290), "0").await?.boxed();
        let (sender, seen) = mpsc::unbounded_channel();
        tokio::spawn(forward(pods.clone(), events, sender));
        Ok(Self { pods, seen })
    }

    /// Runs a pod to its violent end: milliseconds from bound to Running, and from SIGKILL to the end's being seen.
    pub(super) async fn run_once(&mut self, name: &str, rivals: &mut Rivals) -> Result<(f64, f64)> {
        self.create(name).await?;
        let (bound, _) = self.until(name, |pod| node(pod).is_some()).await?;
        let (running, pod) = self.until(name, is_running).await?;
        let id = container_id(&pod)?;
        let pid = rivals.pid(&id).await?;
        let killed = Instant::now();
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        let (ended, _) = self.until(name, has_ended).await?;
        self.pods.delete(name, &DeleteParams::default().grace_period(0)).await?;
        self.until_gone(name).await?;
        rivals.gone(&id).await?;
        let millis = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
        Ok((millis(bound, running), millis(killed, ended)))
    }

    /// Starts pods that stay; answers the ids of their containers.
    pub(super) async fn run_all(&mut self, names: &[String]) -> Result<Vec<String>> {
        for name in names {
            self.create(name).await?;
        }
        let mut ids: HashMap<String, String> = HashMap::new();
        while ids.len() < names.len() {
            let seen = self.next().await?;
            if let Some(pod) = seen.pod.filter(is_running) {
                ids.insert(seen.name, container_id(&pod)?);
            }
        }
        Ok(names.iter().filter_map(|name| ids.remove(name)).collect())
    }

    async fn create(&self, name: &str) -> Result<()> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "100000"],
                }],
            },
        }))?;
        self.pods
            .create(&PostParams::default(), &pod)
            .await
            .with_context(|| format!("creating pod {name}"))?;
        Ok(())
    }

    /// When the pod is first seen to be so.
    async fn until(&mut self, name: &str, so: impl Fn(&Pod) -> bool) -> Result<(Instant, Pod)> {
        loop {
            let seen = self.next().await?;
            if seen.name != name {
                continue;
            }
            let pod = seen.pod.with_context(|| format!("pod {name} is gone"))?;
            if so(&pod) {
                return Ok((seen.at, pod));
            }
            if pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Failed") {
                bail!("pod {name} failed: {:?}", pod.status);
            }
        }
    }

    async fn until_gone(&mut self, name: &str) -> Result<()> {
        loop {
            let seen = self.next().await?;
            if seen.name == name && seen.pod.is_none() {
                return Ok(());
            }
        }
    }

    async fn next(&mut self) -> Result<Seen> {
        let next = timeout(PATIENCE, self.seen.recv()).await.context("nothing happens to the pods")?;
        next.context("the watch broke")
    }
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?)
}

/// Passes events on with the time of their coming; begins again where a watch ends after its time.
async fn forward(
    pods: Api<Pod>,
    mut events: futures::stream::BoxStream<'static, kube::Result<WatchEvent<Pod>>>,
    seen: mpsc::UnboundedSender<Seen>,
) {
    let mut version = "0".to_owned();
    loop {
        while let Ok(Some(event)) = events.try_next().await {
            let at = Instant::now();
            let (pod, gone) = match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, false),
                WatchEvent::Deleted(pod) => (pod, true),
                WatchEvent::Bookmark(_) | WatchEvent::Error(_) => continue,
            };
            version = pod.metadata.resource_version.clone().unwrap_or_default();
            let name = pod.metadata.name.clone().unwrap_or_default();
            if seen.send(Seen { at, name, pod: (!gone).then_some(pod) }).is_err() {
                return;
            }
        }
        match pods.watch(&WatchParams::default().timeout(290), &version).await {
            Ok(again) => events = again.boxed(),
            Err(_) => return,
        }
    }
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn first_status(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let state = first_status(pod).and_then(|status| status.state.as_ref());
    phase == Some("Running") && state.is_some_and(|state| state.running.is_some())
}

fn has_ended(pod: &Pod) -> bool {
    first_status(pod).and_then(|status| status.state.as_ref()).is_some_and(|state| state.terminated.is_some())
}

fn container_id(pod: &Pod) -> Result<String> {
    let id = first_status(pod).and_then(|status| status.container_id.as_deref());
    let id = id.and_then(|id| id.strip_prefix("containerd://"));
    Ok(id.context("a running container has an id")?.to_owned())
}
