//! Certificate signing requests and trust bundles.
//!
//! In: objects of the group `certificates.k8s.io`. Out: their cells.

use serde_json::Value;

use super::human;
use super::view::{NONE, View, text_in};
use super::{AGE, Column, Layout, NAME, string};

const REQUEST: &[Column] = &[
    NAME,
    AGE,
    string("SignerName", "Who is asked to sign."),
    string("Requestor", "Who asks."),
    string("RequestedDuration", "How long the certificate shall be valid."),
    string("Condition", "What became of the request."),
];

pub(super) fn layout(kind: &str) -> Option<Layout> {
    Some(match kind {
        "CertificateSigningRequest" => Layout { columns: REQUEST, cells: request },
        "ClusterTrustBundle" => Layout {
            columns: const { &[NAME, string("SignerName", "Whose certificates the bundle verifies.")] },
            cells: |view| vec![view.name(), view.text_or("/spec/signerName", NONE).into()],
        },
        _ => return None,
    })
}

fn request(view: &View<'_>) -> Vec<Value> {
    let duration = view.at("/spec/expirationSeconds").and_then(Value::as_i64).map(human::duration);
    vec![
        view.name(),
        view.age(),
        view.text_or("/spec/signerName", NONE).into(),
        view.cell("/spec/username"),
        duration.unwrap_or_else(|| NONE.to_owned()).into(),
        condition(view).into(),
    ]
}

fn condition(view: &View<'_>) -> String {
    let has = |kind: &str| {
        view.list("/status/conditions").iter().any(|condition| text_in(condition, "type") == kind)
    };
    let verdict = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    };
    let failed = if has("Failed") { ",Failed" } else { "" };
    let issued = if view.text("/status/certificate").is_empty() { "" } else { ",Issued" };
    format!("{verdict}{failed}{issued}")
}
