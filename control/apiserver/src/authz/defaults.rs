//! Roles and bindings that every cluster has, by upstream's names and with upstream's rules.
//!
//! Out: objects to be made at start. Absent: the roles of single controllers, which are one program here and act as one
//! user.

use serde_json::{Value, json};

use super::rule::Rule;

mod bindings;
mod system;
mod user_facing;

/// Marks what upstream makes at start.
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const AGGREGATE_PREFIX: &str = "rbac.authorization.k8s.io/aggregate-to-";
const GROUP: &str = "rbac.authorization.k8s.io";

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const READ_WRITE: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A role in the tables here.
struct RoleRow {
    /// Empty for roles of the cluster.
    namespace: &'static str,
    name: &'static str,
    /// The role its rules are added to, such as `view`.
    aggregates_to: Option<&'static str>,
    /// Its rules are those of the roles marked for this name.
    aggregates: Option<&'static str>,
    rules: &'static [RuleRow],
}

struct RuleRow {
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    resources: &'static [&'static str],
    names: &'static [&'static str],
    urls: &'static [&'static str],
}

/// A binding in the tables here.
struct BindingRow {
    namespace: &'static str,
    name: &'static str,
    /// Kind and name.
    role: (&'static str, &'static str),
    subjects: &'static [SubjectRow],
}

enum SubjectRow {
    User(&'static str),
    Group(&'static str),
    /// Of `kube-system`.
    ServiceAccount(&'static str),
}

/// An object to be made.
pub(crate) struct DefaultObject {
    pub(crate) plural: &'static str,
    pub(crate) namespace: Option<&'static str>,
    pub(crate) object: Value,
}

/// Everything, roles before the bindings that name them.
pub(crate) fn all() -> Vec<DefaultObject> {
    let roles = user_facing::ROLES.iter().chain(system::ROLES).map(RoleRow::object);
    roles.chain(bindings::BINDINGS.iter().map(BindingRow::object)).collect()
}

const fn role(name: &'static str, rules: &'static [RuleRow]) -> RoleRow {
    RoleRow { namespace: "", name, aggregates_to: None, aggregates: None, rules }
}

const fn on(
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    resources: &'static [&'static str],
) -> RuleRow {
    RuleRow { verbs, groups, resources, names: &[], urls: &[] }
}

const fn named(
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    resources: &'static [&'static str],
    names: &'static [&'static str],
) -> RuleRow {
    RuleRow { verbs, groups, resources, names, urls: &[] }
}

const fn paths(verbs: &'static [&'static str], urls: &'static [&'static str]) -> RuleRow {
    RuleRow { verbs, groups: &[], resources: &[], names: &[], urls }
}

fn metadata(name: &str, namespace: &str) -> Value {
    let mut metadata = json!({
        "name": name, "labels": { BOOTSTRAPPING.0: BOOTSTRAPPING.1 }, "annotations": { AUTOUPDATE: "true" },
    });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

// === impl RoleRow ===

impl RoleRow {
    const fn in_namespace(mut self, namespace: &'static str) -> Self {
        self.namespace = namespace;
        self
    }

    const fn to(mut self, role: &'static str) -> Self {
        self.aggregates_to = Some(role);
        self
    }

    const fn of(mut self, role: &'static str) -> Self {
        self.aggregates = Some(role);
        self
    }

    fn object(&self) -> DefaultObject {
        let namespaced = !self.namespace.is_empty();
        let mut metadata = metadata(self.name, self.namespace);
        if let Some(role) = self.aggregates_to {
            metadata["labels"][format!("{AGGREGATE_PREFIX}{role}")] = "true".into();
        }
        let rules: Vec<Value> = self.rules.iter().map(|rule| rule.rule().to_json()).collect();
        let mut object = json!({
            "kind": if namespaced { "Role" } else { "ClusterRole" }, "apiVersion": format!("{GROUP}/v1"),
            "metadata": metadata, "rules": rules,
        });
        if let Some(role) = self.aggregates {
            let label = format!("{AGGREGATE_PREFIX}{role}");
            object["aggregationRule"] =
                json!({ "clusterRoleSelectors": [{ "matchLabels": { label: "true" } }] });
        }
        DefaultObject {
            plural: if namespaced { "roles" } else { "clusterroles" },
            namespace: namespaced.then_some(self.namespace),
            object,
        }
    }
}

impl RuleRow {
    fn rule(&self) -> Rule {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Rule {
            verbs: owned(self.verbs),
            api_groups: owned(self.groups),
            resources: owned(self.resources),
            resource_names: owned(self.names),
            urls: owned(self.urls),
        }
    }
}

// === impl BindingRow ===

impl BindingRow {
    fn object(&self) -> DefaultObject {
        let namespaced = !self.namespace.is_empty();
        let subjects: Vec<Value> = self.subjects.iter().map(SubjectRow::json).collect();
        let mut object = json!({
            "kind": if namespaced { "RoleBinding" } else { "ClusterRoleBinding" },
            "apiVersion": format!("{GROUP}/v1"),
            "metadata": metadata(self.name, self.namespace),
            "roleRef": { "apiGroup": GROUP, "kind": self.role.0, "name": self.role.1 },
        });
        if !subjects.is_empty() {
            object["subjects"] = subjects.into();
        }
        DefaultObject {
            plural: if namespaced { "rolebindings" } else { "clusterrolebindings" },
            namespace: namespaced.then_some(self.namespace),
            object,
        }
    }
}

impl SubjectRow {
    fn json(&self) -> Value {
        match self {
            Self::User(name) => json!({ "apiGroup": GROUP, "kind": "User", "name": name }),
            Self::Group(name) => json!({ "apiGroup": GROUP, "kind": "Group", "name": name }),
            Self::ServiceAccount(name) => {
                json!({ "kind": "ServiceAccount", "name": name, "namespace": "kube-system" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Gvk;
    use crate::validation::validate_create;

    #[test]
    fn every_default_is_valid_and_every_binding_finds_its_role() {
        let all = all();
        for default in &all {
            let object = &default.object;
            let kind = object["kind"].as_str().expect("a kind");
            let errors = validate_create(&Gvk::new(GROUP, "v1", kind), object);
            assert!(errors.is_empty(), "{object}: {errors:?}");
            if let Some(role) = object.get("roleRef") {
                let plural = if role["kind"] == "Role" { "roles" } else { "clusterroles" };
                let found = all.iter().any(|other| {
                    other.plural == plural
                        && other.object["metadata"]["name"] == role["name"]
                        && (plural == "clusterroles" || other.namespace == default.namespace)
                });
                assert!(found, "{role}");
            }
        }
    }
}
