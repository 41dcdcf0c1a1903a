//! Role bindings. Roles have nothing to show but name and age.
//!
//! In: objects of the group `rbac.authorization.k8s.io`. Out: their cells.

use serde_json::Value;

use super::view::{View, text_in};
use super::{AGE, Column, Layout, NAME, string, wide};

const COLUMNS: &[Column] = &[
    NAME,
    string("Role", "The role that is granted."),
    AGE,
    wide("Users", "The users it is granted to."),
    wide("Groups", "The groups it is granted to."),
    wide("ServiceAccounts", "The service accounts it is granted to."),
];

pub(super) fn layout(kind: &str) -> Option<Layout> {
    matches!(kind, "RoleBinding" | "ClusterRoleBinding").then_some(Layout { columns: COLUMNS, cells })
}

fn cells(view: &View<'_>) -> Vec<Value> {
    let role = format!("{}/{}", view.text("/roleRef/kind"), view.text("/roleRef/name"));
    let subjects = |kind: &str| -> Value {
        let of_kind = view.list("/subjects").iter().filter(|subject| text_in(subject, "kind") == kind);
        let names = of_kind.map(|subject| match (kind, text_in(subject, "namespace")) {
            ("ServiceAccount", namespace) => format!("{namespace}/{}", text_in(subject, "name")),
            _ => text_in(subject, "name").to_owned(),
        });
        names.collect::<Vec<_>>().join(", ").into()
    };
    vec![
        view.name(),
        role.into(),
        view.age(),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
