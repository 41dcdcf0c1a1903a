//! The restricted level: what a careful pod does without.
//!
//! In: a pod, the minor version of the policy. Out: the rules it breaks besides those of the baseline.

use serde_json::Value;

use super::Violation;
use super::pod::{Pod, quoted, security};
use crate::meta;

pub(super) const CAPABILITIES: &str = "unrestricted capabilities";
pub(super) const VOLUMES: &str = "restricted volume types";

const FREE_VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

pub(super) fn check(pod: &Pod<'_>, minor: u32, found: &mut Vec<Violation>) {
    let mut tell = |reason: &'static str, detail: Option<String>| {
        found.extend(detail.map(|detail| Violation { reason, detail }));
    };
    // Since 1.25 a pod that says it is for Windows need not say what means nothing there.
    let excused = minor >= 25 && pod.is_windows();
    if !excused {
        tell(
            "allowPrivilegeEscalation != false",
            pod.those(|container| {
                security(container, &["allowPrivilegeEscalation"]) != Some(&Value::Bool(false))
            })
            .map(|those| format!("{those} must set securityContext.allowPrivilegeEscalation=false")),
        );
        tell(CAPABILITIES, capabilities(pod));
    }
    tell(VOLUMES, volumes(pod));
    let relaxed = minor >= 35 && pod.has_user_namespace();
    if !relaxed {
        tell("runAsNonRoot != true", run_as_non_root(pod));
        tell("runAsUser=0", run_as_root(pod));
    }
    if !excused {
        tell("seccompProfile", seccomp(pod));
    }
}

fn capabilities(pod: &Pod<'_>) -> Option<String> {
    let list = |container: &Value, field: &str| -> Vec<String> {
        let list = security(container, &["capabilities", field]).and_then(Value::as_array).cloned();
        list.unwrap_or_default().iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
    };
    let added = |container: &Value| -> Vec<String> {
        list(container, "add").into_iter().filter(|name| name != "NET_BIND_SERVICE").collect()
    };
    let mut told = Vec::new();
    if let Some(those) = pod.those(|container| !list(container, "drop").iter().any(|name| name == "ALL")) {
        told.push(format!("{those} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if let Some(those) = pod.those(|container| !added(container).is_empty()) {
        let all: Vec<String> = pod.containers().flat_map(added).collect();
        told.push(format!(
            "{those} must not include {} in securityContext.capabilities.add",
            quoted(all.iter().map(String::as_str))
        ));
    }
    (!told.is_empty()).then(|| told.join("; "))
}

fn volumes(pod: &Pod<'_>) -> Option<String> {
    let kind = |volume: &Value| -> String {
        let fields = volume.as_object().into_iter().flatten();
        let kind = fields.map(|(field, _)| field.clone()).find(|field| field != "name");
        kind.unwrap_or_else(|| "unknown".to_owned())
    };
    let bad: Vec<(String, String)> = meta::items(pod.spec, &["volumes"])
        .map(|volume| (meta::text(volume, &["name"]).to_owned(), kind(volume)))
        .filter(|(_, kind)| !FREE_VOLUMES.contains(&kind.as_str()))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let names: Vec<&str> = bad.iter().map(|(name, _)| name.as_str()).collect();
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let kinds = quoted(bad.iter().map(|(_, kind)| kind.as_str()));
    let noun = if kinds.contains(", ") { "types" } else { "type" };
    Some(format!("{} {verb} restricted volume {noun} {kinds}", super::pod::subject("volume", &names)))
}

fn run_as_non_root(pod: &Pod<'_>) -> Option<String> {
    let own = |container: &Value| security(container, &["runAsNonRoot"]).and_then(Value::as_bool);
    if let Some(those) = pod.those(|container| own(container) == Some(false)) {
        return Some(format!("{those} must not set securityContext.runAsNonRoot=false"));
    }
    match pod.security(&["runAsNonRoot"]).and_then(Value::as_bool) {
        Some(true) => None,
        Some(false) => Some("pod must not set securityContext.runAsNonRoot=false".into()),
        None => pod
            .those(|container| own(container).is_none())
            .map(|those| format!("pod or {those} must set securityContext.runAsNonRoot=true")),
    }
}

fn run_as_root(pod: &Pod<'_>) -> Option<String> {
    let is_root = |user: Option<&Value>| user.and_then(Value::as_i64) == Some(0);
    let mut setters = Vec::new();
    if is_root(pod.security(&["runAsUser"])) {
        setters.push("pod".to_owned());
    }
    setters.extend(pod.those(|container| is_root(security(container, &["runAsUser"]))));
    (!setters.is_empty()).then(|| format!("{} must not set runAsUser=0", setters.join(" and ")))
}

fn seccomp(pod: &Pod<'_>) -> Option<String> {
    let kind = |value: Option<&Value>| value.and_then(Value::as_str).map(ToOwned::to_owned);
    let own = |container: &Value| kind(security(container, &["seccompProfile", "type"]));
    let of_pod = kind(pod.security(&["seccompProfile", "type"]));
    let is_free = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let bad = |kind: Option<String>| kind.is_some_and(|kind| !is_free(&kind));
    let mut setters = Vec::new();
    if bad(of_pod.clone()) {
        setters.push("pod".to_owned());
    }
    setters.extend(pod.those(|container| bad(own(container))));
    if !setters.is_empty() {
        return Some(format!(
            "{} must not set securityContext.seccompProfile.type to \"Unconfined\"",
            setters.join(" and ")
        ));
    }
    if of_pod.is_some() {
        return None;
    }
    pod.those(|container| own(container).is_none()).map(|those| {
        format!(
            "pod or {those} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
        )
    })
}
