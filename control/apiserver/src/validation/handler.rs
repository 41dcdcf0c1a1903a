//! Probes and lifecycle hooks, and what they do.
//!
//! In: the fields of a container. Out: what is wrong with them, in `Errors`.

use serde_json::Value;
use xebec_api::names;

use super::field::{Errors, Field};
use super::rules;

/// What a probe is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Liveness,
    Readiness,
    Startup,
}

const ACTIONS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

pub(super) fn hooks(lifecycle: &Field<'_>, errors: &mut Errors) {
    for name in ["postStart", "preStop"] {
        let hook = lifecycle.child(name);
        if hook.is_set() {
            action(&hook, errors);
        }
    }
}

pub(super) fn probe(probe: &Field<'_>, purpose: Purpose, errors: &mut Errors) {
    if !probe.is_set() {
        return;
    }
    action(probe, errors);
    let counts =
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    rules::nonnegative_all(probe, &counts, errors);
    let grace = probe.child("terminationGracePeriodSeconds");
    if purpose == Purpose::Readiness {
        if grace.is_set() {
            errors.invalid(&grace, "must not be set for readinessProbes");
        }
        return;
    }
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        errors.invalid(&grace, "must be greater than 0");
    }
    let successes = probe.child("successThreshold");
    if successes.int().is_some_and(|count| count != 1) {
        errors.invalid(&successes, "must be 1");
    }
}

/// Exactly one thing to do.
fn action(handler: &Field<'_>, errors: &mut Errors) {
    let mut set = ACTIONS.iter().filter(|name| handler.child(name).is_set());
    let (first, second) = (set.next(), set.next());
    if first.is_none() {
        errors.required(handler, "must specify a handler type");
    }
    if let Some(second) = second {
        errors.forbidden(&handler.child(second), "may not specify more than 1 handler type");
    }
    let command = handler.child("exec");
    if command.is_set() && command.child("command").is_empty() {
        errors.required(&command.child("command"), "");
    }
    let request = handler.child("httpGet");
    if request.is_set() {
        http(&request, errors);
    }
    let socket = handler.child("tcpSocket");
    if socket.is_set() {
        rules::port_or_name(&socket.child("port"), errors);
    }
    let grpc = handler.child("grpc");
    if grpc.is_set() {
        let port = grpc.child("port");
        errors.invalid_all(&port, names::port_number(port.int().unwrap_or_default()));
    }
    let sleep = handler.child("sleep");
    let seconds = sleep.child("seconds");
    if sleep.is_set() && seconds.int().unwrap_or_default() < 0 {
        errors.invalid(&seconds, "must be non-negative");
    }
}

fn http(request: &Field<'_>, errors: &mut Errors) {
    let path = request.child("path");
    if path.text().is_empty() {
        errors.required(&path, "");
    }
    rules::port_or_name(&request.child("port"), errors);
    rules::optional_one_of(&request.child("scheme"), &["HTTP", "HTTPS"], errors);
    let headers = request.child("httpHeaders");
    for header in headers.items() {
        let name = header.value().get("name").and_then(Value::as_str).unwrap_or_default();
        let value = Value::from(name);
        errors.invalid_all(&headers.with(&value), names::http_header_name(name));
    }
}
