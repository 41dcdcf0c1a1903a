//! Environment variables and where their values come from.
//!
//! In: the fields `env` and `envFrom` of a container, field references of volumes. Out: what is wrong, in `Errors`.

use serde_json::Value;
use xebec_api::names;

use super::field::{Errors, Field};
use super::rules;

const SOURCES: &[&str] = &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

/// Fields of a pod an environment variable can take, sorted.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of a pod a file can take, sorted.
pub(super) const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// All fields there are references to.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.hostNetwork",
    "status.phase",
    "status.nominatedNodeName",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn variables(variables: &Field<'_>, errors: &mut Errors) {
    for variable in variables.items() {
        rules::required_name(&variable.child("name"), names::relaxed_env_var_name, errors);
        let source = variable.child("valueFrom");
        if source.is_set() {
            value_source(&variable, &source, errors);
        }
    }
}

fn value_source(variable: &Field<'_>, source: &Field<'_>, errors: &mut Errors) {
    let set = SOURCES.iter().filter(|name| source.child(name).is_set()).count();
    let field = source.child("fieldRef");
    if field.is_set() {
        field_reference(&field, ENV_FIELDS, true, errors);
    }
    let resource = source.child("resourceFieldRef");
    if resource.is_set() {
        resource_reference(&resource, false, errors);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        let reference = source.child(name);
        if reference.is_set() {
            rules::required_name(&reference.child("key"), names::config_map_key, errors);
        }
    }
    let file = source.child("fileKeyRef");
    if file.is_set() {
        for name in ["key", "volumeName", "path"] {
            let field = file.child(name);
            if field.text().is_empty() {
                errors.required(&field, "");
            }
        }
    }
    let empty = Value::from("");
    let place = source.with(&empty);
    if set == 0 {
        let detail = "must specify one of: `configMapKeyRef`, `fieldRef`, `fileKeyRef`, `resourceFieldRef` or \
                      `secretKeyRef`";
        errors.invalid(&place, detail);
    } else if !variable.child("value").text().is_empty() {
        errors.invalid(&place, "may not be specified when `value` is not empty");
    } else if set > 1 {
        errors.invalid(&place, "may not have more than one field specified at a time");
    }
}

/// A reference to a field of the pod itself.
pub(super) fn field_reference(
    reference: &Field<'_>,
    supported: &[&str],
    subscripts: bool,
    errors: &mut Errors,
) {
    let (version, path) = (reference.child("apiVersion"), reference.child("fieldPath"));
    if version.text().is_empty() {
        errors.required(&version, "");
        return;
    }
    if path.text().is_empty() {
        errors.required(&path, "");
        return;
    }
    if version.text() != "v1" {
        errors.invalid(
            &path,
            format!("error converting fieldPath: unsupported pod version: {}", version.text()),
        );
        return;
    }
    if let Some((field, key)) = subscript(path.text()) {
        let problems = match (field, subscripts) {
            ("metadata.annotations", _) => names::qualified_name(&key.to_lowercase()),
            ("metadata.labels", _) => names::qualified_name(key),
            _ => vec![format!("path {field:?} does not support subscript")],
        };
        errors.invalid_all(&path, problems);
        return;
    }
    if supported.contains(&path.text()) {
        return;
    }
    if KNOWN_FIELDS.contains(&path.text()) || ENV_FIELDS.contains(&path.text()) {
        errors.not_supported(&path, supported);
    } else {
        errors.invalid(
            &path,
            format!("error converting fieldPath: field label not supported: {}", path.text()),
        );
    }
}

/// `metadata.labels['key']` as field and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

/// A reference to a resource of a container.
pub(super) fn resource_reference(reference: &Field<'_>, of_volume: bool, errors: &mut Errors) {
    let (container, resource) = (reference.child("containerName"), reference.child("resource"));
    if of_volume && container.text().is_empty() {
        errors.required(&container, "");
        return;
    }
    let text = resource.text();
    if text.is_empty() {
        errors.required(&resource, "");
    } else if !RESOURCES.contains(&text)
        && !text.starts_with("requests.hugepages-")
        && !text.starts_with("limits.hugepages-")
    {
        errors.not_supported(&resource, RESOURCES);
    }
}

pub(super) fn sources(sources: &Field<'_>, errors: &mut Errors) {
    for source in sources.items() {
        rules::optional_name(&source.child("prefix"), names::relaxed_env_var_name, errors);
        let (map, secret) = (source.child("configMapRef"), source.child("secretRef"));
        for reference in [&map, &secret] {
            if reference.is_set() && reference.child("name").text().is_empty() {
                errors.required(&reference.child("name"), "");
            }
        }
        let empty = Value::from("");
        match (map.is_set(), secret.is_set()) {
            (false, false) => {
                errors.invalid(&source.with(&empty), "must specify one of: `configMapRef` or `secretRef`");
            }
            (true, true) => {
                errors.invalid(&source.with(&empty), "may not have more than one field specified at a time");
            }
            _ => {}
        }
    }
}
