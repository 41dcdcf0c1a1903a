//! Removes pods nobody will ever finish: those of nodes that no longer exist, those nobody started, and the oldest of
//! too many that have ended.
//!
//! In: Pods, Nodes. Out: pods failed and deleted without grace.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use xebec_api::wellknown::taints::OUT_OF_SERVICE;

use crate::config::ControllersConfig;
use crate::context::{Context, Controller, ControllerQueue, Informers, Outcome};
use crate::disruption;
use crate::error::{Error, is_conflict, is_not_found};
use crate::key::{ControllerName, ObjectKey};
use crate::node_lifecycle::conditions::{Readiness, readiness};
use crate::patch::{self, Half};
use crate::pod;

/// Ended pods are counted at most this often.
const COUNT_PAUSE: Duration = Duration::from_secs(20);

/// The controller. Its keys are pods, and [`ENDED`].
pub(crate) struct PodGarbageCollector {
    context: Context,
    queue: ControllerQueue,
    quarantine: Duration,
    threshold: usize,
}

/// The key that stands for all pods that have ended; no pod's namespace is empty.
const ENDED: &str = "ended";

/// Why a pod is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// Its node may be gone: to be asked of the API itself.
    Orphan,
    /// It is to be deleted and no node has it.
    NeverStarted,
    /// It is to be deleted and its node was declared dead.
    OutOfService,
}

impl PodGarbageCollector {
    pub(crate) fn new(context: &Context, informers: &mut Informers, config: &ControllersConfig) -> Self {
        let queue = context.queue_of(ControllerName::PodGarbageCollector);
        let (quarantine, threshold) = (config.orphaned_pod_quarantine, config.terminated_pod_threshold);
        informers.nodes.on_change({
            let (queue, pods) = (queue.clone(), context.caches.pods.clone());
            move |change| {
                let node = change.object().and_then(|node| node.metadata.name.as_deref()).unwrap_or_default();
                let delay = match &change.new {
                    None => quarantine,
                    Some(node) if is_out_of_service(node) => Duration::ZERO,
                    Some(_) => return,
                };
                pods.indexed(node).iter().for_each(|pod| queue.add_after(ObjectKey::of(pod.as_ref()), delay));
            }
        });
        informers.pods.on_change({
            let (queue, caches) = (queue.clone(), context.caches.clone());
            move |change| {
                let Some(pod) = &change.new else {
                    return;
                };
                if pod::is_terminal(pod) && change.old.as_ref().is_none_or(|old| !pod::is_terminal(old)) {
                    queue.add_after(ObjectKey::cluster(ENDED), COUNT_PAUSE);
                }
                let node = node_of(&caches.nodes, pod);
                match removal(pod, node.as_deref()) {
                    // At start the nodes may not be listed yet; the quarantine outlasts that.
                    Some(Removal::Orphan) => queue.add_after(ObjectKey::of(pod.as_ref()), quarantine),
                    Some(_) => queue.add(ObjectKey::of(pod.as_ref())),
                    None => {}
                }
            }
        });
        Self { context: context.clone(), queue, quarantine, threshold }
    }

    async fn remove(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let caches = &self.context.caches;
        let Some(pod) = caches.pods.get(key) else {
            return Ok(Outcome::Done);
        };
        let Some(removal) = removal(&pod, node_of(&caches.nodes, &pod).as_deref()) else {
            return Ok(Outcome::Done);
        };
        if removal == Removal::Orphan {
            let name = pod::bound_to(&pod).unwrap_or_default();
            let node = Api::<Node>::all(self.context.client.clone()).get_opt(name).await;
            if node.map_err(|error| Error::api(format!("get node {name}"), error))?.is_some() {
                return Ok(Outcome::After(self.quarantine));
            }
        }
        self.fail(&pod, removal).await?;
        self.delete(&pod).await
    }

    /// Removes the oldest of too many pods that have ended.
    async fn thin_out(&self) -> Result<Outcome, Error> {
        let pods = self.context.caches.pods.all();
        for pod in surplus(pods, self.threshold) {
            self.delete(&pod).await?;
        }
        Ok(Outcome::Done)
    }

    /// Says in its status that the pod will not run to its end.
    async fn fail(&self, pod: &Pod, removal: Removal) -> Result<(), Error> {
        if removal == Removal::NeverStarted || pod::is_terminal(pod) {
            return Ok(());
        }
        let mut failed = match removal {
            Removal::Orphan => {
                let message = "PodGC: node no longer exists";
                disruption::marked(pod, "DeletionByPodGC", message, Timestamp::now())
            }
            Removal::OutOfService | Removal::NeverStarted => pod.clone(),
        };
        failed.status.get_or_insert_default().phase = Some("Failed".to_owned());
        let api = self.context.api::<Pod>(pod.metadata.namespace.as_deref().unwrap_or_default());
        match patch::update(&api, Half::Status, pod, &failed).await {
            Err(error) if error.is_not_found() => Ok(()),
            written => written.map(drop),
        }
    }

    async fn delete(&self, pod: &Pod) -> Result<Outcome, Error> {
        let key = ObjectKey::of(pod);
        tracing::info!(pod = %key, "nobody will finish this pod; removed");
        let params = DeleteParams::default()
            .grace_period(0)
            .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        match self.context.api::<Pod>(&key.namespace).delete(&key.name, &params).await {
            Err(error) if !is_not_found(&error) && !is_conflict(&error) => {
                Err(Error::api(format!("delete pod {key}"), error))
            }
            _ => Ok(Outcome::Done),
        }
    }
}

impl Controller for PodGarbageCollector {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { if key.namespace.is_empty() { self.thin_out().await } else { self.remove(&key).await } }
            .boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.pods);
        self.queue.add(ObjectKey::cluster(ENDED));
    }
}

fn node_of(nodes: &crate::cache::Cache<Node>, pod: &Pod) -> Option<Arc<Node>> {
    nodes.get(&ObjectKey::cluster(pod::bound_to(pod)?))
}

/// An administrator declared that the machine is off, and no agent there says otherwise: what runs must not lose its
/// object.
fn is_out_of_service(node: &Node) -> bool {
    readiness(node) != Readiness::Ready
        && node
            .spec
            .iter()
            .flat_map(|spec| spec.taints.iter().flatten())
            .any(|taint| taint.key == OUT_OF_SERVICE)
}

fn removal(pod: &Pod, node: Option<&Node>) -> Option<Removal> {
    let terminating = pod::is_terminating(pod);
    match (pod::bound_to(pod), node) {
        (None, _) if terminating => Some(Removal::NeverStarted),
        (Some(_), None) => Some(Removal::Orphan),
        (Some(_), Some(node)) if terminating && is_out_of_service(node) => Some(Removal::OutOfService),
        _ => None,
    }
}

/// The oldest of the pods that have ended, as many as exceed the threshold.
fn surplus(pods: Vec<Arc<Pod>>, threshold: usize) -> Vec<Arc<Pod>> {
    let mut ended: Vec<Arc<Pod>> = pods.into_iter().filter(|pod| pod::is_terminal(pod)).collect();
    let count = if threshold == 0 { 0 } else { ended.len().saturating_sub(threshold) };
    ended.sort_by_cached_key(|pod| {
        (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.metadata.name.clone())
    });
    ended.truncate(count);
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: Option<&str>, phase: &str, deleting: bool) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "creationTimestamp": format!("2026-01-01T00:00:0{name}Z"),
                "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z"),
            },
            "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn node(taint: Option<&str>, ready: &str) -> Node {
        let taints = taint.map(|key| vec![json!({"key": key, "effect": "NoExecute"})]);
        serde_json::from_value(json!({
            "metadata": {"name": "n"}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn removal_is_for_pods_nobody_will_finish() {
        let (well, dead) = (node(None, "True"), node(Some(OUT_OF_SERVICE), "Unknown"));
        let contradicts = node(Some(OUT_OF_SERVICE), "True");
        let cases = [
            (pod("1", Some("n"), "Running", false), Some(&well), None),
            (pod("1", Some("n"), "Running", true), Some(&well), None),
            (pod("1", Some("n"), "Running", false), None, Some(Removal::Orphan)),
            (pod("1", Some("n"), "Running", true), Some(&dead), Some(Removal::OutOfService)),
            (pod("1", Some("n"), "Running", true), Some(&contradicts), None),
            (pod("1", Some("n"), "Running", false), Some(&dead), None),
            (pod("1", None, "Pending", true), None, Some(Removal::NeverStarted)),
            (pod("1", None, "Pending", false), None, None),
        ];
        for (pod, node, expected) in cases {
            assert_eq!(removal(&pod, node), expected, "{pod:?} {node:?}");
        }
    }

    #[test]
    fn surplus_is_the_oldest_that_ended() {
        let pods: Vec<Arc<Pod>> = ["4", "2", "3", "1", "5"]
            .iter()
            .map(|name| {
                Arc::new(pod(name, Some("n"), if *name == "1" { "Running" } else { "Failed" }, false))
            })
            .collect();
        let names: Vec<_> =
            surplus(pods.clone(), 2).iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["2", "3"]);
        assert!(surplus(pods.clone(), 4).is_empty());
        assert!(surplus(pods, 0).is_empty(), "0 means no limit");
    }
}
