//! A set of fields as `managedFields` spells it.
//!
//! In: `{"f:spec":{"f:replicas":{}}}`. Out: the same, and the operations on sets. A step of a path is kept as it is
//! spelt (`f:name`, `k:{"name":"a"}`, `v:"x"`): equal steps are equal texts, because keys are sorted.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Fields by their first step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    nodes: BTreeMap<String, Node>,
}

/// What a set says of one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The field itself is in the set.
    pub(super) member: bool,
    /// What is in the set below it.
    pub(super) below: FieldSet,
}

// === impl Node ===

impl Node {
    pub(super) fn leaf() -> Self {
        Self { member: true, below: FieldSet::default() }
    }

    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

// === impl FieldSet ===

impl FieldSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn get(&self, step: &str) -> Option<&Node> {
        self.nodes.get(step)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.nodes.iter()
    }

    /// Adds a field with what is below it; nothing is added for an empty node.
    pub(super) fn insert(&mut self, step: String, node: Node) {
        if !node.is_empty() {
            self.nodes.insert(step, node);
        }
    }

    /// Removes a field and everything below it.
    pub(super) fn remove(&mut self, step: &str) {
        self.nodes.remove(step);
    }

    /// Removes fields below a step, but not what is below them.
    pub(super) fn remove_members(&mut self, step: &str, fields: &[&str]) {
        let Some(node) = self.nodes.get_mut(step) else { return };
        node.member = false;
        for field in fields {
            if let Some(inner) = node.below.nodes.get_mut(*field) {
                inner.member = false;
            }
        }
        node.below.nodes.retain(|_, node| !node.is_empty());
        if node.is_empty() {
            self.nodes.remove(step);
        }
    }

    pub(super) fn union(&mut self, other: &Self) {
        for (step, node) in &other.nodes {
            let mine = self.nodes.entry(step.clone()).or_default();
            mine.member |= node.member;
            mine.below.union(&node.below);
        }
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        for (step, node) in &other.nodes {
            let Some(mine) = self.nodes.get_mut(step) else { continue };
            mine.member &= !node.member;
            mine.below.subtract(&node.below);
            if mine.is_empty() {
                self.nodes.remove(step);
            }
        }
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (step, node) in &self.nodes {
            if let Some(theirs) = other.nodes.get(step) {
                let node = Node {
                    member: node.member && theirs.member,
                    below: node.below.intersection(&theirs.below),
                };
                both.insert(step.clone(), node);
            }
        }
        both
    }

    /// The members as people write paths: `.spec.containers[name="a"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, prefix: &str, found: &mut Vec<String>) {
        for (step, node) in &self.nodes {
            let path = format!("{prefix}{}", shown(step));
            if node.member {
                found.push(path.clone());
            }
            node.below.collect(&path, found);
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let nodes = self.nodes.iter().map(|(step, node)| {
            let mut below = node.below.to_json();
            if node.member
                && let Some(fields) = below.as_object_mut().filter(|fields| !fields.is_empty())
            {
                fields.insert(".".into(), Value::Object(Map::new()));
            }
            (step.clone(), below)
        });
        Value::Object(nodes.collect())
    }

    /// What cannot be read owns nothing.
    pub(super) fn from_json(value: &Value) -> Self {
        let mut set = Self::default();
        for (step, below) in value.as_object().into_iter().flatten() {
            if step == "." || !["f:", "k:", "v:", "i:"].iter().any(|kind| step.starts_with(kind)) {
                continue;
            }
            let member =
                below.as_object().is_some_and(|fields| fields.is_empty() || fields.contains_key("."));
            set.insert(step.clone(), Node { member, below: Self::from_json(below) });
        }
        set
    }
}

fn shown(step: &str) -> String {
    let (kind, rest) = step.split_once(':').unwrap_or(("f", step));
    match kind {
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", pairs.join(","))
        }
        "v" => format!("[={rest}]"),
        "i" => format!("[{rest}]"),
        _ => format!(".{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sets_are_spelt_as_upstream_spells_them() {
        let json = json!({"f:spec": {
            "f:replicas": {},
            "f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}},
            "f:finalizers": {"v:\"x\"": {}},
        }});
        let set = FieldSet::from_json(&json);
        assert_eq!(set.to_json(), json);
        assert_eq!(
            set.paths(),
            [
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image",
                ".spec.finalizers[=\"x\"]",
                ".spec.replicas"
            ]
        );
    }

    #[test]
    fn sets_are_added_and_subtracted() {
        let set = |json| FieldSet::from_json(&json);
        let mut a = set(json!({"f:a": {"f:x": {}, "f:y": {}}, "f:b": {}}));
        assert_eq!(
            a.intersection(&set(json!({"f:a": {"f:y": {}, "f:z": {}}}))),
            set(json!({"f:a": {"f:y": {}}}))
        );
        a.subtract(&set(json!({"f:a": {"f:x": {}, "f:y": {}}})));
        assert_eq!(a, set(json!({"f:b": {}})));
        a.union(&set(json!({"f:b": {".": {}, "f:c": {}}})));
        assert_eq!(a, set(json!({"f:b": {".": {}, "f:c": {}}})));
    }
}
