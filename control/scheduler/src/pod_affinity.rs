//! What a pod wishes about the pods around it.
//!
//! In: `podAffinity` and `podAntiAffinity` of a pod. Out: terms that say which other pods they mean, and over which
//! topology. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PodAffinityTerm, PodSpec};
use xebec_api::labels::{Operator, Requirement, Selector};

use crate::namespaces::Namespaces;
use crate::pod_info::PodInfo;

/// Pods of these namespaces with these labels, within one domain of this topology.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Term {
    namespaces: BTreeSet<String>,
    /// Further namespaces, by their labels.
    namespace_selector: Option<Selector>,
    /// All of these must match.
    selectors: Vec<Selector>,
    pub(crate) topology_key: String,
}

/// The namespaces a term means at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    All,
    Of(BTreeSet<String>),
}

/// A term without its topology, as of now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Meant {
    reach: Reach,
    selectors: Vec<Selector>,
}

/// A pod's terms.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodAffinity {
    pub(crate) required: Vec<Term>,
    pub(crate) required_anti: Vec<Term>,
    /// Weights of anti-affinity are negative.
    pub(crate) preferred: Vec<(i64, Term)>,
}

impl PodAffinity {
    pub(crate) fn of(spec: &PodSpec, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let Some(affinity) = &spec.affinity else {
            return Self::default();
        };
        let of = |term: &PodAffinityTerm| Term::of(term, namespace, labels);
        let mut found = Self::default();
        if let Some(affinity) = &affinity.pod_affinity {
            let required = affinity.required_during_scheduling_ignored_during_execution.iter().flatten();
            found.required = required.map(of).collect();
            for term in affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
                found.preferred.push((i64::from(term.weight), of(&term.pod_affinity_term)));
            }
        }
        if let Some(affinity) = &affinity.pod_anti_affinity {
            let required = affinity.required_during_scheduling_ignored_during_execution.iter().flatten();
            found.required_anti = required.map(of).collect();
            for term in affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
                found.preferred.push((-i64::from(term.weight), of(&term.pod_affinity_term)));
            }
        }
        found
    }
}

impl Term {
    fn of(term: &PodAffinityTerm, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let own = Selector::from_label_selector(term.label_selector.as_ref()).unwrap_or(Selector::Nothing);
        let mut selectors = vec![own];
        let keys = [(&term.match_label_keys, Operator::In), (&term.mismatch_label_keys, Operator::NotIn)];
        for (keys, operator) in keys {
            for key in keys.iter().flatten() {
                let value = labels.get(key).cloned();
                let requirement = value.and_then(|value| Requirement::new(key, operator, vec![value]).ok());
                selectors.extend(requirement.map(|one| Selector::from_requirements(vec![one])));
            }
        }
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        let namespace_selector = term.namespace_selector.as_ref();
        Self {
            namespaces,
            namespace_selector: namespace_selector
                .map(|selector| Selector::from_label_selector(Some(selector)).unwrap_or(Selector::Nothing)),
            selectors,
            topology_key: term.topology_key.clone(),
        }
    }

    /// Which pods the term means as the namespaces are now.
    pub(crate) fn meant(&self, namespaces: &Namespaces) -> Meant {
        let reach = match &self.namespace_selector {
            Some(selector) if selector.is_everything() => Reach::All,
            selector => {
                let mut reach = self.namespaces.clone();
                if let Some(selector) = selector {
                    reach.extend(namespaces.matching(selector).map(str::to_owned));
                }
                Reach::Of(reach)
            }
        };
        Meant { reach, selectors: self.selectors.clone() }
    }

    /// The term means this pod.
    pub(crate) fn means(&self, pod: &PodInfo, namespaces: &Namespaces) -> bool {
        let selected = |selector: &Selector| namespaces.is_matched(&pod.namespace, selector);
        let reached = self.namespaces.contains(&pod.namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|selector| selector.is_everything() || selected(selector));
        reached && self.selectors.iter().all(|selector| selector.matches(&pod.labels))
    }
}

impl Meant {
    pub(crate) fn holds(&self, pod: &PodInfo) -> bool {
        let reached = match &self.reach {
            Reach::All => true,
            Reach::Of(namespaces) => namespaces.contains(&pod.namespace),
        };
        reached && self.selectors.iter().all(|selector| selector.matches(&pod.labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod_with;
    use serde_json::{Value, json};

    fn term(term: &Value) -> Term {
        let mut affinity = pod_with(
            "p",
            json!({"labels": {"rev": "2"}}),
            json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}),
        );
        affinity.pod_affinity.required.remove(0)
    }

    #[test]
    fn term_means_pods_by_label_and_namespace() {
        let mut namespaces = Namespaces::default();
        namespaces.put("b", BTreeMap::from([("team".to_owned(), "x".to_owned())]));
        let web = |namespace: &str, rev: &str| {
            pod_with("q", json!({"namespace": namespace, "labels": {"app": "web", "rev": rev}}), json!({}))
        };
        let selects = json!({"matchLabels": {"app": "web"}});
        let cases = [
            (json!({"topologyKey": "k", "labelSelector": selects}), "a", "1", true),
            (json!({"topologyKey": "k", "labelSelector": selects}), "b", "1", false),
            (json!({"topologyKey": "k", "labelSelector": selects, "namespaces": ["b"]}), "b", "1", true),
            (json!({"topologyKey": "k", "labelSelector": selects, "namespaces": ["b"]}), "a", "1", false),
            (json!({"topologyKey": "k", "labelSelector": selects, "namespaceSelector": {}}), "c", "1", true),
            (
                json!({"topologyKey": "k", "labelSelector": selects,
                    "namespaceSelector": {"matchLabels": {"team": "x"}}}),
                "b",
                "1",
                true,
            ),
            (
                json!({"topologyKey": "k", "labelSelector": selects,
                    "namespaceSelector": {"matchLabels": {"team": "x"}}}),
                "a",
                "1",
                false,
            ),
            (json!({"topologyKey": "k"}), "a", "1", false),
            (json!({"topologyKey": "k", "labelSelector": {}}), "a", "1", true),
            (json!({"topologyKey": "k", "labelSelector": {}, "matchLabelKeys": ["rev"]}), "a", "1", false),
            (json!({"topologyKey": "k", "labelSelector": {}, "matchLabelKeys": ["rev"]}), "a", "2", true),
            (json!({"topologyKey": "k", "labelSelector": {}, "mismatchLabelKeys": ["rev"]}), "a", "2", false),
        ];
        for (given, namespace, rev, expected) in cases {
            let (term, pod) = (term(&given), web(namespace, rev));
            assert_eq!(term.means(&pod, &namespaces), expected, "{given} {namespace} {rev}");
            assert_eq!(term.meant(&namespaces).holds(&pod), expected, "{given} {namespace} {rev}");
        }
    }
}
