//! Pod Security: what pods of a namespace may ask of their node, by the labels of the namespace.
//!
//! In: new pods and workloads, the namespace's levels. Out: 403 for pods beyond the enforced level, warnings for pods
//! and workloads beyond the level that warns. Absent: exemptions; the audit level, which has no log to go to.

use serde_json::Value;

use super::{Admit, Operation};
use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;

mod baseline;
mod pod;
mod restricted;

use pod::Pod;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a pod may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level at a version of the policy; `None` is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    level: Level,
    minor: Option<u32>,
}

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
        return Ok(());
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
    if is_pod && let Some(told) = breaks(&policy(&namespace, "enforce"), &pod) {
        return Err(admit.refuse(format!("violates PodSecurity {told}")));
    }
    if let Some(told) = breaks(&policy(&namespace, "warn"), &pod) {
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
        ("", "pods", "" | "ephemeralcontainers") => &[],
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

/// The level a namespace asks for in a mode; a label that cannot be read restricts, as upstream has it.
fn policy(namespace: &Value, mode: &str) -> Policy {
    let label = |key: String| meta::text(namespace, &["metadata", "labels", &key]).to_owned();
    let level = match label(format!("{PREFIX}{mode}")).as_str() {
        "" | "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        _ => Level::Restricted,
    };
    let version = label(format!("{PREFIX}{mode}-version"));
    Policy { level, minor: version.strip_prefix("v1.").and_then(|minor| minor.parse().ok()) }
}

/// What a pod breaks, as upstream tells it.
fn breaks(policy: &Policy, pod: &Pod<'_>) -> Option<String> {
    let violations = violations(policy, pod);
    if violations.is_empty() {
        return None;
    }
    let level = match policy.level {
        Level::Privileged => "privileged",
        Level::Baseline => "baseline",
        Level::Restricted => "restricted",
    };
    let version = policy.minor.map_or_else(|| "latest".to_owned(), |minor| format!("v1.{minor}"));
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
    Some(format!("{:?}: {}", format!("{level}:{version}"), told.join(", ")))
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
