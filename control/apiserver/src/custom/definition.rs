//! CustomResourceDefinitions: which are taken, and what the server says of them.
//!
//! In: definitions on their way into the store. Out: the same with conditions, accepted names and stored versions; or
//! what is wrong with them. A definition whose names are free is served as soon as it is written.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Value, json};
use xebec_api::names;

use super::structural::Structural;
use super::{check, fill};
use crate::field_error::FieldError;
use crate::kinds;
use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::strategy::Strategy;

mod junctors;
mod schema;

/// Holds a definition back until its objects are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const APPROVAL: &str = "api-approved.kubernetes.io";

pub(crate) struct DefinitionStrategy;

impl Strategy for DefinitionStrategy {
    fn prepare_create(&self, cx: &Cx<'_>, object: &mut Value) -> Result<(), ApiError> {
        meta::set(object, &["status"], None);
        set_status(cx, object);
        warn(cx, object);
        Ok(())
    }

    fn prepare_update(&self, cx: &Cx<'_>, new: &mut Value, _old: &Value) -> Result<(), ApiError> {
        set_status(cx, new);
        warn(cx, new);
        Ok(())
    }

    fn check(&self, _cx: &Cx<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = problems(new);
        match old {
            Some(old) => errors.extend(changes(new, old)),
            None => errors.extend(group_problem(meta::text(new, &["spec", "group"]))),
        }
        errors
    }

    fn mark_deleting(&self, object: &mut Value) {
        let mut finalizers = meta::finalizers(object);
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
            meta::set_finalizers(object, &finalizers);
        }
        let message = "CustomResource deletion is in progress";
        set_condition(object, "Terminating", true, "InstanceDeletionInProgress", message);
    }
}

/// What is kept but not done.
fn warn(cx: &Cx<'_>, object: &Value) {
    if meta::text(object, &["spec", "conversion", "strategy"]) == "Webhook" {
        cx.warn(
            "spec.conversion: webhooks are not called in this version of xebec: only apiVersion is changed",
        );
    }
    let versions = meta::items(object, &["spec", "versions"]);
    if versions.into_iter().any(|version| version.to_string().contains("\"x-kubernetes-validations\":")) {
        cx.warn("x-kubernetes-validations are kept but not evaluated in this version of xebec");
    }
}

/// Conditions, accepted names and stored versions, from the spec and the other definitions of the group.
fn set_status(cx: &Cx<'_>, object: &mut Value) {
    let conflict = conflict(cx, object);
    let text = |path: &[&str]| meta::text(object, path).to_owned();
    let storage = meta::items(object, &["spec", "versions"])
        .find(|version| version["storage"] == true)
        .map(|version| meta::text(version, &["name"]).to_owned());
    let mut stored: Vec<Value> = meta::items(object, &["status", "storedVersions"]).cloned().collect();
    if let Some(storage) = storage.map(Value::from).filter(|storage| !stored.contains(storage)) {
        stored.push(storage);
    }
    let accepted = if conflict.is_none() {
        meta::at(object, &["spec", "names"]).cloned().unwrap_or_default()
    } else {
        let held = meta::at(object, &["status", "acceptedNames"]).cloned();
        held.unwrap_or_else(|| json!({ "kind": text(&["spec", "names", "kind"]), "plural": "" }))
    };
    meta::set(object, &["status", "acceptedNames"], Some(accepted));
    meta::set(object, &["status", "storedVersions"], Some(stored.into()));
    match conflict {
        None => {
            set_condition(object, "NamesAccepted", true, "NoConflicts", "no conflicts found");
            let message = "the initial names have been accepted";
            set_condition(object, "Established", true, "InitialNamesAccepted", message);
        }
        Some((reason, message)) => {
            set_condition(object, "NamesAccepted", false, reason, &message);
            let established = meta::items(object, &["status", "conditions"])
                .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
            if !established {
                set_condition(object, "Established", false, "NotAccepted", "not all names are accepted");
            }
        }
    }
}

fn set_condition(object: &mut Value, kind: &str, holds: bool, reason: &str, message: &str) {
    let status = if holds { "True" } else { "False" };
    let mut conditions: Vec<Value> = meta::items(object, &["status", "conditions"]).cloned().collect();
    let mut wanted = json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": meta::time(Timestamp::now()),
    });
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(held) => {
            if held["status"] == status {
                wanted["lastTransitionTime"] = held["lastTransitionTime"].take();
            }
            *held = wanted;
        }
        None => conditions.push(wanted),
    }
    meta::set(object, &["status", "conditions"], Some(conditions.into()));
}

/// A name that another definition of the group has, as reason and message.
fn conflict(cx: &Cx<'_>, object: &Value) -> Option<(&'static str, String)> {
    let group = meta::text(object, &["spec", "group"]);
    let others = cx.registry.store.list(super::PREFIX.as_bytes(), None, 0, None).ok()?;
    let others: Vec<Value> = others
        .items
        .iter()
        .filter_map(|kv| crate::stored::Stored::from(kv).decode().ok())
        .filter(|other| {
            meta::text(other, &["spec", "group"]) == group && meta::name(other) != meta::name(object)
        })
        .collect();
    let taken = |fields: &[&str]| -> Vec<String> {
        let accepted = others.iter().filter_map(|other| meta::at(other, &["status", "acceptedNames"]));
        accepted
            .flat_map(|names| fields.iter().flat_map(|field| texts(&names[*field])).collect::<Vec<_>>())
            .collect()
    };
    let resources = taken(&["plural", "singular", "shortNames"]);
    let kinds = taken(&["kind", "listKind"]);
    let wanted = |field: &str| texts(&object["spec"]["names"][field]);
    for (field, reason, taken) in [
        ("plural", "PluralConflict", &resources),
        ("singular", "SingularConflict", &resources),
        ("shortNames", "ShortNamesConflict", &resources),
        ("kind", "KindConflict", &kinds),
        ("listKind", "ListKindConflict", &kinds),
    ] {
        if let Some(name) = wanted(field).into_iter().find(|name| taken.contains(name)) {
            return Some((reason, format!("{name:?} is already in use")));
        }
    }
    None
}

/// A text, or a list of texts.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// What is wrong with a definition by itself.
fn problems(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let text = |path: &[&str]| meta::text(object, path);
    let (group, plural) = (text(&["spec", "group"]), text(&["spec", "names", "plural"]));
    if meta::name(object) != format!("{plural}.{group}") {
        errors.push(FieldError::invalid(
            "metadata.name",
            &meta::name(object).into(),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !names::dns1123_subdomain(group).is_empty() || !group.contains('.') {
        let detail = "should be a domain with at least one dot";
        errors.push(FieldError::invalid("spec.group", &group.into(), detail));
    }
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.ends_with(&format!(".{domain}")));
    if protected && meta::text(object, &["metadata", "annotations", APPROVAL]).is_empty() {
        let detail = format!("protected groups must have approval annotation {APPROVAL:?}");
        errors.push(FieldError::required(format!("metadata.annotations[{APPROVAL}]"), detail));
    }
    let scope = text(&["spec", "scope"]);
    if !["Cluster", "Namespaced"].contains(&scope) {
        errors.push(FieldError::not_supported("spec.scope", &scope.into(), &["Cluster", "Namespaced"]));
    }
    if object["spec"]["preserveUnknownFields"] == true {
        let detail = "must be false in order to use defaults or pruning: set \
                      x-kubernetes-preserve-unknown-fields: true in the schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", &true.into(), detail));
    }
    errors.extend(names_problems(object));
    errors.extend(versions_problems(object));
    errors
}

/// What is kept below a built-in group is taken for built-in objects: for roles, to begin with.
fn group_problem(group: &str) -> Option<FieldError> {
    let taken = kinds::builtin().iter().any(|resource| &*resource.gvk.group == group);
    let detail = "is a built-in group, to which nothing can be added";
    taken.then(|| FieldError::invalid("spec.group", &group.into(), detail))
}

fn names_problems(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let own = &object["spec"]["names"];
    for field in ["plural", "singular", "kind", "listKind"] {
        let (path, name) = (format!("spec.names.{field}"), meta::text(own, &[field]));
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        for problem in names::dns1035_label(&name.to_lowercase()) {
            errors.push(FieldError::invalid(&*path, &name.into(), problem));
        }
    }
    if meta::text(own, &["kind"]) == meta::text(own, &["listKind"]) {
        let kind = meta::text(own, &["listKind"]);
        errors.push(FieldError::invalid(
            "spec.names.listKind",
            &kind.into(),
            "kind and listKind may not be the same",
        ));
    }
    errors
}

fn versions_problems(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let versions: Vec<&Value> = meta::items(object, &["spec", "versions"]).collect();
    let mut seen = HashSet::new();
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = meta::text(version, &["name"]);
        for problem in names::dns1035_label(name) {
            errors.push(FieldError::invalid(format!("{path}.name"), &name.into(), problem));
        }
        if !seen.insert(name) {
            errors.push(FieldError::invalid(
                format!("{path}.name"),
                &name.into(),
                "must contain unique version names",
            ));
        }
        let path = format!("{path}.schema.openAPIV3Schema");
        match meta::at(version, &["schema", "openAPIV3Schema"]) {
            None => errors.push(FieldError::required(path, "schemas are required")),
            Some(published) => errors.extend(schema::problems(published, &path)),
        }
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let shown = json!(versions);
        errors.push(FieldError::invalid(
            "spec.versions",
            &shown,
            "must have exactly one version marked as storage version",
        ));
    }
    for (index, stored) in meta::items(object, &["status", "storedVersions"]).enumerate() {
        let name = stored.as_str().unwrap_or_default();
        if !seen.contains(name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            errors.push(FieldError::invalid(format!("status.storedVersions[{index}]"), stored, detail));
        }
    }
    errors
}

/// What may not change once objects may be there.
fn changes(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for path in
        [&["spec", "group"][..], &["spec", "scope"], &["spec", "names", "kind"], &["spec", "names", "plural"]]
    {
        let (now, before) = (meta::at(new, path), meta::at(old, path));
        if now != before {
            let value = now.cloned().unwrap_or_default();
            errors.push(FieldError::invalid(path.join("."), &value, "field is immutable"));
        }
    }
    errors
}

/// Whether a default is what its own schema allows.
fn default_problems(schema: &Structural, default: &Value, path: &str) -> Vec<FieldError> {
    let mut filled = default.clone();
    fill::fill(&mut filled, schema);
    let problems = check::check(&filled, schema);
    problems
        .into_iter()
        .map(|problem| FieldError::invalid(format!("{path}.default"), default, problem.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        json!({
            "metadata": {"name": "ships.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "ships", "singular": "ship", "kind": "Ship", "listKind": "ShipList"},
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}},
                }],
            },
        })
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(problems(&definition()), []);
        for (path, value, told) in [
            ("/metadata/name", json!("boats.example.com"), "metadata.name: Invalid value"),
            ("/spec/group", json!("example"), "should be a domain with at least one dot"),
            ("/spec/group", json!("x.k8s.io"), "protected groups must have approval annotation"),
            ("/spec/scope", json!("Everywhere"), "spec.scope: Unsupported value"),
            ("/spec/names/listKind", json!("Ship"), "kind and listKind may not be the same"),
            ("/spec/names/kind", json!(""), "spec.names.kind: Required value"),
            (
                "/spec/versions/0/storage",
                json!(false),
                "must have exactly one version marked as storage version",
            ),
            ("/spec/versions/0/schema", json!({}), "schemas are required"),
            ("/spec/versions/0/schema/openAPIV3Schema", json!({}), "must not be empty at the root"),
            (
                "/spec/versions/0/schema/openAPIV3Schema/properties",
                json!({"a": {"type": "integer", "default": "x"}}),
                ".default: Invalid value",
            ),
            (
                "/spec/versions/0/schema/openAPIV3Schema/properties",
                json!({"a": {}}),
                "must not be empty for specified object fields",
            ),
        ] {
            let mut object = definition();
            let (parent, field) = path.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[field] = value;
            let told_all: Vec<String> = problems(&object).iter().map(ToString::to_string).collect();
            assert!(told_all.iter().any(|problem| problem.contains(told)), "{path}: {told_all:?}");
        }
    }

    #[test]
    fn groups_of_the_server_are_not_added_to() {
        for group in ["rbac.authorization.k8s.io", "networking.k8s.io", "certificates.k8s.io", "apps"] {
            assert!(group_problem(group).is_some(), "{group}");
        }
        for group in ["example.com", "gateway.networking.k8s.io", "snapshot.storage.k8s.io"] {
            assert_eq!(group_problem(group), None, "{group}");
        }
    }

    #[test]
    fn conditions_keep_the_time_of_their_change() {
        let mut object = json!({"status": {"conditions": [
            {"type": "Established", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]}});
        set_condition(&mut object, "Established", true, "R", "m");
        assert_eq!(object["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        set_condition(&mut object, "Established", false, "R", "m");
        assert_ne!(object["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    }
}
