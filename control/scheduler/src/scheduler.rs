//! One scheduler's mind: what it saw, who waits, what it decided.
//!
//! In: observations, outcomes of binds, the time. Out: decisions. Single-threaded and pure but for the clock and the
//! random source it is given; `run` does the I/O.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::budgets::{Budget, Budgets};
use crate::cache::{Cache, Effect};
use crate::diagnosis::{Candidates, Diagnosis};
use crate::events::ClusterEvents;
use crate::framework::{Cycle, Framework};
use crate::listing::Listing;
use crate::namespaces::Namespaces;
use crate::node_set::Row;
use crate::nominations::{Nomination, Nominations};
use crate::plugins::groups;
use crate::pod_info::{PodInfo, PodUid};
use crate::preemption::{Room, Search};
use crate::queue::SchedulingQueue;
use crate::spread::ServiceSelectors;
use crate::watches::{NamespaceFacts, Observation, Seen, ServiceFacts};

/// What a scheduling cycle came to.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Assumed on this node; to be bound.
    Bind { pod: Arc<PodInfo>, node: String },
    /// No node fits; others may be about to make room.
    Unschedulable { pod: Arc<PodInfo>, diagnosis: Diagnosis, search: Search },
}

/// Why a pod has no node, and what came of making room for it.
struct NoPlace {
    diagnosis: Diagnosis,
    search: Search,
}

/// The scheduler's state.
pub(crate) struct Scheduler {
    name: String,
    cache: Cache,
    queue: SchedulingQueue,
    services: ServiceSelectors,
    namespaces: Namespaces,
    budgets: Budgets,
    nominations: Nominations,
    framework: Framework,
    random: SmallRng,
    pods: Listing<PodUid>,
    nodes: Listing<String>,
    service_names: Listing<(String, String)>,
    namespace_names: Listing<String>,
    budget_names: Listing<(String, String)>,
}

impl Scheduler {
    pub(crate) fn new(name: String, seed: u64) -> Self {
        Self {
            name,
            cache: Cache::default(),
            queue: SchedulingQueue::default(),
            services: ServiceSelectors::default(),
            namespaces: Namespaces::default(),
            budgets: Budgets::default(),
            nominations: Nominations::default(),
            framework: Framework::default(),
            random: SmallRng::seed_from_u64(seed),
            pods: Listing::default(),
            nodes: Listing::default(),
            service_names: Listing::default(),
            namespace_names: Listing::default(),
            budget_names: Listing::default(),
        }
    }

    /// Every watch has delivered a complete list: decisions rest on the whole cluster.
    pub(crate) fn is_synced(&self) -> bool {
        self.pods.complete
            && self.nodes.complete
            && self.service_names.complete
            && self.namespace_names.complete
            && self.budget_names.complete
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
            Observation::Namespace(seen) => self.observe_namespace(seen, now),
            Observation::Budget(seen) => self.observe_budget(seen),
        }
    }

    /// Runs one scheduling cycle for the pod whose turn it is.
    pub(crate) fn schedule_next(&mut self, now: Instant) -> Option<Decision> {
        let pod = self.queue.pop()?;
        for group in groups(&pod, &self.services, &self.namespaces) {
            let table = &mut self.cache.table;
            table.spread.ensure(&group, &table.pods);
        }
        match self.find(&pod) {
            Ok(row) => {
                let node = self.cache.table.names[row].to_string();
                self.cache.assume(&pod, &node);
                // Its room is its own now, not free.
                self.nominations.remove(&pod.uid);
                self.queue.cluster_changed(ClusterEvents::POD_ADDED, now);
                Some(Decision::Bind { pod, node })
            }
            Err(no_place) => {
                let NoPlace { diagnosis, search } = *no_place;
                let hopes = self.framework.hopes(&diagnosis);
                self.queue.unschedulable(&pod.uid, hopes, now);
                match &search {
                    Search::Found(preemption) => {
                        self.nominations.give_way(&pod, &preemption.node);
                        self.nominations.put(&pod, &preemption.node);
                    }
                    Search::VictimsLeave => {}
                    // The room that was made for it went to another.
                    Search::Nothing | Search::Never => self.drop_nomination(&pod.uid, now),
                }
                Some(Decision::Unschedulable { pod, diagnosis, search })
            }
        }
    }

    /// The node for a pod. Pods that are expected somewhere count as if they were there already.
    fn find(&mut self, pod: &PodInfo) -> Result<Row, Box<NoPlace>> {
        let mut ahead: Vec<Nomination> = self.nominations.ahead_of(pod);
        // Such a pod may be on its node already: it counts once.
        ahead.retain(|other| !self.cache.is_placed(&other.pod.uid));
        let table = &mut self.cache.table;
        ahead.retain(|other| table.row_of(&other.node).is_some_and(|row| table.live.contains(row)));
        ahead.iter().for_each(|other| table.place(&other.pod, &other.node));
        let (services, namespaces) = (&self.services, &self.namespaces);
        let cycle = Cycle { pod, table, services, namespaces };
        let mut candidates = Candidates::new(table.live.clone());
        self.framework.filter(cycle, &mut candidates);
        let nominated = self.nominations.of(&pod.uid);
        if candidates.nodes.is_empty() {
            let mut room = Room {
                framework: &self.framework,
                table: &mut *table,
                services,
                namespaces,
                budgets: &self.budgets,
            };
            let search = room.search(pod, &candidates.diagnosis, nominated, &mut self.random);
            ahead.iter().for_each(|other| table.displace(&other.pod.uid, &other.node));
            return Err(Box::new(NoPlace { diagnosis: candidates.diagnosis, search }));
        }
        ahead.iter().for_each(|other| table.displace(&other.pod.uid, &other.node));
        let cycle = Cycle { pod, table, services, namespaces };
        if !ahead.is_empty() {
            // A node that only does because of a pod that is not there yet does not do.
            self.framework.filter(cycle, &mut candidates);
        }
        let own = nominated.and_then(|node| table.row_of(node)).filter(|row| candidates.nodes.contains(*row));
        let chosen = own.or_else(|| self.framework.choose(cycle, &candidates.nodes, &mut self.random));
        chosen.ok_or_else(|| Box::new(NoPlace { diagnosis: candidates.diagnosis, search: Search::Nothing }))
    }

    /// Those that were to give way for this pod could not all be told to.
    pub(crate) fn preemption_failed(&mut self, uid: &PodUid, now: Instant) {
        self.drop_nomination(uid, now);
    }

    /// What was kept for a pod is free: pods refused because of it may fit.
    fn drop_nomination(&mut self, uid: &PodUid, now: Instant) {
        if self.nominations.remove(uid) {
            self.queue.cluster_changed(ClusterEvents::POD_DELETED, now);
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
            self.drop_nomination(&pod.uid, now);
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
            self.drop_nomination(&pod.uid, now);
        } else if !self.cache.is_placed(&pod.uid) || self.queue.contains(&pod.uid) {
            self.nominations.see(&pod);
            self.queue.put(pod, now);
        }
    }

    fn remove_pod(&mut self, uid: &PodUid, now: Instant) {
        self.queue.remove(uid);
        self.drop_nomination(uid, now);
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

    fn observe_namespace(&mut self, seen: Seen<NamespaceFacts>, now: Instant) {
        match seen {
            Seen::ListBegins => self.namespace_names.begin(),
            Seen::Listed(namespace) | Seen::Changed(namespace) => {
                self.namespaces.put(&namespace.name, namespace.labels);
                self.namespace_names.add(namespace.name);
                // Terms that select namespaces may mean other pods now.
                self.queue.cluster_changed(ClusterEvents::POD_UPDATED, now);
            }
            Seen::Deleted(namespace) => {
                self.namespaces.remove(&namespace.name);
                self.namespace_names.remove(&namespace.name);
            }
            Seen::ListEnds => {
                for name in self.namespace_names.end() {
                    self.namespaces.remove(&name);
                }
            }
        }
    }

    fn observe_budget(&mut self, seen: Seen<Budget>) {
        match seen {
            Seen::ListBegins => self.budget_names.begin(),
            Seen::Listed(budget) | Seen::Changed(budget) => {
                self.budget_names.add((budget.namespace.clone(), budget.name.clone()));
                self.budgets.put(budget);
            }
            Seen::Deleted(budget) => {
                self.budgets.remove(&budget.namespace, &budget.name);
                self.budget_names.remove(&(budget.namespace, budget.name));
            }
            Seen::ListEnds => {
                for (namespace, name) in self.budget_names.end() {
                    self.budgets.remove(&namespace, &name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
