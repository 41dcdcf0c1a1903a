//! One scheduler's mind: what it saw, who waits, what it decided.
//!
//! In: observations, outcomes of binds, the time. Out: decisions. Single-threaded and pure but for the clock and the
//! random source it is given; `run` does the I/O.

use std::collections::HashSet;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::cache::{Cache, Effect};
use crate::diagnosis::Diagnosis;
use crate::events::ClusterEvents;
use crate::framework::{Cycle, Framework};
use crate::plugins::groups;
use crate::pod_info::{PodInfo, PodUid};
use crate::queue::SchedulingQueue;
use crate::spread::ServiceSelectors;
use crate::watches::{Observation, Seen, ServiceFacts};

/// What a scheduling cycle came to.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Assumed on this node; to be bound.
    Bind { pod: Arc<PodInfo>, node: String },
    /// No node fits.
    Unschedulable { pod: Arc<PodInfo>, diagnosis: Diagnosis },
}

/// The scheduler's state.
pub(crate) struct Scheduler {
    name: String,
    cache: Cache,
    queue: SchedulingQueue,
    services: ServiceSelectors,
    framework: Framework,
    random: SmallRng,
    pods: Listing<PodUid>,
    nodes: Listing<String>,
    service_names: Listing<(String, String)>,
}

/// Follows one watch's lists: what is known and not listed again is gone.
struct Listing<T> {
    known: HashSet<T>,
    listed: Option<HashSet<T>>,
    /// A first list is complete.
    complete: bool,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), listed: None, complete: false }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Listing<T> {
    fn begin(&mut self) {
        self.listed = Some(HashSet::new());
    }

    fn add(&mut self, item: T) {
        if let Some(listed) = &mut self.listed {
            listed.insert(item.clone());
        }
        self.known.insert(item);
    }

    fn remove(&mut self, item: &T) {
        self.known.remove(item);
    }

    /// What the list that ends did not mention.
    fn end(&mut self) -> Vec<T> {
        self.complete = true;
        let listed = self.listed.take().unwrap_or_default();
        let gone: Vec<T> = self.known.difference(&listed).cloned().collect();
        self.known = listed;
        gone
    }
}

impl Scheduler {
    pub(crate) fn new(name: String, seed: u64) -> Self {
        Self {
            name,
            cache: Cache::default(),
            queue: SchedulingQueue::default(),
            services: ServiceSelectors::default(),
            framework: Framework::default(),
            random: SmallRng::seed_from_u64(seed),
            pods: Listing::default(),
            nodes: Listing::default(),
            service_names: Listing::default(),
        }
    }

    /// Every watch has delivered a complete list: decisions rest on the whole cluster.
    pub(crate) fn is_synced(&self) -> bool {
        self.pods.complete && self.nodes.complete && self.service_names.complete
    }

    pub(crate) fn has_work(&self) -> bool {
        self.is_synced() && self.queue.has_active()
    }

    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.queue.next_tick()
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        for uid in self.cache.expire(now) {
            tracing::warn!(%uid, "an assumed pod was never confirmed; its place is free again");
            self.queue.cluster_changed(ClusterEvents::POD_DELETED, now);
        }
        self.queue.tick(now);
    }

    pub(crate) fn observe(&mut self, observation: Observation, now: Instant) {
        match observation {
            Observation::Pod(seen) => self.observe_pod(seen, now),
            Observation::Node(seen) => self.observe_node(seen, now),
            Observation::Service(seen) => self.observe_service(seen),
        }
    }

    /// Runs one scheduling cycle for the pod whose turn it is.
    pub(crate) fn schedule_next(&mut self, now: Instant) -> Option<Decision> {
        let pod = self.queue.pop()?;
        for group in groups(&pod, &self.services) {
            let table = &mut self.cache.table;
            table.spread.ensure(&group, &table.pods);
        }
        let cycle = Cycle { pod: &pod, table: &self.cache.table, services: &self.services };
        match self.framework.select(cycle, &mut self.random) {
            Ok(row) => {
                let node = self.cache.table.names[row].to_string();
                self.cache.assume(&pod, &node);
                self.queue.cluster_changed(ClusterEvents::POD_ADDED, now);
                Some(Decision::Bind { pod, node })
            }
            Err(diagnosis) => {
                let hopes = self.framework.hopes(&diagnosis);
                self.queue.unschedulable(&pod.uid, hopes, now);
                Some(Decision::Unschedulable { pod, diagnosis })
            }
        }
    }

    /// The API took the binding.
    pub(crate) fn bound(&mut self, uid: &PodUid, now: Instant) {
        self.cache.finish_binding(uid, now);
        self.queue.remove(uid);
    }

    /// The API did not take the binding, or nobody knows whether it did.
    pub(crate) fn bind_failed(&mut self, uid: &PodUid, now: Instant) {
        if self.cache.forget(uid) {
            self.queue.cluster_changed(ClusterEvents::POD_DELETED, now);
        }
        self.queue.retry(uid, now);
    }

    fn observe_pod(&mut self, seen: Seen<Arc<PodInfo>>, now: Instant) {
        match seen {
            Seen::ListBegins => self.pods.begin(),
            Seen::Listed(pod) | Seen::Changed(pod) => {
                self.pods.add(pod.uid.clone());
                self.put_pod(pod, now);
            }
            Seen::Deleted(pod) => {
                self.pods.remove(&pod.uid);
                self.remove_pod(&pod.uid, now);
            }
            Seen::ListEnds => {
                for uid in self.pods.end() {
                    self.remove_pod(&uid, now);
                }
            }
        }
    }

    fn put_pod(&mut self, pod: Arc<PodInfo>, now: Instant) {
        if pod.node_name.is_some() {
            self.queue.remove(&pod.uid);
            let events = match self.cache.put_assigned(&pod) {
                Effect::Added => ClusterEvents::POD_ADDED,
                Effect::Changed => ClusterEvents::POD_UPDATED,
                Effect::Removed => ClusterEvents::POD_DELETED,
                Effect::Unchanged => ClusterEvents::NONE,
            };
            // A pod that starts to leave makes room for spreading, not for resources; POD_UPDATED says so.
            self.queue.cluster_changed(events, now);
        } else if pod.scheduler_name != self.name || pod.terminal || pod.terminating {
            // Nobody binds a pod that is being deleted; what was assumed for it is given up with the failing bind.
            self.queue.remove(&pod.uid);
        } else if !self.cache.is_placed(&pod.uid) || self.queue.contains(&pod.uid) {
            self.queue.put(pod, now);
        }
    }

    fn remove_pod(&mut self, uid: &PodUid, now: Instant) {
        self.queue.remove(uid);
        if self.cache.remove(uid) {
            self.queue.cluster_changed(ClusterEvents::POD_DELETED, now);
        }
    }

    fn observe_node(&mut self, seen: Seen<Box<k8s_openapi::api::core::v1::Node>>, now: Instant) {
        match seen {
            Seen::ListBegins => self.nodes.begin(),
            Seen::Listed(node) | Seen::Changed(node) => {
                self.nodes.add(node.metadata.name.clone().unwrap_or_default());
                let change = self.cache.table.put_node(&node);
                let events = [
                    (change.added, ClusterEvents::NODE_ADDED),
                    (change.allocatable, ClusterEvents::NODE_ALLOCATABLE),
                    (change.labels, ClusterEvents::NODE_LABEL),
                    (change.taints, ClusterEvents::NODE_TAINT),
                ];
                let happened = events.into_iter().filter(|(changed, _)| *changed).map(|(_, event)| event);
                self.queue.cluster_changed(happened.fold(ClusterEvents::NONE, ClusterEvents::and), now);
            }
            Seen::Deleted(node) => {
                let name = node.metadata.name.clone().unwrap_or_default();
                self.nodes.remove(&name);
                self.cache.table.remove_node(&name);
            }
            Seen::ListEnds => {
                for name in self.nodes.end() {
                    self.cache.table.remove_node(&name);
                }
            }
        }
    }

    fn observe_service(&mut self, seen: Seen<ServiceFacts>) {
        match seen {
            Seen::ListBegins => self.service_names.begin(),
            Seen::Listed(service) | Seen::Changed(service) => {
                let ServiceFacts { namespace, name, selector } = service;
                self.services.put(&namespace, &name, selector);
                self.service_names.add((namespace, name));
            }
            Seen::Deleted(service) => {
                self.services.put(&service.namespace, &service.name, None);
                self.service_names.remove(&(service.namespace, service.name));
            }
            Seen::ListEnds => {
                for (namespace, name) in self.service_names.end() {
                    self.services.put(&namespace, &name, None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
