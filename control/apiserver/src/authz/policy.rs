//! Role-based access: who is bound to which rules.
//!
//! In: the stored roles and bindings, a user. Out: the binding that allows a request, the rules a user holds. A binding
//! whose role does not exist allows nothing.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::Attributes;
use super::rule::Rule;
use crate::authn::UserInfo;
use crate::follow::Fold;
use crate::meta;
use crate::token::service_account_user;

/// Where roles and bindings are kept.
pub(crate) const PREFIX: &str = "/registry/rbac.authorization.k8s.io/";

/// All roles and bindings.
#[derive(Default)]
pub(crate) struct Policy {
    /// By namespace (empty: of the cluster) and name.
    roles: HashMap<(String, String), Arc<[Rule]>>,
    /// By namespace (empty: of the cluster), then by name.
    bindings: HashMap<String, HashMap<String, Binding>>,
}

/// A RoleBinding or ClusterRoleBinding.
struct Binding {
    /// Key of the role in [`Policy::roles`].
    role: (String, String),
    role_kind: String,
    subjects: Vec<Subject>,
}

enum Subject {
    User(String),
    Group(String),
    ServiceAccount { user: String, place: String },
}

// === impl Policy ===

impl Policy {
    /// Why the request is allowed, in upstream's words; `None` when no binding allows it.
    pub(super) fn allows(&self, user: &UserInfo, asked: &Attributes<'_>) -> Option<String> {
        self.bound(user, asked.namespace).find_map(|bound| {
            let rules = self.roles.get(&bound.binding.role)?;
            rules.iter().any(|rule| rule.allows(asked)).then(|| bound.to_string())
        })
    }

    /// Every rule the user holds in a namespace, those of the whole cluster among them.
    pub(crate) fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let rules = self.bound(user, namespace).filter_map(|bound| self.roles.get(&bound.binding.role));
        rules.flat_map(|rules| rules.iter().cloned()).collect()
    }

    /// The rules of a role, if there is one; roles of the cluster have the empty namespace.
    pub(crate) fn role(&self, namespace: &str, name: &str) -> Option<&[Rule]> {
        self.roles.get(&(namespace.to_owned(), name.to_owned())).map(|rules| &**rules)
    }

    fn bound<'p>(&'p self, user: &'p UserInfo, namespace: &'p str) -> impl Iterator<Item = Bound<'p>> {
        let scopes = ["", namespace];
        let scopes = if namespace.is_empty() { &scopes[..1] } else { &scopes[..] };
        let places: Vec<&str> = scopes.to_vec();
        places.into_iter().filter_map(|namespace| Some((namespace, self.bindings.get(namespace)?))).flat_map(
            move |(namespace, bindings)| {
                bindings.iter().filter_map(move |(name, binding)| {
                    let subject = binding.subjects.iter().find(|subject| subject.is(user))?;
                    Some(Bound { namespace, name, binding, subject })
                })
            },
        )
    }
}

/// What an object below the prefix is.
#[derive(Clone, Copy)]
enum Sort {
    Role,
    Binding,
}

/// The key's parts: what it is, namespace (empty for the cluster's), name. Nothing but the four kinds counts.
fn parts(place: &str) -> Option<(Sort, &str, &str)> {
    let (plural, rest) = place.split_once('/')?;
    let (sort, namespaced) = match plural {
        "roles" => (Sort::Role, true),
        "clusterroles" => (Sort::Role, false),
        "rolebindings" => (Sort::Binding, true),
        "clusterrolebindings" => (Sort::Binding, false),
        _ => return None,
    };
    let (namespace, name) = if namespaced { rest.split_once('/')? } else { ("", rest) };
    Some((sort, namespace, name))
}

impl Fold for Policy {
    fn put(&mut self, place: &str, object: Value) {
        let Some((sort, namespace, name)) = parts(place) else { return };
        match sort {
            Sort::Binding => {
                let binding = Binding::from_json(&object, namespace);
                self.bindings.entry(namespace.to_owned()).or_default().insert(name.to_owned(), binding);
            }
            Sort::Role => {
                let rules: Arc<[Rule]> = Rule::all_of(&object).into();
                self.roles.insert((namespace.to_owned(), name.to_owned()), rules);
            }
        }
    }

    fn delete(&mut self, place: &str) {
        let Some((sort, namespace, name)) = parts(place) else { return };
        match sort {
            Sort::Binding => {
                if let Some(bindings) = self.bindings.get_mut(namespace) {
                    bindings.remove(name);
                    if bindings.is_empty() {
                        self.bindings.remove(namespace);
                    }
                }
            }
            Sort::Role => {
                self.roles.remove(&(namespace.to_owned(), name.to_owned()));
            }
        }
    }
}

// === impl Binding ===

impl Binding {
    fn from_json(object: &Value, namespace: &str) -> Self {
        let kind = meta::text(object, &["roleRef", "kind"]);
        let of_cluster = kind == "ClusterRole";
        let role_namespace = if of_cluster { "" } else { namespace };
        let subjects = meta::items(object, &["subjects"]);
        Self {
            role: (role_namespace.to_owned(), meta::text(object, &["roleRef", "name"]).to_owned()),
            role_kind: kind.to_owned(),
            subjects: subjects.filter_map(|subject| Subject::from_json(subject, namespace)).collect(),
        }
    }
}

// === impl Subject ===

impl Subject {
    fn from_json(subject: &Value, namespace: &str) -> Option<Self> {
        let name = meta::text(subject, &["name"]).to_owned();
        Some(match meta::text(subject, &["kind"]) {
            "User" => Self::User(name),
            "Group" => Self::Group(name),
            "ServiceAccount" => {
                let own = meta::text(subject, &["namespace"]);
                let namespace = if own.is_empty() { namespace } else { own };
                Self::ServiceAccount {
                    user: service_account_user(namespace, &name),
                    place: format!("{name}/{namespace}"),
                }
            }
            _ => return None,
        })
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) | Self::ServiceAccount { user: name, .. } => *name == user.name,
            Self::Group(name) => user.in_group(name),
        }
    }
}

/// A binding that names the user.
struct Bound<'p> {
    namespace: &'p str,
    name: &'p str,
    binding: &'p Binding,
    subject: &'p Subject,
}

impl std::fmt::Display for Bound<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, role) = (&self.binding.role_kind, &self.binding.role.1);
        let subject = match self.subject {
            Subject::User(name) => format!("User {name:?}"),
            Subject::Group(name) => format!("Group {name:?}"),
            Subject::ServiceAccount { place, .. } => format!("ServiceAccount {place:?}"),
        };
        if self.namespace.is_empty() {
            let name = self.name;
            write!(f, "RBAC: allowed by ClusterRoleBinding {name:?} of {kind} {role:?} to {subject}")
        } else {
            let name = format!("{}/{}", self.name, self.namespace);
            write!(f, "RBAC: allowed by RoleBinding {name:?} of {kind} {role:?} to {subject}")
        }
    }
}

#[cfg(test)]
mod tests;
