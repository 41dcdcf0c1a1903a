//! Waiting until no node sends new connections to a pod that is being deleted, before the pod hears of its end.
//!
//! In: how far this node's proxy has followed the EndpointSlices, the Nodes, the other nodes' Leases. Out: the answer to
//! the kubelet's question; this node's own progress as an annotation of its Lease. That annotation is written only for
//! slices with a terminating endpoint, and Leases are watched only while somebody waits.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::Store;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use xebec_proxy::Applied;

/// Annotation of a node's Lease: the highest revision of an EndpointSlice with a terminating endpoint that its tables
/// follow.
const APPLIED: &str = "xebec.io/applied-endpointslices";
const LEASE_NAMESPACE: &str = "kube-node-lease";
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(500);
/// Leases are watched a while longer: pods seldom end alone.
const LINGER: Duration = Duration::from_secs(15);
/// What was connected before the switch may still be asking.
const SETTLE: Duration = Duration::from_millis(50);

/// Answers when a pod is drained. Cheap to clone.
#[derive(Clone)]
pub struct Drain {
    applied: watch::Receiver<Applied>,
    leases: Leases,
    nodes: Store<Node>,
    node_name: String,
}

impl Drain {
    pub fn new(
        client: Client,
        applied: watch::Receiver<Applied>,
        nodes: Store<Node>,
        node_name: &str,
    ) -> Self {
        let leases = Leases { client, watched: Arc::default() };
        Self { applied, leases, nodes, node_name: node_name.to_owned() }
    }

    /// Returns when every node that tells has turned away from `addresses`. The caller bounds the wait.
    pub async fn drained(&self, addresses: &[IpAddr]) {
        let mut applied = self.applied.clone();
        let any_of = |set: &BTreeSet<IpAddr>| addresses.iter().any(|address| set.contains(address));
        let before = applied.borrow().clone();
        if !any_of(&before.ready) && !any_of(&before.terminating) {
            // No Service sends here: there is nothing to wait for, and no slice will say so.
            return;
        }
        // Begun first: the other nodes are told of the slice at the same time as this one.
        let watched = self.leases.watch();
        let turned_away = applied.wait_for(|applied| !any_of(&applied.ready)).await;
        let Ok(revision) = turned_away.map(|applied| applied.terminating_revision) else { return };
        let mut revisions = watched.revisions.clone();
        let others =
            |known: &HashMap<String, u64>| all_follow(&self.nodes.state(), &self.node_name, known, revision);
        if revisions.wait_for(|known| known.as_ref().is_some_and(others)).await.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
    }
}

/// Whether every other Ready node's tables are at `revision`. Who never told how far it is cannot be waited for.
fn all_follow(nodes: &[Arc<Node>], own: &str, known: &HashMap<String, u64>, revision: u64) -> bool {
    let others = nodes.iter().filter(|node| is_ready(node)).map(|node| node.name_any());
    others.filter(|name| name != own).filter_map(|name| known.get(&name)).all(|applied| *applied >= revision)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Writes this node's progress until shut down.
pub async fn announce(
    client: Client,
    node_name: String,
    mut applied: watch::Receiver<Applied>,
    shutdown: CancellationToken,
) {
    let leases: Api<Lease> = Api::namespaced(client, LEASE_NAMESPACE);
    let mut written = None;
    loop {
        let applied_now = applied.borrow_and_update().clone();
        // The first time in any case: who never wrote is not waited for.
        let due = applied_now.revision > 0
            && written.is_none_or(|written| applied_now.terminating_revision > written);
        let mut wait = Duration::MAX;
        if due {
            let patch =
                json!({ "metadata": { "annotations": { APPLIED: applied_now.revision.to_string() } } });
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            let call = leases.patch(&node_name, &params, &patch);
            match tokio::time::timeout(CALL_TIMEOUT, call).await {
                Ok(Ok(_)) => written = Some(applied_now.revision),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "progress of the proxy not announced");
                    wait = RETRY;
                }
                Err(_) => wait = RETRY,
            }
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// All nodes' Leases, watched while somebody asks.
#[derive(Clone)]
struct Leases {
    client: Client,
    watched: Arc<Mutex<Weak<Watched>>>,
}

struct Watched {
    /// Revision by node; `None` before the first list.
    revisions: watch::Receiver<Option<HashMap<String, u64>>>,
    _task: AbortOnDropHandle<()>,
}

impl Leases {
    fn watch(&self) -> Arc<Watched> {
        let mut slot = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = slot.upgrade() {
            return watched;
        }
        let (sender, revisions) = watch::channel(None);
        let task = AbortOnDropHandle::new(tokio::spawn(follow(self.client.clone(), sender)));
        let watched = Arc::new(Watched { revisions, _task: task });
        *slot = Arc::downgrade(&watched);
        let held = Arc::clone(&watched);
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            drop(held);
        });
        watched
    }
}

async fn follow(client: Client, revisions: watch::Sender<Option<HashMap<String, u64>>>) {
    let api: Api<Lease> = Api::namespaced(client, LEASE_NAMESPACE);
    let mut stream = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut listed = HashMap::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(lease)) => listed.extend(progress_of(&lease)),
            Ok(watcher::Event::InitDone) => {
                revisions.send_replace(Some(std::mem::take(&mut listed)));
            }
            Ok(watcher::Event::Apply(lease)) => {
                let Some((name, revision)) = progress_of(&lease) else { continue };
                revisions.send_if_modified(|known| {
                    known.get_or_insert_default().insert(name, revision) != Some(revision)
                });
            }
            Ok(watcher::Event::Delete(lease)) => {
                revisions.send_modify(|known| {
                    known.get_or_insert_default().remove(&lease.name_any());
                });
            }
            Err(error) => tracing::debug!(%error, "leases of other nodes not watched"),
        }
    }
}

fn progress_of(lease: &Lease) -> Option<(String, u64)> {
    let revision = lease.annotations().get(APPLIED)?.parse().ok()?;
    Some((lease.name_any(), revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ready: &str) -> Arc<Node> {
        let status = json!({ "conditions": [{ "type": "Ready", "status": ready }] });
        Arc::new(serde_json::from_value(json!({ "metadata": { "name": name }, "status": status })).unwrap())
    }

    #[test]
    fn every_ready_node_that_tells_must_have_turned_away() {
        let nodes = [node("a", "True"), node("b", "True"), node("dead", "Unknown"), node("mute", "True")];
        let known = |b: u64| HashMap::from([("b".to_owned(), b), ("dead".to_owned(), 1)]);
        assert!(!all_follow(&nodes, "a", &known(6), 7));
        assert!(all_follow(&nodes, "a", &known(7), 7));
        assert!(all_follow(&nodes, "b", &known(6), 7), "a node does not wait for itself");
    }

    #[test]
    fn progress_is_read_from_the_leases_annotation() {
        let lease = |value: &str| -> Lease {
            serde_json::from_value(json!({ "metadata": { "name": "n", "annotations": { APPLIED: value } } }))
                .unwrap()
        };
        assert_eq!(progress_of(&lease("12")), Some(("n".to_owned(), 12)));
        assert_eq!(progress_of(&lease("soon")), None);
        assert_eq!(progress_of(&Lease::default()), None);
    }
}
