//! What a node's status says of its health, and what it says once nobody hears of the node.
//!
//! In: a node. Out: its readiness; the conditions of a silent node. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use xebec_api::wellknown::conditions::{
    DISK_PRESSURE, FALSE, MEMORY_PRESSURE, NODE_READY, PID_PRESSURE, TRUE, UNKNOWN,
};
use xebec_api::wellknown::reasons::node::STATUS_UNKNOWN;

/// Reason of all conditions of a node whose agent never said anything.
const NEVER_UPDATED: &str = "NodeStatusNeverUpdated";

/// What the Ready condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// The agent itself says so.
    NotReady,
    /// The agent has not been heard of.
    Unknown,
    /// The agent has not said anything yet.
    Unsaid,
}

pub(crate) fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

pub(crate) fn readiness(node: &Node) -> Readiness {
    match condition(node, NODE_READY).map(|ready| ready.status.as_str()) {
        Some(TRUE) => Readiness::Ready,
        Some(FALSE) => Readiness::NotReady,
        Some(_) => Readiness::Unknown,
        None => Readiness::Unsaid,
    }
}

/// The agent's own sign of life in the status.
pub(crate) fn heartbeat(node: &Node) -> Option<Timestamp> {
    condition(node, NODE_READY)?.last_heartbeat_time.as_ref().map(|time| time.0)
}

/// The node as it is shown once its agent is not heard of: nobody can tell its health.
pub(crate) fn silenced(node: &Node, now: Timestamp) -> Node {
    let mut silenced = node.clone();
    let conditions = silenced.status.get_or_insert_default().conditions.get_or_insert_default();
    for type_ in [NODE_READY, MEMORY_PRESSURE, DISK_PRESSURE, PID_PRESSURE] {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(known) if known.status == UNKNOWN => {}
            Some(known) => {
                known.status = UNKNOWN.to_owned();
                known.reason = Some(STATUS_UNKNOWN.to_owned());
                known.message = Some("Kubelet stopped posting node status.".to_owned());
                known.last_transition_time = Some(Time(now));
            }
            None => conditions.push(NodeCondition {
                type_: type_.to_owned(),
                status: UNKNOWN.to_owned(),
                reason: Some(NEVER_UPDATED.to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    silenced
}
