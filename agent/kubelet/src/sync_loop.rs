//! One loop that hears everything and gives it to the pod it belongs to.
//!
//! In: the watch of this node's pods, the runtime's events, ends of workers, a slow tick. Out: mail for workers; new
//! workers; the cleaning of what belongs to no pod. It never waits for anything itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use xebec_runtime::types::{Container, ContainerId, ContainerRuntime, RuntimeEvent};

use crate::admission::{self, Allocatable, Rejection};
use crate::gc;
use crate::node::Node;
use crate::pod::{self, PodUid};
use crate::pod_network::PodNetworking;
use crate::qos::{self, QosClass};
use crate::resources;
use crate::worker::{Ended, Mailbox, Worker};

/// States read from the runtime at a time.
const PARALLEL_READS: usize = 16;
const READ_TRIES: u32 = 3;
/// Before a broken worker's pod gets another.
const AFTER_BREAK: Duration = Duration::from_secs(1);

/// Everything the loop hears. Closed: nothing else changes what a worker knows of the outside.
enum SyncEvent {
    Pods(Box<watcher::Event<Pod>>),
    Runtime(RuntimeEvent),
    /// A container's state, read after an event named it.
    Read(Option<Box<Container>>),
    WorkerEnded(PodUid, Ended),
    Resync,
}

struct WorkerSlot {
    mailbox: Arc<Mailbox>,
    pod: Arc<Pod>,
    gone: bool,
    /// It takes its share of the node.
    admitted: bool,
    /// The same uid came back while its last worker still cleans up.
    again: Option<Arc<Pod>>,
}

/// The loop's state.
pub(crate) struct SyncLoop<R: ContainerRuntime, N: PodNetworking> {
    node: Arc<Node<R, N>>,
    workers: HashMap<PodUid, WorkerSlot>,
    tasks: JoinSet<(PodUid, Ended)>,
    reads: JoinSet<Option<Container>>,
    read_slots: Arc<Semaphore>,
    /// Uids of a list that is being received.
    listed: HashSet<PodUid>,
    /// Pods of that list that never began: they are admitted after those that did.
    fresh: Vec<Arc<Pod>>,
    complete: bool,
    cleaning: Option<tokio::task::JoinHandle<()>>,
    burstable: i128,
}

impl<R: ContainerRuntime, N: PodNetworking> SyncLoop<R, N> {
    pub(crate) fn new(node: Arc<Node<R, N>>) -> Self {
        Self {
            node,
            workers: HashMap::new(),
            tasks: JoinSet::new(),
            reads: JoinSet::new(),
            read_slots: Arc::new(Semaphore::new(PARALLEL_READS)),
            listed: HashSet::new(),
            fresh: Vec::new(),
            complete: false,
            cleaning: None,
            burstable: -1,
        }
    }

    /// Runs until it is dropped; containers go on then.
    pub(crate) async fn run(mut self, client: Client) {
        let selector = format!("spec.nodeName={}", self.node.config.node_name);
        let config = watcher::Config::default().fields(&selector);
        let pods = watcher(Api::<Pod>::all(client), config).default_backoff();
        let mut pods = std::pin::pin!(pods);
        let mut runtime = self.node.runtime.events();
        let mut resync = tokio::time::interval(self.node.config.resync);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        resync.reset();
        loop {
            let event = tokio::select! {
                // Ends first, so that a uid that comes back finds its slot free; then the runtime: exits are urgent.
                biased;
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok((uid, ended)) => SyncEvent::WorkerEnded(uid, ended),
                    Err(error) => {
                        tracing::error!(%error, "pod worker panicked");
                        self.replace_panicked();
                        continue;
                    }
                },
                Some(event) = runtime.recv() => SyncEvent::Runtime(event),
                Some(read) = self.reads.join_next() => SyncEvent::Read(read.ok().flatten().map(Box::new)),
                event = pods.next() => match event {
                    Some(Ok(event)) => SyncEvent::Pods(Box::new(event)),
                    Some(Err(error)) => {
                        tracing::warn!(%error, "watch of pods broke; it is begun again");
                        continue;
                    }
                    None => return,
                },
                _ = resync.tick() => SyncEvent::Resync,
            };
            self.handle(event);
        }
    }

    fn handle(&mut self, event: SyncEvent) {
        match event {
            SyncEvent::Pods(event) => self.pods(*event),
            SyncEvent::Runtime(RuntimeEvent::Exited { id } | RuntimeEvent::OomKilled { id }) => self.read(id),
            // Whoever starts a container reads its state itself.
            SyncEvent::Runtime(RuntimeEvent::Started { .. }) => {}
            SyncEvent::Runtime(RuntimeEvent::Gap) => {
                self.workers.values().for_each(|slot| slot.mailbox.compare());
            }
            SyncEvent::Read(container) => {
                let Some(container) = container else { return };
                let uid = PodUid(container.key.pod_uid.clone());
                if let Some(slot) = self.workers.get(&uid) {
                    slot.mailbox.container(*container);
                }
            }
            SyncEvent::WorkerEnded(uid, ended) => self.ended(&uid, &ended),
            SyncEvent::Resync => {
                self.workers.values().for_each(|slot| slot.mailbox.compare());
                if self.complete {
                    self.clean();
                }
            }
        }
    }

    fn pods(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => {
                self.listed.clear();
                self.fresh.clear();
            }
            watcher::Event::InitApply(pod) => {
                let (uid, pod) = (pod::uid(&pod), Arc::new(pod));
                if self.workers.contains_key(&uid) || pod::has_begun(&pod) {
                    self.upsert(pod);
                } else {
                    self.fresh.push(pod);
                }
                self.listed.insert(uid);
            }
            watcher::Event::InitDone => {
                self.fresh.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|t| t.0));
                for pod in std::mem::take(&mut self.fresh) {
                    self.upsert(pod);
                }
                let listed = std::mem::take(&mut self.listed);
                for (uid, slot) in &mut self.workers {
                    if !listed.contains(uid) {
                        slot.gone = true;
                        slot.mailbox.gone(None);
                    }
                }
                self.complete = true;
                self.clean();
                self.weigh();
            }
            watcher::Event::Apply(pod) => {
                self.upsert(Arc::new(pod));
                self.weigh();
            }
            watcher::Event::Delete(pod) => {
                if let Some(slot) = self.workers.get_mut(&pod::uid(&pod)) {
                    slot.gone = true;
                    slot.again = None;
                    slot.mailbox.gone(Some(Arc::new(pod)));
                }
            }
        }
    }

    fn upsert(&mut self, pod: Arc<Pod>) {
        let uid = pod::uid(&pod);
        match self.workers.get_mut(&uid) {
            Some(slot) if slot.gone => slot.again = Some(pod),
            Some(slot) => {
                slot.pod = Arc::clone(&pod);
                self.node.known.set_pod(&pod);
                slot.mailbox.pod(pod);
            }
            None => self.spawn(pod, Duration::ZERO),
        }
    }

    fn spawn(&mut self, pod: Arc<Pod>, after: Duration) {
        let uid = pod::uid(&pod);
        self.node.known.set_pod(&pod);
        let mailbox = Arc::new(Mailbox::default());
        let rejection = self.reject(&pod);
        let slot = WorkerSlot {
            mailbox: Arc::clone(&mailbox),
            pod: Arc::clone(&pod),
            gone: false,
            admitted: rejection.is_none(),
            again: None,
        };
        self.workers.insert(uid.clone(), slot);
        let node = Arc::clone(&self.node);
        self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            let worker = Box::new(Worker::adopt(node, pod, mailbox, rejection).await);
            (uid, Box::pin(worker.run()).await)
        });
    }

    /// Asked only of pods that never began: what runs is not judged again.
    fn reject(&self, pod: &Pod) -> Option<Rejection> {
        if pod::has_begun(pod) {
            return None;
        }
        let slots = self.workers.values().filter(|slot| slot.admitted && !pod::is_terminal(&slot.pod));
        let admitted: Vec<&Pod> = slots.map(|slot| &*slot.pod).collect();
        let config = &self.node.config;
        let node = Allocatable { capacity: config.capacity, max_pods: config.max_pods };
        admission::check(pod, &admitted, node).err()
    }

    fn ended(&mut self, uid: &PodUid, ended: &Ended) {
        let Some(slot) = self.workers.remove(uid) else { return };
        match (ended, slot.again) {
            (Ended::Forgotten, None) => {
                self.node.known.remove(uid);
                self.weigh();
            }
            (Ended::Forgotten, Some(pod)) => self.spawn(pod, Duration::ZERO),
            (Ended::Broken, _) => {
                self.spawn(slot.pod, AFTER_BREAK);
                self.pass_on_gone(uid, slot.gone);
            }
        }
    }

    fn pass_on_gone(&mut self, uid: &PodUid, gone: bool) {
        if let Some(slot) = self.workers.get_mut(uid).filter(|_| gone) {
            slot.gone = true;
            slot.mailbox.gone(None);
        }
    }

    /// A panic does not say whose it was: whoever has no reader of its mailbox left gets a new worker.
    fn replace_panicked(&mut self) {
        let lost: Vec<PodUid> = self
            .workers
            .iter()
            .filter(|(_, slot)| Arc::strong_count(&slot.mailbox) == 1)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in lost {
            self.ended(&uid, &Ended::Broken);
        }
    }

    fn read(&mut self, id: ContainerId) {
        let (node, slots) = (Arc::clone(&self.node), Arc::clone(&self.read_slots));
        self.reads.spawn(async move {
            let _slot = slots.acquire().await;
            for attempt in 1..=READ_TRIES {
                match node.runtime.container(&id).await {
                    Ok(container) => return container,
                    Err(error) => {
                        tracing::warn!(id = id.0, %error, attempt, "state of a container not read");
                        tokio::time::sleep(Duration::from_millis(200) * attempt).await;
                    }
                }
            }
            None
        });
    }

    /// Removes what belongs to no pod; one cleaning at a time.
    fn clean(&mut self) {
        if self.cleaning.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            self.cleaning = Some(tokio::spawn(gc::clean(Arc::clone(&self.node))));
        }
    }

    /// The burstable cgroup weighs what its pods asked for.
    fn weigh(&mut self) {
        let pods = self.workers.values().map(|slot| &slot.pod);
        let sum = pods
            .filter(|pod| !pod::is_terminal(pod) && qos::class(pod) == QosClass::Burstable)
            .map(|pod| resources::pod_request(pod, "cpu"))
            .sum();
        if sum != self.burstable {
            self.burstable = sum;
            if let Err(error) = self.node.cgroups.weigh_burstable(sum) {
                tracing::warn!(%error, "weight of burstable pods not set");
            }
        }
    }
}
