//! Nobody hands out what they do not have.
//!
//! In: a role or a binding on its way into the store. Out: 403 unless its writer holds every rule it allows, or the
//! right to go beyond (`escalate` on roles, `bind` on what is bound).

use serde_json::Value;

use super::rule::{self, Rule};
use super::{Attributes, allows};
use crate::authn::UserInfo;
use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Checks a role that is made, or changed from `old`.
pub(crate) fn check_role(cx: &Cx<'_>, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let namespace = meta::namespace(new);
    let plural = if namespace.is_empty() { "clusterroles" } else { "roles" };
    // Who asks the right for a new role asks it for all.
    let name = if old.is_some() { meta::name(new) } else { "" };
    let escalate = Attributes {
        verb: "escalate",
        group: GROUP,
        resource: plural,
        namespace,
        name,
        ..Attributes::default()
    };
    if is_trusted(cx, &escalate) || old.is_some_and(|old| differ_in_metadata_only(new, old)) {
        return Ok(());
    }
    let refuse = |why: &str| Err(ApiError::forbidden(GROUP, plural, meta::name(new), why));
    let held = held(cx, namespace);
    if let Some(why) = lacks(cx.user, &held, &Rule::all_of(new)) {
        return refuse(&why);
    }
    let aggregates = |role: &Value| meta::at(role, &["aggregationRule"]).is_some();
    if (aggregates(new) || old.is_some_and(aggregates)) && lacks(cx.user, &held, &everything()).is_some() {
        return refuse("must have cluster-admin privileges to use the aggregationRule");
    }
    Ok(())
}

/// Checks a binding that is made, or changed from `old`.
pub(crate) fn check_binding(cx: &Cx<'_>, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let namespace = meta::namespace(new);
    let (kind, role) = (meta::text(new, &["roleRef", "kind"]), meta::text(new, &["roleRef", "name"]));
    let of_cluster = kind == "ClusterRole";
    let resource = if of_cluster { "clusterroles" } else { "roles" };
    let bind =
        Attributes { verb: "bind", group: GROUP, resource, namespace, name: role, ..Attributes::default() };
    if is_trusted(cx, &bind) || old.is_some_and(|old| differ_in_metadata_only(new, old)) {
        return Ok(());
    }
    let (permissions, store) = (&cx.registry.permissions, &cx.registry.store);
    let role_namespace = if of_cluster { "" } else { namespace };
    let wanted = permissions.policy(store).role(role_namespace, role).map(<[Rule]>::to_vec);
    let Some(wanted) = wanted else {
        let scope = if of_cluster { "clusterrole" } else { "role" };
        return Err(ApiError::rbac_role_not_found(GROUP, scope, resource, role));
    };
    match lacks(cx.user, &held(cx, namespace), &wanted) {
        None => Ok(()),
        Some(why) => {
            let plural = if namespace.is_empty() { "clusterrolebindings" } else { "rolebindings" };
            Err(ApiError::forbidden(GROUP, plural, meta::name(new), why))
        }
    }
}

fn is_trusted(cx: &Cx<'_>, right: &Attributes<'_>) -> bool {
    allows(cx.registry, cx.user, right).is_some()
}

fn held(cx: &Cx<'_>, namespace: &str) -> Vec<Rule> {
    cx.registry.permissions.policy(&cx.registry.store).rules_of(cx.user, namespace)
}

fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    [
        Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), urls: all(), ..Rule::default() },
    ]
}

/// Upstream's sentence about what the user does not hold.
fn lacks(user: &UserInfo, held: &[Rule], wanted: &[Rule]) -> Option<String> {
    let missing = rule::missing(held, wanted);
    if missing.is_empty() {
        return None;
    }
    let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
    Some(format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        rule::go_list(&user.groups),
        lines.join("\n")
    ))
}

/// What the garbage collector and the owners of finalizers change hands out nothing.
fn differ_in_metadata_only(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut rest = object.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            meta::set(&mut rest, &["metadata", field], None);
        }
        rest
    };
    rest(new) == rest(old)
}
