//! Roles and their bindings.
//!
//! In: a role or a binding, and its former state. Out: what is wrong with it, in `Errors`. Absent: whether the writer
//! may hand out what the role allows.

use serde_json::Value;
use xebec_api::names;

use super::field::{Errors, Field};
use super::rules;

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn role(object: &Field<'_>, namespaced: bool, errors: &mut Errors) {
    let rules = object.child("rules");
    for rule in rules.items() {
        let field = |name| rule.child(name);
        let (verbs, urls) = (field("verbs"), field("nonResourceURLs"));
        if verbs.is_empty() {
            errors.required(&verbs, "verbs must contain at least one value");
        }
        if urls.is_empty() {
            if field("apiGroups").is_empty() {
                errors.required(&field("apiGroups"), "resource rules must supply at least one api group");
            }
            if field("resources").is_empty() {
                errors.required(&field("resources"), "resource rules must supply at least one resource");
            }
        } else if namespaced {
            errors.invalid(&urls, "namespaced rules cannot apply to non-resource URLs");
        } else if ["apiGroups", "resources", "resourceNames"].iter().any(|name| !field(name).is_empty()) {
            errors.invalid(&urls, "rules cannot apply to both regular resources and non-resource URLs");
        }
    }
}

pub(super) fn binding(object: &Field<'_>, namespaced: bool, errors: &mut Errors) {
    let role = object.child("roleRef");
    let (group, kind, name) = (role.child("apiGroup"), role.child("kind"), role.child("name"));
    if group.text() != RBAC {
        errors.not_supported(&group, &[RBAC]);
    }
    let kinds: &[&str] = if namespaced { &["ClusterRole", "Role"] } else { &["ClusterRole"] };
    if !kinds.contains(&kind.text()) {
        errors.not_supported(&kind, kinds);
    }
    rules::required_name(&name, names::path_segment, errors);
    let subjects = object.child("subjects");
    for subject in subjects.items() {
        self::subject(&subject, namespaced, errors);
    }
}

pub(super) fn binding_update(object: &Field<'_>, old: &Value, errors: &mut Errors) {
    let role = object.child("roleRef");
    if role.value() != old.get("roleRef").unwrap_or(&Value::Null) {
        errors.invalid(&role, "cannot change roleRef");
    }
}

fn subject(subject: &Field<'_>, namespaced: bool, errors: &mut Errors) {
    let (kind, name) = (subject.child("kind"), subject.child("name"));
    let (group, namespace) = (subject.child("apiGroup"), subject.child("namespace"));
    if name.text().is_empty() {
        errors.required(&name, "");
    }
    match kind.text() {
        "ServiceAccount" => {
            rules::optional_name(&name, names::dns1123_subdomain, errors);
            if !group.text().is_empty() {
                errors.not_supported(&group, &[""]);
            }
            if !namespaced && namespace.text().is_empty() {
                errors.required(&namespace, "");
            }
        }
        "User" | "Group" => {
            if group.text() != RBAC {
                errors.not_supported(&group, &[RBAC]);
            }
        }
        _ => errors.not_supported(&kind, &["ServiceAccount", "User", "Group"]),
    }
}
