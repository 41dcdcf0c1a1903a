//! Webhooks, admission policies and aggregated APIs.
//!
//! In: objects of the groups `admissionregistration.k8s.io` and `apiregistration.k8s.io`. Out: their cells.

use serde_json::Value;

use super::view::{UNSET, View, text_in};
use super::{AGE, Column, Layout, NAME, integer, string};

const WEBHOOKS: &[Column] = &[NAME, integer("Webhooks", "How many webhooks are configured."), AGE];

const PARAM_KIND: Column = string("ParamKind", "The kind of the policy's parameters.");

const BINDING: &[Column] = &[
    NAME,
    string("PolicyName", "The policy that is bound."),
    string("ParamRef", "The parameters of the policy."),
    AGE,
];

const API_SERVICE: &[Column] = &[
    NAME,
    string("Service", "Who serves the API."),
    string("Available", "Whether the API can be reached."),
    AGE,
];

pub(super) fn layout(kind: &str) -> Option<Layout> {
    Some(match kind {
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => Layout {
            columns: WEBHOOKS,
            cells: |view| vec![view.name(), view.count("/webhooks").into(), view.age()],
        },
        "ValidatingAdmissionPolicy" => Layout {
            columns: const { &[NAME, integer("Validations", "How many rules the policy has."), PARAM_KIND, AGE] },
            cells: |view| {
                vec![view.name(), view.count("/spec/validations").into(), param_kind(view), view.age()]
            },
        },
        "MutatingAdmissionPolicy" => Layout {
            columns: const { &[NAME, integer("Mutations", "How many mutations the policy has."), PARAM_KIND, AGE] },
            cells: |view| {
                vec![view.name(), view.count("/spec/mutations").into(), param_kind(view), view.age()]
            },
        },
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
            Layout { columns: BINDING, cells: binding }
        }
        "APIService" => Layout { columns: API_SERVICE, cells: api_service },
        _ => return None,
    })
}

fn param_kind(view: &View<'_>) -> Value {
    let kind = view.at("/spec/paramKind");
    let text = |kind: &Value| format!("{}/{}", text_in(kind, "apiVersion"), text_in(kind, "kind"));
    kind.map_or_else(|| UNSET.to_owned(), text).into()
}

fn binding(view: &View<'_>) -> Vec<Value> {
    let parameters = view.at("/spec/paramRef").map_or_else(
        || UNSET.to_owned(),
        |parameters| match (text_in(parameters, "namespace"), text_in(parameters, "name")) {
            (_, "") => view.selector("/spec/paramRef/selector").as_str().unwrap_or_default().to_owned(),
            ("", name) => format!("*/{name}"),
            (namespace, name) => format!("{namespace}/{name}"),
        },
    );
    vec![view.name(), view.cell("/spec/policyName"), parameters.into(), view.age()]
}

fn api_service(view: &View<'_>) -> Vec<Value> {
    let service = match view.at("/spec/service") {
        Some(service) => format!("{}/{}", text_in(service, "namespace"), text_in(service, "name")),
        None => "Local".to_owned(),
    };
    let condition =
        view.list("/status/conditions").iter().find(|condition| text_in(condition, "type") == "Available");
    let available = match condition {
        Some(condition) if text_in(condition, "status") != "True" => {
            format!("{} ({})", text_in(condition, "status"), text_in(condition, "reason"))
        }
        Some(_) => "True".to_owned(),
        None => "Unknown".to_owned(),
    };
    vec![view.name(), service.into(), available.into(), view.age()]
}
