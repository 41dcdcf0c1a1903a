//! Node selectors, compiled once for a pod and matched against many nodes.
//!
//! In: `nodeSelector` and `nodeAffinity`. Out: whether a node matches; the weight of what it would be preferred for.
//! Pure.

use std::collections::BTreeMap;

use crate::labels::{Operator, Requirement};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// What a matcher looks at on a node.
pub struct NodeFacts<'a> {
    /// The node's name.
    pub name: &'a str,
    /// The node's labels.
    pub labels: &'a BTreeMap<String, String>,
}

/// A pod's wishes about its node.
#[derive(Clone, Debug, Default)]
pub struct NodeAffinity {
    selector: Vec<(String, String)>,
    /// At least one must match; `None` = no such demand.
    required: Option<Vec<Term>>,
    preferred: Vec<(i64, Term)>,
}

/// All of these must hold. A term without any holds for no node.
#[derive(Clone, Debug, Default)]
struct Term {
    /// `None` stands for a requirement that cannot be read: it holds for no node.
    labels: Vec<Option<Requirement>>,
    names: Vec<NameRequirement>,
}

/// `matchFields`: only `metadata.name` exists.
#[derive(Clone, Debug)]
enum NameRequirement {
    Is(String),
    IsNot(String),
    Unreadable,
}

impl NodeAffinity {
    /// What the pod demands and prefers.
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred =
            affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        Self {
            selector: spec.node_selector.clone().unwrap_or_default().into_iter().collect(),
            required: required.map(|required| required.node_selector_terms.iter().map(Term::of).collect()),
            preferred: preferred
                .into_iter()
                .flatten()
                .filter(|term| term.weight != 0)
                .map(|term| (i64::from(term.weight), Term::of(&term.preference)))
                .collect(),
        }
    }

    /// There is nothing to demand.
    pub fn demands_nothing(&self) -> bool {
        self.selector.is_empty() && self.required.is_none()
    }

    /// There is nothing to prefer.
    pub fn prefers_nothing(&self) -> bool {
        self.preferred.is_empty()
    }

    /// The only nodes that can match, when the pod names them.
    pub fn named_nodes(&self) -> Option<Vec<&str>> {
        let terms = self.required.as_ref().filter(|terms| !terms.is_empty())?;
        terms
            .iter()
            .map(|term| {
                term.names.iter().find_map(|name| match name {
                    NameRequirement::Is(name) => Some(name.as_str()),
                    NameRequirement::IsNot(_) | NameRequirement::Unreadable => None,
                })
            })
            .collect()
    }

    /// The node meets every demand.
    pub fn matches(&self, node: &NodeFacts<'_>) -> bool {
        self.selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
    }

    /// The weights of all preferences the node meets.
    pub fn preference(&self, node: &NodeFacts<'_>) -> i64 {
        self.preferred.iter().filter(|(_, term)| term.matches(node)).map(|(weight, _)| weight).sum()
    }
}

impl Term {
    fn of(term: &NodeSelectorTerm) -> Self {
        Self {
            labels: term.match_expressions.iter().flatten().map(label_requirement).collect(),
            names: term.match_fields.iter().flatten().map(NameRequirement::of).collect(),
        }
    }

    fn matches(&self, node: &NodeFacts<'_>) -> bool {
        let empty = self.labels.is_empty() && self.names.is_empty();
        !empty
            && self.labels.iter().all(|label| label.as_ref().is_some_and(|label| label.matches(node.labels)))
            && self.names.iter().all(|name| name.matches(node.name))
    }
}

fn label_requirement(expression: &NodeSelectorRequirement) -> Option<Requirement> {
    let operator = Operator::from_api(&expression.operator)?;
    Requirement::new(&expression.key, operator, expression.values.clone().unwrap_or_default()).ok()
}

impl NameRequirement {
    fn of(expression: &NodeSelectorRequirement) -> Self {
        let values = expression.values.as_deref().unwrap_or_default();
        match (expression.key.as_str(), expression.operator.as_str(), values) {
            ("metadata.name", "In", [name]) => Self::Is(name.clone()),
            ("metadata.name", "NotIn", [name]) => Self::IsNot(name.clone()),
            _ => Self::Unreadable,
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Is(wanted) => wanted == name,
            Self::IsNot(unwanted) => unwanted != name,
            Self::Unreadable => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn affinity(spec: &Value) -> NodeAffinity {
        let mut spec = spec.clone();
        spec["containers"] = json!([]);
        NodeAffinity::of(&serde_json::from_value(spec).unwrap())
    }

    fn required(terms: &Value) -> NodeAffinity {
        affinity(&json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}
        }}}))
    }

    fn on_node(affinity: &NodeAffinity) -> bool {
        let labels =
            BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "8".to_owned())]);
        affinity.matches(&NodeFacts { name: "n1", labels: &labels })
    }

    #[test]
    fn node_selector_and_every_operator_match_as_upstream() {
        let expression = |key: &str, operator: &str, values: &[&str]| json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
        let cases = [
            (affinity(&json!({"nodeSelector": {"zone": "a"}})), true),
            (affinity(&json!({"nodeSelector": {"zone": "b"}})), false),
            (affinity(&json!({})), true),
            (required(&expression("zone", "In", &["b", "a"])), true),
            (required(&expression("zone", "NotIn", &["a"])), false),
            (required(&expression("rack", "NotIn", &["a"])), true),
            (required(&expression("zone", "Exists", &[])), true),
            (required(&expression("zone", "DoesNotExist", &[])), false),
            (required(&expression("cores", "Gt", &["7"])), true),
            (required(&expression("cores", "Lt", &["8"])), false),
            (required(&expression("zone", "Near", &["a"])), false),
            (required(&json!([{}])), false),
            (required(&json!([])), false),
            (required(&json!([{}, {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}])), true),
            (
                required(
                    &json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]),
                ),
                true,
            ),
            (
                required(
                    &json!([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}]),
                ),
                false,
            ),
        ];
        for (position, (affinity, expected)) in cases.iter().enumerate() {
            assert_eq!(on_node(affinity), *expected, "case {position}");
        }
    }

    #[test]
    fn named_nodes_are_known_only_if_every_term_names_one() {
        let name = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        assert_eq!(required(&json!([name("a"), name("b")])).named_nodes(), Some(vec!["a", "b"]));
        let open = json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]});
        assert_eq!(required(&json!([name("a"), open])).named_nodes(), None);
        assert_eq!(affinity(&json!({})).named_nodes(), None);
    }

    #[test]
    fn preferences_add_their_weights() {
        let term = |weight: i32, value: &str| json!({"weight": weight, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": [value]}]}});
        let affinity = affinity(&json!({"affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [term(5, "a"), term(7, "b"), term(2, "a")]
        }}}));
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        assert_eq!(affinity.preference(&NodeFacts { name: "n", labels: &labels }), 7);
        assert!(!affinity.prefers_nothing() && affinity.demands_nothing());
    }
}
