//! PodDisruptionBudgets as preemption minds them: not broken where another place will do.
//!
//! In: budgets as the watch tells them. Out: which of some pods cannot go without breaking one. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use xebec_api::labels::Selector;

use crate::pod_info::PodInfo;

/// One budget.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) namespace: String,
    pub(crate) name: String,
    selector: Selector,
    allowed: i64,
    /// Evictions already granted are paid for.
    granted: BTreeSet<String>,
}

/// All budgets, by namespace and name.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    known: HashMap<(String, String), Budget>,
}

impl Budget {
    pub(crate) fn of(budget: &PodDisruptionBudget) -> Self {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let status = budget.status.clone().unwrap_or_default();
        Self {
            namespace: budget.metadata.namespace.clone().unwrap_or_default(),
            name: budget.metadata.name.clone().unwrap_or_default(),
            selector: Selector::from_label_selector(selector).unwrap_or(Selector::Nothing),
            allowed: status.disruptions_allowed.unwrap_or(0).into(),
            granted: status.disrupted_pods.unwrap_or_default().into_keys().collect(),
        }
    }

    fn counts(&self, pod: &PodInfo) -> bool {
        self.namespace == pod.namespace
            && !self.selector.is_everything()
            && self.selector.matches(&pod.labels)
            && !self.granted.contains(&pod.name)
    }
}

impl Budgets {
    pub(crate) fn put(&mut self, budget: Budget) {
        self.known.insert((budget.namespace.clone(), budget.name.clone()), budget);
    }

    pub(crate) fn remove(&mut self, namespace: &str, name: &str) {
        self.known.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// For each of the pods, in their order: whether it breaks a budget if it goes with those before it.
    pub(crate) fn broken(&self, pods: &[Arc<PodInfo>]) -> Vec<bool> {
        let mut left: HashMap<&(String, String), i64> =
            self.known.iter().map(|(key, budget)| (key, budget.allowed)).collect();
        pods.iter()
            .map(|pod| {
                let mut broken = false;
                for (key, _) in self.known.iter().filter(|(_, budget)| budget.counts(pod)) {
                    if let Some(left) = left.get_mut(key) {
                        *left -= 1;
                        broken |= *left < 0;
                    }
                }
                broken
            })
            .collect()
    }
}
