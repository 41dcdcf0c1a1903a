//! Scopes: quotas that count some pods only.
//!
//! In: a quota, a pod. Out: whether the quota counts the pod.

use serde_json::Value;

use crate::meta;

/// One condition on pods.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scope {
    name: String,
    operator: String,
    values: Vec<String>,
}

/// What scopes ask of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    has_deadline: bool,
    is_best_effort: bool,
    priority_class: String,
    crosses_namespaces: bool,
}

pub(super) fn of(quota: &Value) -> Vec<Scope> {
    let plain = meta::items(quota, &["spec", "scopes"]).filter_map(Value::as_str).map(|name| Scope {
        name: name.to_owned(),
        operator: "Exists".to_owned(),
        values: Vec::new(),
    });
    let selected = meta::items(quota, &["spec", "scopeSelector", "matchExpressions"]).map(|term| Scope {
        name: meta::text(term, &["scopeName"]).to_owned(),
        operator: meta::text(term, &["operator"]).to_owned(),
        values: meta::items(term, &["values"]).filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
    });
    plain.chain(selected).collect()
}

pub(super) fn all_match(scopes: &[Scope], facts: &Facts) -> bool {
    scopes.iter().all(|scope| scope.matches(facts))
}

// === impl Scope ===

impl Scope {
    fn matches(&self, facts: &Facts) -> bool {
        match self.name.as_str() {
            "Terminating" => facts.has_deadline,
            "NotTerminating" => !facts.has_deadline,
            "BestEffort" => facts.is_best_effort,
            "NotBestEffort" => !facts.is_best_effort,
            "CrossNamespacePodAffinity" => facts.crosses_namespaces,
            "PriorityClass" => {
                let class = &facts.priority_class;
                match self.operator.as_str() {
                    "In" => self.values.contains(class),
                    "NotIn" => !self.values.contains(class),
                    "DoesNotExist" => class.is_empty(),
                    _ => !class.is_empty(),
                }
            }
            _ => false,
        }
    }
}

// === impl Facts ===

impl Facts {
    pub(super) fn of(pod: &Value) -> Self {
        let asks = |container: &Value| {
            ["requests", "limits"].into_iter().any(|list| {
                container["resources"][list].as_object().is_some_and(|amounts| !amounts.is_empty())
            })
        };
        let mut containers = ["containers", "initContainers"]
            .into_iter()
            .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
        let crosses = |term: &Value| {
            meta::items(term, &["namespaces"]).next().is_some()
                || meta::at(term, &["namespaceSelector"]).is_some()
        };
        let terms = ["podAffinity", "podAntiAffinity"].into_iter().flat_map(|kind| {
            let affinity = &pod["spec"]["affinity"][kind];
            let required = meta::items(affinity, &["requiredDuringSchedulingIgnoredDuringExecution"]);
            let preferred = meta::items(affinity, &["preferredDuringSchedulingIgnoredDuringExecution"]);
            required.chain(preferred.map(|weighted| &weighted["podAffinityTerm"]))
        });
        Self {
            has_deadline: pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0),
            is_best_effort: !containers.any(asks),
            priority_class: meta::text(pod, &["spec", "priorityClassName"]).to_owned(),
            crosses_namespaces: terms.into_iter().any(crosses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scopes_pick_pods() {
        let asking = json!({"spec": {
            "activeDeadlineSeconds": 5, "priorityClassName": "high",
            "containers": [{"resources": {"requests": {"cpu": "1"}}}],
        }});
        let idle = json!({"spec": {"containers": [{}]}});
        for (spec, takes_asking, takes_idle) in [
            (json!({"scopes": ["Terminating"]}), true, false),
            (json!({"scopes": ["NotTerminating"]}), false, true),
            (json!({"scopes": ["BestEffort"]}), false, true),
            (json!({"scopes": ["NotBestEffort", "Terminating"]}), true, false),
            (
                json!({"scopeSelector": {"matchExpressions": [
                    {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]},
                ]}}),
                true,
                false,
            ),
            (
                json!({"scopeSelector": {"matchExpressions": [
                    {"scopeName": "PriorityClass", "operator": "DoesNotExist"},
                ]}}),
                false,
                true,
            ),
        ] {
            let scopes = of(&json!({ "spec": spec }));
            assert_eq!(all_match(&scopes, &Facts::of(&asking)), takes_asking, "{spec}");
            assert_eq!(all_match(&scopes, &Facts::of(&idle)), takes_idle, "{spec}");
        }
    }
}
