//! Defaults of a container: image pull policy, termination message, ports, probes, hooks.
//!
//! In: the fields of a container of any of the three kinds. Out: the same, filled.

use serde_json::json;

use super::fill::{Fields, empty, object, objects, round_resources, text, unset};

pub(super) fn container(container: &mut Fields) {
    let policy = pull_policy(text(container, "image"));
    empty(container, "imagePullPolicy", policy);
    empty(container, "terminationMessagePath", "/dev/termination-log");
    empty(container, "terminationMessagePolicy", "File");
    unset(container, "resources", json!({}));
    for port in objects(container, "ports") {
        empty(port, "protocol", "TCP");
    }
    for variable in objects(container, "env") {
        let Some(source) = object(variable, "valueFrom") else { continue };
        if let Some(field) = object(source, "fieldRef") {
            empty(field, "apiVersion", "v1");
        }
        if let Some(key) = object(source, "fileKeyRef") {
            unset(key, "optional", false);
        }
        if let Some(resource) = object(source, "resourceFieldRef") {
            unset(resource, "divisor", "0");
        }
    }
    if let Some(resources) = object(container, "resources") {
        round_resources(resources, "limits");
        round_resources(resources, "requests");
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = object(container, name) {
            self::probe(probe);
        }
    }
    if let Some(hooks) = object(container, "lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(hook) = object(hooks, name) {
                action(hook);
            }
        }
    }
}

/// `Always` for images tagged latest or not at all, `IfNotPresent` for all others.
pub(super) fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match (tag, digest) {
        (Some("latest"), _) => "Always",
        (None, None) if !image.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Fields) {
    empty(probe, "timeoutSeconds", 1);
    empty(probe, "periodSeconds", 10);
    empty(probe, "successThreshold", 1);
    empty(probe, "failureThreshold", 3);
    if let Some(grpc) = object(probe, "grpc") {
        unset(grpc, "service", "");
    }
    action(probe);
}

/// The HTTP request of a probe or a hook.
fn action(handler: &mut Fields) {
    if let Some(request) = object(handler, "httpGet") {
        empty(request, "path", "/");
        empty(request, "scheme", "HTTP");
    }
}
