//! On which nodes a DaemonSet's pods belong, and the pods made for them.
//!
//! In: a DaemonSet, a node. Out: whether a pod starts or stays there; the pod. Pure.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity as NodeAffinityApi, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    Pod, PodSpec, Toleration,
};
use xebec_api::node_affinity::{NodeAffinity, NodeFacts};
use xebec_api::tolerations::tolerates;
use xebec_api::wellknown::labels::CONTROLLER_REVISION_HASH;
use xebec_api::wellknown::taints::{
    DISK_PRESSURE, MEMORY_PRESSURE, NETWORK_UNAVAILABLE, NO_EXECUTE, NO_SCHEDULE, NOT_READY, PID_PRESSURE,
    UNREACHABLE, UNSCHEDULABLE,
};

use crate::owner::controller_reference;
use crate::pod_template::pod_from;

const NODE_NAME_FIELD: &str = "metadata.name";

/// What the DaemonSet wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A pod belongs there.
    Run,
    /// None is started, one that runs may stay.
    Keep,
    Leave,
}

/// What every pod of a DaemonSet tolerates: it is to run where and when others do not.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let exists = |key: &str, effect: &str| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    let mut added = vec![
        exists(NOT_READY, NO_EXECUTE),
        exists(UNREACHABLE, NO_EXECUTE),
        exists(DISK_PRESSURE, NO_SCHEDULE),
        exists(MEMORY_PRESSURE, NO_SCHEDULE),
        exists(PID_PRESSURE, NO_SCHEDULE),
        exists(UNSCHEDULABLE, NO_SCHEDULE),
    ];
    if spec.host_network == Some(true) {
        added.push(exists(NETWORK_UNAVAILABLE, NO_SCHEDULE));
    }
    let mut all = spec.tolerations.clone().unwrap_or_default();
    for toleration in added {
        all.retain(|known| !(known.key == toleration.key && known.effect == toleration.effect));
        all.push(toleration);
    }
    all
}

pub(crate) fn place(set: &DaemonSet, node: &Node) -> Place {
    let Some(spec) = &set.spec.template.spec else {
        return Place::Leave;
    };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let elsewhere = spec.node_name.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != name);
    let labels = node.metadata.labels.clone().unwrap_or_default();
    if elsewhere || !NodeAffinity::of(spec).matches(&NodeFacts { name, labels: &labels }) {
        return Place::Leave;
    }
    let tolerated = tolerations(spec);
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut untolerated =
        taints.filter(|taint| !tolerates(&tolerated, taint)).map(|taint| taint.effect.as_str());
    if untolerated.clone().any(|effect| effect == NO_EXECUTE) {
        Place::Leave
    } else if untolerated.any(|effect| effect == NO_SCHEDULE) {
        Place::Keep
    } else {
        Place::Run
    }
}

/// The pod for one node. The scheduler binds it: only it knows what else the node is about to get.
pub(crate) fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let mut pod = pod_from(&set.spec.template, &controller_reference(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(CONTROLLER_REVISION_HASH.to_owned(), hash.to_owned());
    if let Some(spec) = &mut pod.spec {
        spec.tolerations = Some(tolerations(spec));
        pin(spec, node);
    }
    pod
}

/// Ties the pod to the node. The terms that chose it are met, and would only stand in the way.
fn pin(spec: &mut PodSpec, node: &str) {
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NODE_NAME_FIELD.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        match_expressions: None,
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinityApi = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node a pod is on, or meant for.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    if let Some(name) = crate::pod::bound_to(pod) {
        return Some(name);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    required.node_selector_terms.iter().find_map(|term| {
        let field = term.match_fields.as_ref()?.first()?;
        let values = field.values.as_deref()?;
        (field.key == NODE_NAME_FIELD && field.operator == "In" && values.len() == 1)
            .then(|| values[0].as_str())
    })
}
