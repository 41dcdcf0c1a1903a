//! Gives every node its pod ranges (`spec.podCIDR`, `spec.podCIDRs`), one for each family.
//!
//! In: Nodes, the cluster CIDRs. Out: patches of nodes that have no range yet. A range is never changed once a node has
//! it; it is free again when the node object is gone. All state is in the nodes: a restart reads it back.

mod cidr_set;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::Api;

use crate::config::ControllersConfig;
use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::error::Error;
use crate::key::{ControllerName, ObjectKey};
use crate::node_ipam::cidr_set::CidrSet;
use crate::patch::{self, Half};
use crate::recorder::Severity;

/// The controller. Its keys are nodes.
pub(crate) struct NodeIpam {
    context: Context,
    queue: ControllerQueue,
    pool: std::sync::Arc<Pool>,
}

impl NodeIpam {
    pub(crate) fn new(context: &Context, informers: &mut Informers, config: &ControllersConfig) -> Self {
        let queue = context.queue_of(ControllerName::NodeIpam);
        let pool = std::sync::Arc::new(Pool::new(config));
        informers.nodes.on_change({
            let (queue, pool) = (queue.clone(), pool.clone());
            move |change| {
                pool.observe(change.old.as_deref(), change.new.as_deref());
                match &change.new {
                    Some(node) if ranges(node).is_empty() => queue.add(ObjectKey::of(node.as_ref())),
                    Some(_) => {}
                    None => {
                        for name in pool.take_starved() {
                            queue.add(ObjectKey::cluster(name));
                        }
                    }
                }
            }
        });
        Self { context: context.clone(), queue, pool }
    }

    async fn assign(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(node) = self.context.caches.nodes.get(key) else {
            return Ok(Outcome::Done);
        };
        if self.pool.is_empty() || !ranges(&node).is_empty() {
            return Ok(Outcome::Done);
        }
        let chosen = match self.pool.allocate(&key.name) {
            Ok(chosen) => chosen,
            Err(Exhausted(cluster)) => {
                self.context.record(
                    ControllerName::NodeIpam,
                    node.as_ref(),
                    Severity::Warning,
                    "CIDRNotAvailable",
                    format!("Node {} gets no pod range: all of {cluster} is in use", key.name),
                );
                return Ok(Outcome::Done);
            }
        };
        let mut desired = (*node).clone();
        let spec = desired.spec.get_or_insert_default();
        spec.pod_cidr = chosen.first().map(ToString::to_string);
        spec.pod_cidrs = Some(chosen.iter().map(ToString::to_string).collect());
        let api: Api<Node> = Api::all(self.context.client.clone());
        let result = patch::update(&api, Half::Main, &node, &desired).await;
        if result.as_ref().is_err_and(Error::is_refusal) {
            self.pool.give_back(&key.name);
        }
        match result {
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            Err(error) => Err(error),
            Ok(_) => {
                tracing::info!(node = %key.name, ranges = ?chosen, "node has its pod ranges");
                Ok(Outcome::Done)
            }
        }
    }
}

impl Controller for NodeIpam {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.assign(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.nodes);
    }
}

/// No part of this range is free.
#[derive(Debug, PartialEq, Eq)]
struct Exhausted(IpNet);

/// All ranges nodes can get. A choice made here and refused by the API is given back; one whose fate is unknown stays
/// that node's, and is what the next attempt for it writes: a range is neither given twice nor lost.
struct Pool {
    state: Mutex<PoolState>,
}

struct PoolState {
    sets: Vec<CidrSet>,
    /// What was chosen for a node, until the node itself says it has it, or is gone.
    chosen: HashMap<String, Vec<IpNet>>,
    /// Nodes that found nothing free; tried again when a range is released.
    starved: Vec<String>,
}

impl Pool {
    fn new(config: &ControllersConfig) -> Self {
        let sets = config
            .cluster_cidrs
            .iter()
            .map(|cluster| {
                let mut set = CidrSet::new(*cluster, config.node_mask(cluster));
                for service in &config.service_cidrs {
                    set.occupy(*service);
                }
                set
            })
            .collect();
        Self { state: Mutex::new(PoolState { sets, chosen: HashMap::new(), starved: Vec::new() }) }
    }

    fn is_empty(&self) -> bool {
        self.lock().sets.is_empty()
    }

    /// One range of each family, or none at all.
    fn allocate(&self, node: &str) -> Result<Vec<IpNet>, Exhausted> {
        let mut state = self.lock();
        if let Some(before) = state.chosen.get(node) {
            return Ok(before.clone());
        }
        let mut chosen = Vec::new();
        for position in 0..state.sets.len() {
            match state.sets[position].allocate() {
                Some(range) => chosen.push(range),
                None => {
                    let cluster = state.sets[position].cluster();
                    state.release(&chosen);
                    if !state.starved.iter().any(|n| n == node) {
                        state.starved.push(node.to_owned());
                    }
                    return Err(Exhausted(cluster));
                }
            }
        }
        state.chosen.insert(node.to_owned(), chosen.clone());
        Ok(chosen)
    }

    fn give_back(&self, node: &str) {
        let mut state = self.lock();
        let chosen = state.chosen.remove(node).unwrap_or_default();
        state.release(&chosen);
    }

    /// Follows what the nodes say: ranges that appear are taken, those of a node that is gone are free.
    fn observe(&self, old: Option<&Node>, new: Option<&Node>) {
        let mut state = self.lock();
        if new.is_none() || old.and_then(uid) != new.and_then(uid) {
            state.release(&old.map(ranges).unwrap_or_default());
        }
        let taken = new.map(ranges).unwrap_or_default();
        if new.is_none() || !taken.is_empty() {
            // A choice that came to nothing, or not to this, is free; below, what the node has is taken.
            let name = new.or(old).and_then(|node| node.metadata.name.as_deref()).unwrap_or_default();
            let chosen = state.chosen.remove(name).unwrap_or_default();
            state.release(&chosen);
        }
        for range in taken {
            if !state.sets.iter_mut().any(|set| set.occupy(range)) && !state.sets.is_empty() {
                tracing::warn!(node = new.and_then(|n| n.metadata.name.as_deref()), %range, "pod range lies outside the cluster CIDRs");
            }
        }
    }

    fn take_starved(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().starved)
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolState {
    fn release(&mut self, ranges: &[IpNet]) {
        for range in ranges {
            for set in &mut self.sets {
                set.release(*range);
            }
        }
    }
}

fn uid(node: &Node) -> Option<&str> {
    node.metadata.uid.as_deref()
}

/// The ranges a node has; a malformed one counts as none and is left for its author.
fn ranges(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let all = spec.pod_cidrs.iter().flatten().chain(spec.pod_cidr.iter());
    let mut ranges: Vec<IpNet> = all.filter_map(|range| range.parse().ok()).collect();
    ranges.dedup();
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(cidrs: &[&str], v4: u8, v6: u8) -> Pool {
        Pool::new(&ControllersConfig {
            cluster_cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
            node_mask_ipv4: v4,
            node_mask_ipv6: v6,
            service_cidrs: vec!["10.1.0.0/24".parse().unwrap()],
            ..ControllersConfig::default()
        })
    }

    fn node(name: &str, uid: &str, ranges: &[&str]) -> Node {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "uid": uid},
            "spec": {"podCIDR": ranges.first(), "podCIDRs": ranges},
        }))
        .unwrap()
    }

    fn allocate(pool: &Pool, node: &str) -> Result<Vec<String>, Exhausted> {
        pool.allocate(node).map(|ranges| ranges.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn pool_gives_both_families_and_skips_services_and_known_nodes() {
        let pool = pool(&["10.1.0.0/16", "fd01::/48"], 24, 64);
        pool.observe(None, Some(&node("a", "1", &["10.1.1.0/24", "fd01::/64"])));
        assert_eq!(allocate(&pool, "b").unwrap(), ["10.1.2.0/24", "fd01:0:0:1::/64"]);
    }

    #[test]
    fn pool_gives_the_same_again_until_the_node_has_it() {
        let pool = pool(&["10.2.0.0/23"], 24, 64);
        let first = allocate(&pool, "a").unwrap();
        assert_eq!(allocate(&pool, "a").unwrap(), first, "the first write's fate was unknown");
        assert_eq!(allocate(&pool, "b").unwrap(), ["10.2.1.0/24"]);
        pool.observe(None, Some(&node("a", "1", &["10.2.0.0/24"])));
        assert!(allocate(&pool, "c").is_err());
        pool.give_back("b");
        assert_eq!(allocate(&pool, "c").unwrap(), ["10.2.1.0/24"]);
    }

    #[test]
    fn pool_releases_both_families_when_one_is_exhausted_and_remembers_who_starves() {
        let pool = pool(&["fd01::/48", "10.2.0.0/24"], 24, 64);
        allocate(&pool, "a").unwrap();
        assert_eq!(allocate(&pool, "b"), Err(Exhausted("10.2.0.0/24".parse().unwrap())));
        pool.observe(Some(&node("a", "1", &["fd01::/64", "10.2.0.0/24"])), None);
        assert_eq!(pool.take_starved(), ["b"]);
        assert_eq!(allocate(&pool, "b").unwrap()[1], "10.2.0.0/24");
    }

    #[test]
    fn pool_keeps_a_range_over_node_updates_and_frees_it_when_the_node_is_another() {
        let pool = pool(&["10.2.0.0/24"], 24, 64);
        let first = node("a", "1", &["10.2.0.0/24"]);
        pool.observe(None, Some(&first));
        pool.observe(Some(&first), Some(&first));
        assert!(allocate(&pool, "b").is_err());
        pool.observe(Some(&first), Some(&node("a", "2", &[])));
        assert!(allocate(&pool, "b").is_ok());
    }
}
