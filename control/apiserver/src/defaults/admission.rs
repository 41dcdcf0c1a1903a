//! Defaults of admission webhooks and policies.
//!
//! In: the kind and the fields of an object. Out: the same, filled.

use serde_json::json;

use super::extension;
use super::fill::{Fields, ensure, object, objects, unset};

pub(super) fn configuration(kind: &str, configuration: &mut Fields) {
    match kind {
        "ValidatingWebhookConfiguration" => objects(configuration, "webhooks").for_each(webhook),
        "MutatingWebhookConfiguration" => {
            for entry in objects(configuration, "webhooks") {
                webhook(entry);
                unset(entry, "reinvocationPolicy", "Never");
            }
        }
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => {
            let Some(spec) = ensure(configuration, "spec") else { return };
            unset(spec, "failurePolicy", "Fail");
            if let Some(matches) = object(spec, "matchConstraints") {
                match_resources(matches);
            }
        }
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
            let matches = object(configuration, "spec").and_then(|spec| object(spec, "matchResources"));
            if let Some(matches) = matches {
                match_resources(matches);
            }
        }
        _ => {}
    }
}

fn webhook(webhook: &mut Fields) {
    unset(webhook, "failurePolicy", "Fail");
    unset(webhook, "matchPolicy", "Equivalent");
    unset(webhook, "namespaceSelector", json!({}));
    unset(webhook, "objectSelector", json!({}));
    unset(webhook, "timeoutSeconds", 10);
    objects(webhook, "rules").for_each(rule);
    if let Some(client) = object(webhook, "clientConfig") {
        extension::service_port(client);
    }
}

fn match_resources(matches: &mut Fields) {
    unset(matches, "matchPolicy", "Equivalent");
    unset(matches, "namespaceSelector", json!({}));
    unset(matches, "objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        objects(matches, list).for_each(rule);
    }
}

fn rule(rule: &mut Fields) {
    unset(rule, "scope", "*");
}
