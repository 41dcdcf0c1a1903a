//! All nodes, as columns: what filters and scores walk through.
//!
//! In: Nodes, and pods placed on or taken off them. Out: one array for each thing a plugin asks about, indexed by row;
//! bit sets for yes-or-no facts. A scheduling cycle runs on one thread between two changes, so the table itself is the
//! cycle's snapshot: nothing is copied. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use xebec_api::Quantity;
use xebec_api::wellknown::taints::{NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE};

use crate::columns::Columns;
use crate::node_set::{NodeSet, Row};
use crate::pod_info::{PodInfo, PodUid};
use crate::ports::HostPort;
use crate::resources::Resources;
use crate::spread::SpreadCounts;
use crate::term_counts::TermCounts;
use xebec_api::node_affinity::NodeFacts;

/// The nodes and what runs on them.
#[derive(Debug, Default)]
pub(crate) struct NodeTable {
    rows: HashMap<Arc<str>, Row>,
    free: Vec<Row>,
    /// Rows whose Node object exists; a row without it only remembers pods bound to a node not seen yet or gone.
    pub(crate) live: NodeSet,
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) labels: Vec<Arc<BTreeMap<String, String>>>,
    /// Cordoned.
    pub(crate) unschedulable: NodeSet,
    pub(crate) taints: Vec<Arc<[Taint]>>,
    /// Has a taint that keeps pods off.
    pub(crate) tainted: NodeSet,
    /// Has a taint that pods rather avoid.
    pub(crate) softly_tainted: NodeSet,
    pub(crate) allocatable: Columns,
    pub(crate) allowed_pods: Vec<i64>,
    pub(crate) requested: Columns,
    /// CPU and memory as scoring counts them.
    pub(crate) requested_nonzero: Columns,
    pub(crate) pods: Vec<HashMap<PodUid, Arc<PodInfo>>>,
    pub(crate) images: HashMap<String, Image>,
    row_images: Vec<Vec<String>>,
    pub(crate) spread: SpreadCounts,
    pub(crate) terms: TermCounts,
}

/// An image that some nodes hold.
#[derive(Debug, Default)]
pub(crate) struct Image {
    pub(crate) size: i64,
    pub(crate) nodes: NodeSet,
}

/// How an update of a node matters to pods that found no place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeChange {
    pub(crate) added: bool,
    pub(crate) allocatable: bool,
    pub(crate) labels: bool,
    pub(crate) taints: bool,
}

impl NodeTable {
    pub(crate) fn row_of(&self, node: &str) -> Option<Row> {
        self.rows.get(node).copied()
    }

    pub(crate) fn facts(&self, row: Row) -> NodeFacts<'_> {
        NodeFacts { name: &self.names[row], labels: &self.labels[row] }
    }

    pub(crate) fn host_ports(&self, row: Row) -> impl Iterator<Item = &HostPort> {
        self.pods[row].values().flat_map(|pod| &pod.host_ports)
    }

    /// Takes a new or changed node in.
    pub(crate) fn put_node(&mut self, node: &Node) -> NodeChange {
        let row = self.row_for(node.metadata.name.as_deref().unwrap_or_default());
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.clone().unwrap_or_default();
        let taints: Arc<[Taint]> = spec.taints.unwrap_or_default().into();
        let labels = Arc::new(node.metadata.labels.clone().unwrap_or_default());
        let unschedulable = spec.unschedulable == Some(true);
        let list = status.allocatable.as_ref().or(status.capacity.as_ref());
        let amounts = Resources::of(list);
        let pods = list.and_then(|list| list.get("pods")).and_then(|pods| Quantity::parse(&pods.0).ok());
        let pods = pods.map_or(0, Quantity::value);

        let change = NodeChange {
            added: !self.live.contains(row),
            allocatable: self.allowed_pods[row] != pods || self.allocatable.differs(row, &amounts),
            labels: self.labels[row] != labels,
            taints: self.taints[row] != taints || self.unschedulable.contains(row) != unschedulable,
        };
        self.live.set(row, true);
        self.unschedulable.set(row, unschedulable);
        let has = |effects: &[&str]| taints.iter().any(|taint| effects.contains(&taint.effect.as_str()));
        self.tainted.set(row, has(&[NO_SCHEDULE, NO_EXECUTE]));
        self.softly_tainted.set(row, has(&[PREFER_NO_SCHEDULE]));
        self.taints[row] = taints;
        self.labels[row] = labels;
        self.allocatable.replace(row, &amounts);
        self.allowed_pods[row] = pods;
        self.put_images(
            row,
            status
                .images
                .unwrap_or_default()
                .into_iter()
                .map(|image| (image.names.unwrap_or_default(), image.size_bytes.unwrap_or(0))),
        );
        change
    }

    /// Forgets a node; its pods stay known until they go themselves.
    pub(crate) fn remove_node(&mut self, name: &str) {
        let Some(row) = self.row_of(name) else {
            return;
        };
        self.live.set(row, false);
        self.put_images(row, std::iter::empty());
        self.release_if_empty(row);
    }

    /// Counts a pod on a node, which need not be known yet.
    pub(crate) fn place(&mut self, pod: &Arc<PodInfo>, node: &str) {
        let row = self.row_for(node);
        if self.pods[row].insert(pod.uid.clone(), pod.clone()).is_none() {
            self.requested.add(row, &pod.requests);
            self.requested_nonzero.add(row, &pod.requests_nonzero);
            self.spread.place(pod, row);
            self.terms.place(pod, row);
        }
    }

    /// Takes in news of a pod on its node. False, and nothing done, when it counts differently now.
    pub(crate) fn renew(&mut self, pod: &Arc<PodInfo>, node: &str) -> bool {
        let known = self.row_of(node).and_then(|row| self.pods[row].get_mut(&pod.uid));
        let Some(known) = known.filter(|known| known.counts_like(pod)) else {
            return false;
        };
        *known = pod.clone();
        true
    }

    /// Takes a pod off its node.
    pub(crate) fn displace(&mut self, uid: &PodUid, node: &str) {
        let Some(row) = self.row_of(node) else {
            return;
        };
        let Some(pod) = self.pods[row].remove(uid) else {
            return;
        };
        self.requested.subtract(row, &pod.requests);
        self.requested_nonzero.subtract(row, &pod.requests_nonzero);
        self.spread.displace(&pod, row);
        self.terms.displace(&pod, row);
        self.release_if_empty(row);
    }

    fn put_images(&mut self, row: Row, images: impl Iterator<Item = (Vec<String>, i64)>) {
        for name in std::mem::take(&mut self.row_images[row]) {
            if let Some(image) = self.images.get_mut(&name) {
                image.nodes.set(row, false);
                if image.nodes.is_empty() {
                    self.images.remove(&name);
                }
            }
        }
        for (names, size) in images {
            for name in names {
                let image = self.images.entry(name.clone()).or_default();
                image.size = size;
                image.nodes.set(row, true);
                self.row_images[row].push(name);
            }
        }
    }

    fn row_for(&mut self, name: &str) -> Row {
        if let Some(row) = self.row_of(name) {
            return row;
        }
        let name: Arc<str> = name.into();
        let row = match self.free.pop() {
            Some(row) => {
                self.names[row] = name.clone();
                row
            }
            None => self.grow(name.clone()),
        };
        self.rows.insert(name, row);
        row
    }

    fn grow(&mut self, name: Arc<str>) -> Row {
        self.names.push(name);
        self.labels.push(Arc::default());
        self.taints.push(Arc::new([]));
        self.allocatable.grow();
        self.allowed_pods.push(0);
        self.requested.grow();
        self.requested_nonzero.grow();
        self.pods.push(HashMap::new());
        self.row_images.push(Vec::new());
        self.names.len() - 1
    }

    fn release_if_empty(&mut self, row: Row) {
        if self.live.contains(row) || !self.pods[row].is_empty() {
            return;
        }
        self.rows.remove(&self.names[row]);
        self.labels[row] = Arc::default();
        self.taints[row] = Arc::new([]);
        for set in [&mut self.unschedulable, &mut self.tainted, &mut self.softly_tainted] {
            set.set(row, false);
        }
        for columns in [&mut self.allocatable, &mut self.requested, &mut self.requested_nonzero] {
            columns.clear(row);
        }
        self.allowed_pods[row] = 0;
        self.spread.clear(row);
        self.free.push(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{node, pod};
    use serde_json::json;

    #[test]
    fn table_counts_pods_and_frees_the_row_when_nothing_is_left() {
        let mut table = NodeTable::default();
        let pod = Arc::new(pod(
            "p",
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}),
        ));
        // The pod's event may come before its node's.
        table.place(&pod, "n1");
        table.place(&pod, "n1");
        let row = table.row_of("n1").unwrap();
        assert!(!table.live.contains(row));
        let change =
            table.put_node(&node("n1", &json!({"cpu": "4", "pods": "10", "a.b/c": "2"}), &json!({})));
        assert!(change.added);
        assert_eq!((table.requested.milli_cpu[row], table.allocatable.milli_cpu[row]), (1000, 4000));
        assert_eq!((table.allocatable.scalar("a.b/c", row), table.allowed_pods[row]), (2, 10));

        table.remove_node("n1");
        assert_eq!(table.row_of("n1"), Some(row), "the pod still counts");
        table.displace(&pod.uid, "n1");
        assert_eq!(table.row_of("n1"), None);
        let other = table.put_node(&node("n2", &json!({"pods": "1"}), &json!({})));
        assert!(other.added);
        assert_eq!(table.row_of("n2"), Some(row), "rows are used again");
        assert_eq!((table.requested.milli_cpu[row], table.allocatable.scalar("a.b/c", row)), (0, 0));
    }

    #[test]
    fn node_updates_say_what_changed() {
        let mut table = NodeTable::default();
        let base = || node("n", &json!({"cpu": "4"}), &json!({}));
        table.put_node(&base());
        assert_eq!(table.put_node(&base()), NodeChange::default());
        assert!(table.put_node(&node("n", &json!({"cpu": "5"}), &json!({}))).allocatable);
        let mut cordoned = base();
        cordoned.spec.get_or_insert_default().unschedulable = Some(true);
        assert!(table.put_node(&cordoned).taints);
        let mut labelled = base();
        labelled.metadata.labels = Some(BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        let change = table.put_node(&labelled);
        assert!(change.labels && change.taints && !change.added);
    }
}
