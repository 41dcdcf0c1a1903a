//! Says which nodes are not heard of, keeps pods off nodes in trouble, and has them evicted.
//!
//! In: Nodes, their Leases, Pods. Out: conditions of silent nodes, taints, pods marked not ready, Events. The taints
//! with effect NoExecute are acted on by the taint eviction controller.
//!
//! ```text
//! no heartbeat for the grace period ──► Ready=Unknown ──► unreachable:NoSchedule, pods not ready
//!                                                     └─► unreachable:NoExecute, one node of a zone at a time
//! the agent says Ready=False ──► the same with not-ready
//! the agent says Ready=True ──► taints off
//! ```

pub(crate) mod conditions;
mod heartbeat;
mod taints;
#[cfg(test)]
mod tests;
mod zones;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use tokio::time::Instant;
use xebec_api::wellknown::conditions::{FALSE, NODE_READY, POD_READY, TRUE};
use xebec_api::wellknown::reasons::node::{NODE_NOT_READY, REGISTERED};
use xebec_api::wellknown::taints::NO_EXECUTE;

use crate::cache::Change;
use crate::config::ControllersConfig;
use crate::context::{Caches, Context, Controller, ControllerQueue, Informers, Outcome};
use crate::error::Error;
use crate::key::{ControllerName, ObjectKey};
use crate::node_lifecycle::conditions::{Readiness, condition, heartbeat, readiness, silenced};
use crate::node_lifecycle::heartbeat::{Heartbeats, Source};
use crate::node_lifecycle::taints::{Eviction, evicting};
use crate::node_lifecycle::zones::{Pace, zone_of};
use crate::patch::{self, Half};
use crate::pod;
use crate::recorder::Severity;

/// A node that has never said anything gets at least this long.
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// The controller. Its keys are nodes.
pub(crate) struct NodeLifecycle {
    context: Context,
    queue: ControllerQueue,
    heartbeats: Arc<Heartbeats>,
    pace: Pace,
    grace: Duration,
}

impl NodeLifecycle {
    pub(crate) fn new(context: &Context, informers: &mut Informers, config: &ControllersConfig) -> Self {
        let queue = context.queue_of(ControllerName::NodeLifecycle);
        let heartbeats = Arc::new(Heartbeats::default());
        let grace = config.node_monitor_grace_period;
        informers.nodes.on_change({
            let (queue, heartbeats, context) = (queue.clone(), heartbeats.clone(), context.clone());
            move |change| observe_node(&queue, &heartbeats, &context, change)
        });
        informers.leases.on_change({
            let (queue, heartbeats) = (queue.clone(), heartbeats.clone());
            move |change| {
                let Some(lease) = &change.new else {
                    return;
                };
                let name = lease.metadata.name.as_deref().unwrap_or_default();
                let renewed =
                    lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
                if heartbeats.see(name, Source::Lease, renewed).is_some_and(|silence| silence >= grace) {
                    queue.add(ObjectKey::cluster(name));
                }
            }
        });
        Self { context: context.clone(), queue, heartbeats, pace: Pace::default(), grace }
    }

    async fn look(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(node) = self.context.caches.nodes.get(key) else {
            return Ok(Outcome::Done);
        };
        let grace = match readiness(&node) {
            Readiness::Unsaid => self.grace.max(STARTUP_GRACE),
            _ => self.grace,
        };
        let silence = self.heartbeats.silence(&key.name);
        let mut next = None;
        let mut node = node;
        if silence >= grace {
            node = match self.silence(&node).await? {
                Some(silenced) => Arc::new(silenced),
                None => return Ok(Outcome::Done),
            };
        } else {
            next = Some(grace.saturating_sub(silence));
        }
        let wait = self.taint(&node).await?;
        if readiness(&node) != Readiness::Ready {
            self.mark_pods(&node).await?;
        }
        Ok(Outcome::after(next.into_iter().chain(wait).min()))
    }

    /// Shows that nobody hears of the node. `None` when it is gone.
    async fn silence(&self, node: &Node) -> Result<Option<Node>, Error> {
        let now = Timestamp::now();
        let silenced = silenced(node, now);
        let api = Api::<Node>::all(self.context.client.clone());
        let written = match patch::update(&api, Half::Status, node, &silenced).await {
            Err(error) if error.is_not_found() => return Ok(None),
            written => written?,
        };
        if written.is_some() {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            tracing::warn!(node = name, "node is not heard of");
            if readiness(node) == Readiness::Ready {
                self.event(node, NODE_NOT_READY, format!("Node {name} status is now: NodeNotReady"));
            }
        }
        Ok(Some(written.unwrap_or(silenced)))
    }

    /// Brings the taints in line; how long to wait for the zone's turn, if it has to.
    async fn taint(&self, node: &Node) -> Result<Option<Duration>, Error> {
        let (eviction, wait) = self.eviction(node);
        let planned = taints::plan(node, eviction, Timestamp::now());
        let mut desired = node.clone();
        let spec = desired.spec.get_or_insert_default();
        if spec.taints.as_deref().unwrap_or_default() != planned.as_slice() {
            spec.taints = Some(planned).filter(|taints| !taints.is_empty());
        }
        let api = Api::<Node>::all(self.context.client.clone());
        match patch::update(&api, Half::Main, node, &desired).await {
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => {
                if eviction == Eviction::Allowed && !taints::evicts(node) {
                    self.pace.give_back(&zone_of(node), Instant::now());
                }
                Err(error)
            }
            Ok(_) => Ok(wait),
        }
    }

    fn eviction(&self, node: &Node) -> (Eviction, Option<Duration>) {
        let Some(key) = evicting(readiness(node)) else {
            return (Eviction::Later, None);
        };
        // The cache may not show yet what was just written about this node.
        let others = self.context.caches.nodes.all();
        let others = others.iter().filter(|other| other.metadata.name != node.metadata.name);
        let zones = zones::count(others.map(AsRef::as_ref).chain([node]));
        let zone = zone_of(node);
        match zones::pause(&zones, &zone) {
            Err(eviction) => (eviction, None),
            Ok(_) if taints::has(node, key, NO_EXECUTE) => (Eviction::Allowed, None),
            Ok(pause) => match self.pace.take(zone, pause, Instant::now()) {
                Ok(()) => (Eviction::Allowed, None),
                Err(wait) => (Eviction::Later, Some(wait)),
            },
        }
    }

    /// Takes the node's pods out of service: whoever probed them is not heard of, or says that nothing runs there.
    async fn mark_pods(&self, node: &Node) -> Result<(), Error> {
        let Some(ready) = condition(node, NODE_READY) else {
            return Ok(());
        };
        // Nobody is heard of: no pod there is known to be ready, whatever its agent's clock said. An agent that says
        // NotReady itself may have called a pod ready since; it knows better.
        let silent = readiness(node) == Readiness::Unknown;
        let since = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
        for pod in self.context.caches.pods.indexed(node.metadata.name.as_deref().unwrap_or_default()) {
            if pod::ready_since(&pod).is_some_and(|ready| silent || ready <= since) {
                self.mark_pod(&pod).await?;
            }
        }
        Ok(())
    }

    async fn mark_pod(&self, pod: &Pod) -> Result<(), Error> {
        let mut marked = pod.clone();
        let conditions = marked.status.get_or_insert_default().conditions.get_or_insert_default();
        for ready in conditions.iter_mut().filter(|condition| is_true(condition)) {
            ready.status = FALSE.to_owned();
            ready.last_transition_time = Some(Time(Timestamp::now()));
        }
        let api = self.context.api::<Pod>(pod.metadata.namespace.as_deref().unwrap_or_default());
        match patch::update(&api, Half::Status, pod, &marked).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                self.context.record(
                    ControllerName::NodeLifecycle,
                    pod,
                    Severity::Warning,
                    NODE_NOT_READY,
                    "Node is not ready".to_owned(),
                );
                Ok(())
            }
        }
    }

    fn event(&self, node: &Node, reason: &'static str, message: String) {
        self.context.record(ControllerName::NodeLifecycle, node, Severity::Normal, reason, message);
    }
}

impl Controller for NodeLifecycle {
    fn reconcile(&self, key: ObjectKey) -> BoxFuture<'_, Result<Outcome, Error>> {
        async move { self.look(&key).await }.boxed()
    }

    fn enqueue_all(&self) {
        self.queue.add_all(&self.context.caches.nodes);
    }
}

fn is_true(condition: &PodCondition) -> bool {
    condition.type_ == POD_READY && condition.status == TRUE
}

fn observe_node(queue: &ControllerQueue, heartbeats: &Heartbeats, context: &Context, change: &Change<Node>) {
    let Some(node) = &change.new else {
        if let Some(old) = &change.old {
            let name = old.metadata.name.as_deref().unwrap_or_default();
            heartbeats.forget(name);
            tell_node(
                context,
                old,
                "RemovingNode",
                format!("Node {name} event: Removing Node {name} from Controller"),
            );
        }
        return;
    };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    heartbeats.see(name, Source::Status, heartbeat(node));
    if change.old.is_none() {
        tell_node(
            context,
            node,
            REGISTERED,
            format!("Node {name} event: Registered Node {name} in Controller"),
        );
    }
    queue.add(ObjectKey::of(node.as_ref()));
    // With one node's readiness the state of its zone changes, and with it what may be done about the others.
    if change.old.as_ref().is_none_or(|old| readiness(old) != readiness(node)) {
        enqueue_not_ready(queue, &context.caches);
    }
}

fn enqueue_not_ready(queue: &ControllerQueue, caches: &Caches) {
    for node in caches.nodes.all() {
        if readiness(&node) != Readiness::Ready {
            queue.add(ObjectKey::of(node.as_ref()));
        }
    }
}

fn tell_node(context: &Context, node: &Node, reason: &'static str, message: String) {
    context.record(ControllerName::NodeLifecycle, node, Severity::Normal, reason, message);
}
