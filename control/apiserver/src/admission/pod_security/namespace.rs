//! Namespaces: labels that can be read, and what a stricter level would have refused of the pods that are there.
//!
//! In: a Namespace as it would be written, and as it was. Out: 422 for labels that say no policy; warnings about its pods.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::pod::Pod;
use super::policy::{self, Level, Mode, Policy};
use super::violations;
use crate::kinds::Gvk;
use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::stored::{self, Stored};

/// Pods looked at, and for how long, as upstream: who labels a namespace waits for the answer.
const MAX_PODS: usize = 3000;
const TIME: Duration = Duration::from_secs(1);

pub(super) fn validate(cx: &Cx<'_>, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let problems = policy::problems(new);
    // What was wrong before may stay wrong: else nothing else could be changed.
    if !problems.is_empty() && old.is_none_or(|old| policy::problems(old) != problems) {
        return Err(ApiError::invalid(&Gvk::new("", "v1", "Namespace"), meta::name(new), &problems));
    }
    let Some(old) = old else { return Ok(()) };
    let (now, before) = (policy::of(new, Mode::Enforce), policy::of(old, Mode::Enforce));
    let relaxed = now.minor == before.minor && now.level <= before.level;
    if now != before && now.level != Level::Privileged && !relaxed {
        for warning in warnings(cx, meta::name(new), now) {
            cx.warn(warning);
        }
    }
    Ok(())
}

/// What of the namespace's pods the policy would refuse: each sentence once, with the first pod it is about.
fn warnings(cx: &Cx<'_>, namespace: &str, policy: Policy) -> Vec<String> {
    let pods = cx.registry.kinds.core("pods");
    let prefix = stored::prefix(&pods.resource, Some(namespace));
    let store = &cx.registry.store;
    let listed = store.list(prefix.as_bytes(), None, MAX_PODS, None);
    let total = store.count(prefix.as_bytes(), None, None);
    let (Ok(page), Ok(total)) = (listed, total) else {
        return vec!["failed to list pods while checking new PodSecurity enforce level".to_owned()];
    };
    let (begun, mut checked) = (Instant::now(), 0);
    let mut told: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for kv in &page.items {
        checked += 1;
        if let Ok(pod) = Stored::from(kv).decode() {
            let all = violations(&policy, &Pod::new(&pod["metadata"], &pod["spec"]));
            if !all.is_empty() {
                let reasons: Vec<&str> = all.iter().map(|violation| violation.reason).collect();
                let first = || (meta::name(&pod).to_owned(), 0);
                told.entry(reasons.join(", ")).or_insert_with(first).1 += 1;
            }
        }
        if begun.elapsed() > TIME {
            break;
        }
    }
    let mut warnings = Vec::new();
    if checked < total {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
        ));
    }
    if !told.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level {:?}",
            policy.to_string()
        ));
    }
    let mut pods: Vec<String> = told
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            more => format!("{name} (and {} other pods): {reasons}", more - 1),
        })
        .collect();
    pods.sort_unstable();
    warnings.extend(pods);
    warnings
}
