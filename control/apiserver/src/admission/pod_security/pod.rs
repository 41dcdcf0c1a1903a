//! A pod as the rules of Pod Security look at it.
//!
//! In: metadata and spec. Out: containers of all three lists, and words for those that break a rule.

use serde_json::Value;

use crate::meta;

pub(super) struct Pod<'a> {
    pub(super) metadata: &'a Value,
    pub(super) spec: &'a Value,
}

// === impl Pod ===

impl<'a> Pod<'a> {
    pub(super) fn new(metadata: &'a Value, spec: &'a Value) -> Self {
        Self { metadata, spec }
    }

    /// Containers in the order upstream visits them.
    pub(super) fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| spec[list].as_array().into_iter().flatten())
    }

    /// Names of the containers for which something holds, as a sentence's subject.
    pub(super) fn those(&self, breaks: impl Fn(&Value) -> bool) -> Option<String> {
        let names: Vec<&str> = self
            .containers()
            .filter(|container| breaks(container))
            .map(|container| meta::text(container, &["name"]))
            .collect();
        (!names.is_empty()).then(|| subject("container", &names))
    }

    pub(super) fn security(&self, path: &[&str]) -> Option<&'a Value> {
        let context = meta::at(self.spec, &["securityContext"])?;
        meta::at(context, path)
    }

    /// The pod has a user namespace of its own: its root is nobody on the node.
    pub(super) fn has_user_namespace(&self) -> bool {
        meta::at(self.spec, &["hostUsers"]) == Some(&Value::Bool(false))
    }

    pub(super) fn is_windows(&self) -> bool {
        meta::text(self.spec, &["os", "name"]) == "windows"
    }
}

/// `container "a"` or `containers "a", "b"`.
pub(super) fn subject(noun: &str, names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("{noun}{plural} {}", quoted.join(", "))
}

/// Something in a container's security context.
pub(super) fn security<'v>(container: &'v Value, path: &[&str]) -> Option<&'v Value> {
    let context = meta::at(container, &["securityContext"])?;
    meta::at(context, path)
}

/// Texts, each once and sorted, in quotes.
pub(super) fn quoted<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let set: std::collections::BTreeSet<&str> = texts.into_iter().collect();
    let quoted: Vec<String> = set.iter().map(|text| format!("{text:?}")).collect();
    quoted.join(", ")
}
