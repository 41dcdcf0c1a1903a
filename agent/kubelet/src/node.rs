//! What all pod workers of a node share.
//!
//! In: configuration, client, runtime, network. Out: one struct of handles; the register of pods for the API server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Client;
use nix::sys::signal::Signal;
use tokio::sync::watch;
use xebec_runtime::types::{Container, ContainerId, ContainerRuntime};

use crate::cgroup::Cgroups;
use crate::config::KubeletConfig;
use crate::image::Images;
use crate::machine::backoff::BackoffPolicy;
use crate::objects::ObjectCache;
use crate::pod::{self, PodUid};
use crate::pod_network::PodNetworking;
use crate::recorder::Recorder;
use crate::service_env::ServiceEnv;
use crate::status::StatusContext;
use crate::status_manager::StatusManager;
use crate::volume::{PodDirs, Volumes};

/// Handles shared by the workers.
pub struct Node<R: ContainerRuntime, N> {
    pub(crate) config: KubeletConfig,
    pub(crate) client: Client,
    pub(crate) runtime: R,
    pub(crate) network: N,
    pub(crate) volumes: Volumes,
    pub(crate) objects: ObjectCache,
    pub(crate) images: Images<R>,
    pub(crate) services: ServiceEnv,
    pub(crate) status: StatusManager,
    pub(crate) status_context: StatusContext,
    pub(crate) recorder: Recorder,
    pub(crate) cgroups: Cgroups,
    pub(crate) boot_id: String,
    pub(crate) known: KnownPods,
    listing: tokio::sync::Mutex<Option<Listing>>,
    /// Listings begun so far.
    listings: AtomicU64,
}

/// The containers of the runtime, as listed at one moment.
struct Listing {
    number: u64,
    containers: Arc<Vec<Container>>,
}

impl<R: ContainerRuntime, N: PodNetworking> Node<R, N> {
    pub(crate) fn new(
        config: KubeletConfig,
        client: Client,
        runtime: R,
        network: N,
        recorder: Recorder,
        cgroups: Cgroups,
    ) -> Self {
        Self {
            volumes: Volumes::new(PodDirs::new(&config.state_dir), client.clone(), config.capacity),
            objects: ObjectCache::new(client.clone()),
            images: Images::new(runtime.clone(), config.max_parallel_pulls),
            services: ServiceEnv::spawn(client.clone()),
            status: StatusManager::new(client.clone()),
            status_context: StatusContext {
                node_addresses: config.node_addresses.clone(),
                crash_backoff: BackoffPolicy::CRASH,
            },
            recorder,
            cgroups,
            boot_id: crate::checkpoint::boot_id(),
            known: KnownPods::default(),
            listing: tokio::sync::Mutex::new(None),
            listings: AtomicU64::new(0),
            config,
            client,
            runtime,
            network,
        }
    }

    /// Containers of one pod; `None` when the runtime cannot be asked, which is not the same as none. Many callers at a
    /// time share one listing that began after they asked.
    pub(crate) async fn containers_of(&self, uid: &PodUid) -> Option<Vec<Container>> {
        let all = self.containers().await?;
        Some(all.iter().filter(|c| c.key.pod_uid == uid.0).cloned().collect())
    }

    /// `None` when the runtime cannot be asked.
    pub(crate) async fn containers(&self) -> Option<Arc<Vec<Container>>> {
        let before = self.listings.load(Ordering::SeqCst);
        let mut listing = self.listing.lock().await;
        if let Some(listing) = listing.as_ref().filter(|l| l.number > before) {
            return Some(Arc::clone(&listing.containers));
        }
        let number = self.listings.fetch_add(1, Ordering::SeqCst) + 1;
        match self.runtime.containers().await {
            Ok(containers) => {
                let containers = Arc::new(containers);
                *listing = Some(Listing { number, containers: Arc::clone(&containers) });
                Some(containers)
            }
            Err(error) => {
                tracing::warn!(%error, "containers not listed");
                None
            }
        }
    }

    /// The signal that asks a container to end: the pod's, the image's, or SIGTERM.
    pub(crate) async fn stop_signal(&self, id: &ContainerId, of_pod: Option<&str>) -> i32 {
        if let Some(signal) = of_pod.and_then(signal_number) {
            return signal;
        }
        let container = self.runtime.container(id).await.ok().flatten();
        let image = match container {
            Some(container) => self.runtime.image(&container.image_name).await.ok().flatten(),
            None => None,
        };
        image.and_then(|i| signal_number(i.stop_signal.as_deref()?)).unwrap_or(Signal::SIGTERM as i32)
    }
}

/// `SIGUSR1`, `USR1`, `10`, `SIGRTMIN+3`.
fn signal_number(name: &str) -> Option<i32> {
    let name = name.trim();
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    if let Some(offset) = full.strip_prefix("SIGRTMIN") {
        let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
        return (0..=30).contains(&offset).then(|| 34 + offset);
    }
    full.parse::<Signal>().ok().map(|s| s as i32)
}

/// A pod as the kubelet knows it.
#[derive(Clone, Debug)]
pub struct KnownPod {
    pub pod: Arc<Pod>,
    /// Newer than `pod.status`.
    pub status: Arc<PodStatus>,
}

impl KnownPod {
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// A container of the spec, of any kind.
    pub fn container(&self, name: &str) -> Option<k8s_openapi::api::core::v1::Container> {
        pod::find(&self.pod, name)
    }

    /// The container of that name, while it runs.
    pub fn running(&self, name: &str) -> Option<ContainerId> {
        self.containers().find(|(known, ..)| *known == name).map(|(_, id, _)| id)
    }

    /// Running containers: name, id, start.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (&str, ContainerId, Option<Timestamp>)> {
        let status = &self.status;
        let main = status.container_statuses.iter().flatten();
        let init = status.init_container_statuses.iter().flatten();
        let ephemeral = status.ephemeral_container_statuses.iter().flatten();
        main.chain(init).chain(ephemeral).filter_map(|status| {
            let running = status.state.as_ref()?.running.as_ref()?;
            let (_, id) = status.container_id.as_deref()?.split_once("://")?;
            let started = running.started_at.as_ref().map(|time| time.0);
            Some((status.name.as_str(), ContainerId(id.to_owned()), started))
        })
    }
}

/// The register of pods that have a worker.
#[derive(Clone, Default)]
pub struct KnownPods {
    pods: Arc<RwLock<HashMap<PodUid, KnownPod>>>,
    changed: Arc<Mutex<Option<watch::Sender<u64>>>>,
}

impl KnownPods {
    fn bump(&self) {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = changed.as_ref() {
            sender.send_modify(|n| *n += 1);
        }
    }

    pub(crate) fn set_pod(&self, pod: &Arc<Pod>) {
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        let status = || Arc::new(pod.status.clone().unwrap_or_default());
        pods.entry(pod::uid(pod))
            .and_modify(|known| known.pod = Arc::clone(pod))
            .or_insert_with(|| KnownPod { pod: Arc::clone(pod), status: status() });
    }

    pub(crate) fn set_status(&self, pod: &Pod, status: &PodStatus) {
        if let Some(known) = self.pods.write().unwrap_or_else(PoisonError::into_inner).get_mut(&pod::uid(pod))
        {
            known.status = Arc::new(status.clone());
        }
        self.bump();
    }

    pub(crate) fn remove(&self, uid: &PodUid) {
        self.pods.write().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.bump();
    }

    pub fn contains(&self, uid: &PodUid) -> bool {
        self.pods.read().unwrap_or_else(PoisonError::into_inner).contains_key(uid)
    }

    pub fn get(&self, uid: &PodUid) -> Option<KnownPod> {
        self.pods.read().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    pub fn all(&self) -> Vec<KnownPod> {
        self.pods.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// By namespace and name; of several the one that is not ending.
    pub fn find(&self, namespace: &str, name: &str) -> Option<KnownPod> {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        pods.values()
            .filter(|k| pod::namespace(&k.pod) == namespace && pod::name(&k.pod) == name)
            .min_by_key(|k| pod::is_deleting(&k.pod))
            .cloned()
    }

    /// Tells that some pod's status changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.get_or_insert_with(|| watch::channel(0).0).subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_by_name_number_and_offset() {
        let cases = [
            ("SIGTERM", Some(15)),
            ("USR1", Some(10)),
            ("3", Some(3)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGNOPE", None),
            ("99", None),
        ];
        for (name, expected) in cases {
            assert_eq!(signal_number(name), expected, "{name}");
        }
    }
}
