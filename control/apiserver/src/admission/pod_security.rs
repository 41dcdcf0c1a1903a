//! Pod Security: what pods of a namespace may ask of their node, by the labels of the namespace.
//!
//! In: new pods and workloads, the namespace's levels. Out: 403 for pods beyond the enforced level, warnings for pods
//! and workloads beyond the level that warns, lines in the server's own log for those beyond the level that records.
//! Absent: exemptions.

use serde_json::Value;

use super::{Admit, Operation};
use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;

mod baseline;
mod namespace;
mod pod;
mod policy;
mod restricted;

use pod::Pod;
use policy::{Level, Mode, Policy};

/// A rule that a pod breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Violation {
    reason: &'static str,
    detail: String,
}

/// Looks at pods and at what makes pods.
pub(super) fn validate(cx: &Cx<'_>, admit: &Admit<'_>, object: &Value) -> Result<(), ApiError> {
    if admit.operation == Operation::Delete {
        return Ok(());
    }
    if admit.target() == ("", "namespaces", "") {
        return namespace::validate(cx, object, admit.old);
    }
    let Some(template) = template_of(admit, object) else { return Ok(()) };
    if admit.old.and_then(|old| template_of(admit, old)).is_some_and(|old| is_unchanged(&template, &old)) {
        return Ok(());
    }
    let Some(namespace) = cx.registry.core_object("namespaces", None, meta::namespace(object)) else {
        return Ok(());
    };
    let is_pod = admit.target().1 == "pods";
    let pod = Pod::new(&template.metadata, &template.spec);
    let refused = match breaks(&policy::of(&namespace, Mode::Enforce), &pod) {
        Some(told) if is_pod => Some(format!("violates PodSecurity {told}")),
        _ => None,
    };
    if let Some(told) = breaks(&policy::of(&namespace, Mode::Audit), &pod) {
        let (user, resource) = (&cx.user.name, admit.served.resource.group_resource());
        let (namespace, name) = (meta::namespace(object), admit.name);
        tracing::info!(user, resource, namespace, name, "would violate PodSecurity {told}");
    }
    if let Some(why) = refused {
        return Err(admit.refuse(why));
    }
    if let Some(told) = breaks(&policy::of(&namespace, Mode::Warn), &pod) {
        cx.warn(format!("would violate PodSecurity {told}"));
    }
    Ok(())
}

/// A pod's metadata and spec, of a pod or of what pods are made from.
struct Template {
    metadata: Value,
    spec: Value,
}

fn template_of(admit: &Admit<'_>, object: &Value) -> Option<Template> {
    let base: &[&str] = match admit.target() {
        ("", "pods", "") => &[],
        ("", "podtemplates", "") => &["template"],
        ("", "replicationcontrollers", "")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets", "")
        | ("batch", "jobs", "") => &["spec", "template"],
        ("batch", "cronjobs", "") => &["spec", "jobTemplate", "spec", "template"],
        _ => return None,
    };
    let template = if base.is_empty() { object } else { meta::at(object, base)? };
    let part = |field: &str| template.get(field).cloned().unwrap_or_default();
    Some(Template { metadata: part("metadata"), spec: part("spec") })
}

/// Only what the rules look at counts: a change of anything else is not held against an old pod.
fn is_unchanged(new: &Template, old: &Template) -> bool {
    let annotations = |template: &Template| meta::at(&template.metadata, &["annotations"]).cloned();
    new.spec == old.spec && annotations(new) == annotations(old)
}

/// What a pod breaks, as upstream tells it.
fn breaks(policy: &Policy, pod: &Pod<'_>) -> Option<String> {
    let violations = violations(policy, pod);
    if violations.is_empty() {
        return None;
    }
    let told: Vec<String> = violations
        .into_iter()
        .map(|violation| {
            if violation.detail.is_empty() {
                violation.reason.to_owned()
            } else {
                format!("{} ({})", violation.reason, violation.detail)
            }
        })
        .collect();
    Some(format!("{:?}: {}", policy.to_string(), told.join(", ")))
}

fn violations(policy: &Policy, pod: &Pod<'_>) -> Vec<Violation> {
    let minor = policy.minor.unwrap_or(u32::MAX);
    let (mut loose, mut strict) = (Vec::new(), Vec::new());
    if policy.level >= Level::Baseline {
        baseline::check(pod, minor, &mut loose);
    }
    if policy.level >= Level::Restricted {
        restricted::check(pod, minor, &mut strict);
    }
    // Of two forms of a rule the stricter one is told alone.
    let has = |reason: &str| strict.iter().any(|violation| violation.reason == reason);
    loose.retain(|violation| match violation.reason {
        baseline::CAPABILITIES => !has(restricted::CAPABILITIES),
        baseline::HOST_PATH => !has(restricted::VOLUMES),
        reason => !has(reason),
    });
    loose.extend(strict);
    loose
}

#[cfg(test)]
mod tests;
