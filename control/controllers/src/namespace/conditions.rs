//! The conditions of a namespace that is being deleted, in upstream's words.
//!
//! In: known conditions and a [`Sweep`]. Out: the conditions as they should be. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use xebec_api::wellknown::conditions::{
    FALSE, NAMESPACE_CONTENT_REMAINING, NAMESPACE_DELETION_CONTENT_FAILURE,
    NAMESPACE_DELETION_DISCOVERY_FAILURE, NAMESPACE_DELETION_GV_PARSING_FAILURE,
    NAMESPACE_FINALIZERS_REMAINING, TRUE,
};

use crate::namespace::content::Sweep;

/// Condition type, whether it holds, reason, message.
type Said = (&'static str, bool, &'static str, String);

/// Brings the conditions in line with what was found; a condition keeps its time while its status stays.
pub(crate) fn update(
    mut conditions: Vec<NamespaceCondition>,
    sweep: &Sweep,
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    for (type_, holds, reason, message) in said(sweep) {
        let status = if holds { TRUE } else { FALSE };
        let known = conditions.iter_mut().find(|condition| condition.type_ == type_);
        let since = known.as_ref().filter(|known| known.status == status);
        let since = since.and_then(|known| known.last_transition_time.clone()).unwrap_or(Time(now));
        let condition = NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(since),
        };
        match known {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
    }
    conditions
}

fn said(sweep: &Sweep) -> Vec<Said> {
    let discovery = match &sweep.discovery_failure {
        Some(failure) => (true, "DiscoveryFailed", format!("Discovery failed for some groups: {failure}")),
        None => (false, "ResourcesDiscovered", "All resources successfully discovered".to_owned()),
    };
    let deletion = if sweep.errors.is_empty() {
        let message = "All content successfully deleted, may be waiting on finalization";
        (false, "ContentDeleted", message.to_owned())
    } else {
        let errors: Vec<String> = sweep.errors.iter().map(ToString::to_string).collect();
        (true, "ContentDeletionFailed", format!("Failed to delete all resource types: {}", errors.join(", ")))
    };
    let content = if sweep.remaining.is_empty() {
        (false, "ContentRemoved", "All content successfully removed".to_owned())
    } else {
        let list = counted(&sweep.remaining, "has");
        (true, "SomeResourcesRemain", format!("Some resources are remaining: {list}"))
    };
    let finalizers = if sweep.finalizers.is_empty() {
        (false, "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned())
    } else {
        let list = counted(&sweep.finalizers, "in");
        let message = format!("Some content in the namespace has finalizers remaining: {list}");
        (true, "SomeFinalizersRemain", message)
    };
    let parsed = (false, "ParsedGroupVersions", "All legacy kube types successfully parsed".to_owned());
    [
        (NAMESPACE_DELETION_DISCOVERY_FAILURE, discovery),
        (NAMESPACE_DELETION_GV_PARSING_FAILURE, parsed),
        (NAMESPACE_DELETION_CONTENT_FAILURE, deletion),
        (NAMESPACE_CONTENT_REMAINING, content),
        (NAMESPACE_FINALIZERS_REMAINING, finalizers),
    ]
    .into_iter()
    .map(|(type_, (holds, reason, message))| (type_, holds, reason, message))
    .collect()
}

fn counted(counts: &BTreeMap<String, usize>, verb: &str) -> String {
    let parts: Vec<String> =
        counts.iter().map(|(name, count)| format!("{name} {verb} {count} resource instances")).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn conditions_name_what_remains_and_keep_their_time() {
        let sweep = Sweep {
            remaining: BTreeMap::from([("configmaps.".to_owned(), 2), ("jobs.batch".to_owned(), 1)]),
            finalizers: BTreeMap::from([("example.com/hold".to_owned(), 1)]),
            ..Sweep::default()
        };
        let first = update(Vec::new(), &sweep, at(10));
        let told: Vec<(&str, &str, &str)> = first
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str(), c.message.as_deref().unwrap()))
            .collect();
        assert_eq!(told[0].1, "False");
        assert_eq!(
            told[3],
            (
                "NamespaceContentRemaining",
                "True",
                "Some resources are remaining: configmaps. has 2 resource instances, jobs.batch has 1 resource \
                 instances"
            )
        );
        assert_eq!(
            told[4],
            (
                "NamespaceFinalizersRemaining",
                "True",
                "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
            )
        );
        assert_eq!(update(first.clone(), &sweep, at(20)), first, "the same said later changes nothing");

        let clean = update(first, &Sweep::default(), at(30));
        assert_eq!(
            (clean[3].status.as_str(), clean[3].last_transition_time.clone()),
            ("False", Some(Time(at(30))))
        );
        assert_eq!(clean[0].last_transition_time, Some(Time(at(10))));
    }

    #[test]
    fn discovery_failure_is_told() {
        let conditions = update(Vec::new(), &Sweep::blind("no answer".to_owned()), at(1));
        assert_eq!(
            (conditions[0].status.as_str(), conditions[0].reason.as_deref()),
            ("True", Some("DiscoveryFailed"))
        );
    }
}
