//! How many pods of a group run on each node, kept as pods come and go.
//!
//! In: pods placed and displaced; groups asked for. Out: one counter for each group and row, so that spreading a pod
//! costs a look at the nodes and never a scan of the pods. Bounded: the groups used least recently are dropped and
//! counted anew when asked for again. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use xebec_api::labels::Selector;

use crate::node_set::Row;
use crate::pod_affinity::Meant;
use crate::pod_info::{PodInfo, PodUid};

/// Groups counted at once.
const CAPACITY: usize = 512;

/// Which pods count together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Group {
    /// Pods of one controlling owner.
    Controller { namespace: String, uid: String },
    /// Pods of one namespace that all these selectors match.
    Selected { namespace: String, selectors: Vec<Selector> },
    /// Pods that all of these terms mean. Pods that leave still count: they are there until they are gone.
    Meant(Vec<Meant>),
}

impl Group {
    pub(crate) fn holds(&self, pod: &PodInfo) -> bool {
        match self {
            Self::Controller { namespace, uid } => {
                pod.namespace == *namespace && pod.controller.as_ref().is_some_and(|(_, owner)| owner == uid)
            }
            Self::Selected { namespace, selectors } => {
                pod.namespace == *namespace && selectors.iter().all(|selector| selector.matches(&pod.labels))
            }
            Self::Meant(terms) => terms.iter().all(|term| term.holds(pod)),
        }
    }
}

/// The counters of all groups asked for lately.
#[derive(Debug, Default)]
pub(crate) struct SpreadCounts {
    groups: HashMap<Group, Counter>,
    uses: u64,
}

#[derive(Debug, Default)]
struct Counter {
    rows: Vec<u32>,
    used: u64,
}

impl Counter {
    fn at(&mut self, row: Row) -> &mut u32 {
        if row >= self.rows.len() {
            self.rows.resize(row + 1, 0);
        }
        &mut self.rows[row]
    }
}

impl SpreadCounts {
    /// Pods of `group` on a row. The group must have been asked for with [`Self::ensure`] in this cycle.
    pub(crate) fn count(&self, group: &Group, row: Row) -> i64 {
        let counter = self.groups.get(group);
        counter.and_then(|counter| counter.rows.get(row)).copied().unwrap_or(0).into()
    }

    /// Starts counting `group` unless it is counted already.
    pub(crate) fn ensure(&mut self, group: &Group, pods: &[HashMap<PodUid, Arc<PodInfo>>]) {
        self.uses += 1;
        if let Some(counter) = self.groups.get_mut(group) {
            counter.used = self.uses;
            return;
        }
        if self.groups.len() >= CAPACITY {
            let oldest =
                self.groups.iter().min_by_key(|(_, counter)| counter.used).map(|(group, _)| group.clone());
            oldest.into_iter().for_each(|group| drop(self.groups.remove(&group)));
        }
        let mut counter = Counter { rows: Vec::new(), used: self.uses };
        for (row, pods) in pods.iter().enumerate() {
            for pod in pods.values().filter(|pod| counts(group, pod)) {
                debug_assert!(!pod.terminal);
                *counter.at(row) += 1;
            }
        }
        self.groups.insert(group.clone(), counter);
    }

    pub(crate) fn place(&mut self, pod: &PodInfo, row: Row) {
        for (group, counter) in &mut self.groups {
            if counts(group, pod) {
                *counter.at(row) += 1;
            }
        }
    }

    pub(crate) fn displace(&mut self, pod: &PodInfo, row: Row) {
        for (group, counter) in &mut self.groups {
            if counts(group, pod) {
                let count = counter.at(row);
                *count = count.saturating_sub(1);
            }
        }
    }

    pub(crate) fn clear(&mut self, row: Row) {
        for counter in self.groups.values_mut() {
            *counter.at(row) = 0;
        }
    }
}

/// To spreading a pod on its way out makes room: it does not count.
fn counts(group: &Group, pod: &PodInfo) -> bool {
    (!pod.terminating || matches!(group, Group::Meant(_))) && group.holds(pod)
}

/// The selectors of Services, by namespace: pods that share one are spread by default.
#[derive(Debug, Default)]
pub(crate) struct ServiceSelectors {
    namespaces: HashMap<String, BTreeMap<String, Selector>>,
}

impl ServiceSelectors {
    /// Takes a Service's selector in; `None` when the Service is gone or has none.
    pub(crate) fn put(&mut self, namespace: &str, service: &str, selector: Option<Selector>) {
        let services = self.namespaces.entry(namespace.to_owned()).or_default();
        match selector {
            Some(selector) => drop(services.insert(service.to_owned(), selector)),
            None => drop(services.remove(service)),
        }
        if services.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    /// The group a pod is spread with when it names no constraints itself: its controller's pods, else the pods of the
    /// Services it belongs to.
    pub(crate) fn default_group(&self, pod: &PodInfo) -> Option<Group> {
        if let Some((kind, uid)) = &pod.controller
            && matches!(kind.as_str(), "ReplicaSet" | "ReplicationController" | "StatefulSet")
        {
            return Some(Group::Controller { namespace: pod.namespace.clone(), uid: uid.clone() });
        }
        let services = self.namespaces.get(&pod.namespace)?.values();
        let selectors: Vec<Selector> =
            services.filter(|selector| selector.matches(&pod.labels)).cloned().collect();
        (!selectors.is_empty()).then(|| Group::Selected { namespace: pod.namespace.clone(), selectors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{pod, pod_with};
    use serde_json::json;

    #[test]
    fn counters_follow_pods_and_ignore_those_that_leave() {
        let group = Group::Selected {
            namespace: "a".to_owned(),
            selectors: vec![Selector::parse("app=web").unwrap()],
        };
        let web = |name: &str, extra: serde_json::Value| {
            let mut metadata = json!({"labels": {"app": "web"}});
            metadata.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            pod_with(name, metadata, json!({}))
        };
        let mut counts = SpreadCounts::default();
        let first = Arc::new(web("x", json!({})));
        counts.ensure(&group, &[HashMap::new(), HashMap::from([(first.uid.clone(), first.clone())])]);
        counts.place(&web("y", json!({})), 1);
        counts.place(&web("z", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})), 1);
        counts.place(&pod("other", json!({})), 1);
        assert_eq!((counts.count(&group, 0), counts.count(&group, 1)), (0, 2));
        counts.displace(&first, 1);
        assert_eq!(counts.count(&group, 1), 1);
        counts.clear(1);
        assert_eq!(counts.count(&group, 1), 0);
    }

    #[test]
    fn default_group_is_the_controller_else_the_services() {
        let mut services = ServiceSelectors::default();
        services.put("a", "s", Some(Selector::parse("app=web").unwrap()));
        let owned = |kind: &str| {
            pod_with(
                "p",
                json!({
                    "labels": {"app": "web"},
                    "ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u", "controller": true}],
                }),
                json!({}),
            )
        };
        assert!(matches!(services.default_group(&owned("ReplicaSet")), Some(Group::Controller { .. })));
        assert!(matches!(services.default_group(&owned("DaemonSet")), Some(Group::Selected { .. })));
        services.put("a", "s", None);
        assert_eq!(services.default_group(&owned("DaemonSet")), None);
    }

    #[test]
    fn groups_used_least_recently_make_room() {
        let mut counts = SpreadCounts::default();
        let group = |n: usize| Group::Controller { namespace: "a".to_owned(), uid: n.to_string() };
        for n in 0..=CAPACITY {
            counts.ensure(&group(0), &[]);
            counts.ensure(&group(n), &[]);
        }
        assert_eq!(counts.groups.len(), CAPACITY);
        assert!(counts.groups.contains_key(&group(0)) && !counts.groups.contains_key(&group(1)));
    }
}
