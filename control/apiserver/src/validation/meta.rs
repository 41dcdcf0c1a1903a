//! Metadata: names, labels, annotations, owners, finalizers.
//!
//! In: an object of any kind. Out: what is wrong with its metadata, in `Errors`.

use std::collections::HashSet;

use serde_json::Value;
use xebec_api::{names, wellknown::finalizers};

use super::field::{Errors, Field};
use super::{object_name, rules};
use crate::kinds::Gvk;

/// All annotations together, keys included.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;
const MANAGER_LIMIT: usize = 128;

/// The metadata of a new object.
pub(super) fn create(gvk: &Gvk, object: &Field<'_>, errors: &mut Errors) {
    let metadata = object.child("metadata");
    let generate = metadata.child("generateName");
    if !generate.text().is_empty() {
        errors.invalid_all(&generate, object_name::prefix_problems(gvk, generate.text()));
    }
    let name = metadata.child("name");
    if name.text().is_empty() {
        errors.required(&name, "name or generateName is required");
    } else {
        errors.invalid_all(&name, object_name::problems(gvk, name.text()));
    }
    rules::optional_name(&metadata.child("namespace"), names::dns1123_label, errors);
    common(&metadata, errors);
}

/// The metadata of a changed object.
pub(super) fn update(object: &Field<'_>, old: &Value, errors: &mut Errors) {
    let metadata = object.child("metadata");
    let old = old.get("metadata").unwrap_or(&Value::Null);
    let is_deleted = old.get("deletionTimestamp").is_some_and(|time| !time.is_null());
    if is_deleted {
        no_new_finalizers(&metadata.child("finalizers"), old, errors);
    }
    let generation = metadata.child("generation");
    let former = old.get("generation").and_then(Value::as_i64).unwrap_or_default();
    if generation.int().unwrap_or_default() < former {
        errors.invalid(&generation, "must not be decremented");
    }
    rules::immutable_all(&metadata, old, &["name", "namespace", "uid", "creationTimestamp"], errors);
    if is_deleted {
        rules::immutable_all(&metadata, old, &["deletionTimestamp"], errors);
    }
    common(&metadata, errors);
}

/// Labels as objects carry and selectors demand them.
pub(super) fn labels(labels: &Field<'_>, errors: &mut Errors) {
    for (key, value) in labels.entries() {
        let key_value = Value::from(key);
        errors.invalid_all(&labels.with(&key_value), names::label_key(key));
        errors.invalid_all(&labels.with(value.value()), names::label_value(value.text()));
    }
}

/// Annotations: any value, keys in any case, a limit on all of them.
pub(super) fn annotations(annotations: &Field<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in annotations.entries() {
        size += key.len() + value.text().len();
        let key_value = Value::from(key);
        errors.invalid_all(&annotations.with(&key_value), names::label_key(&key.to_lowercase()));
    }
    if size > ANNOTATIONS_LIMIT {
        errors.too_long(annotations, ANNOTATIONS_LIMIT);
    }
}

fn common(metadata: &Field<'_>, errors: &mut Errors) {
    rules::nonnegative(&metadata.child("generation"), errors);
    labels(&metadata.child("labels"), errors);
    annotations(&metadata.child("annotations"), errors);
    owners(&metadata.child("ownerReferences"), errors);
    finalizer_names(&metadata.child("finalizers"), errors);
    managers(&metadata.child("managedFields"), errors);
}

fn owners(owners: &Field<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners.items() {
        let version = owner.child("apiVersion");
        let parts = version.text().split('/').count();
        if version.text().is_empty() {
            errors.required(&version, "must not be empty");
        } else if parts > 2 || version.text().ends_with('/') {
            errors.invalid(&version, "must be <group>/<version> or <version>");
        }
        for name in ["kind", "name", "uid"] {
            let field = owner.child(name);
            if field.text().is_empty() {
                errors.required(&field, "must not be empty");
            }
        }
        let (kind, name) = (owner.child("kind"), owner.child("name"));
        if version.text() == "v1" && kind.text() == "Event" {
            errors.invalid(&owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.child("controller").flag() {
            let this = format!("{}/{}", kind.text(), name.text());
            match &controller {
                Some(first) => errors.invalid(
                    owners,
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for \
                         {first} and {this}"
                    ),
                ),
                None => controller = Some(this),
            }
        }
    }
}

fn finalizer_names(list: &Field<'_>, errors: &mut Errors) {
    let mut has = [false; 2];
    for finalizer in list.items() {
        let name = finalizer.text();
        errors.invalid_all(&list.with(finalizer.value()), names::qualified_name(name));
        let standard = [finalizers::ORPHAN, finalizers::FOREGROUND_DELETION, finalizers::NAMESPACE];
        if !name.contains('/') && !standard.contains(&name) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&list.with(finalizer.value()), detail);
        }
        has[0] |= name == finalizers::ORPHAN;
        has[1] |= name == finalizers::FOREGROUND_DELETION;
    }
    if has == [true; 2] {
        errors.invalid(list, "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

fn no_new_finalizers(new: &Field<'_>, old: &Value, errors: &mut Errors) {
    let former = old.get("finalizers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let former: HashSet<&Value> = former.iter().collect();
    let mut added: Vec<String> = new
        .items()
        .filter(|item| !former.contains(item.value()))
        .map(|item| format!("{:?}", item.text()))
        .collect();
    if !added.is_empty() {
        added.sort_unstable();
        let detail = "no new finalizers can be added if the object is being deleted, found new finalizers";
        errors.forbidden(new, format!("{detail} []string{{{}}}", added.join(", ")));
    }
}

fn managers(entries: &Field<'_>, errors: &mut Errors) {
    for entry in entries.items() {
        let operation = entry.child("operation");
        if operation.text().is_empty() {
            errors.required(&operation, "must not be empty");
        } else {
            rules::optional_one_of(&operation, &["Apply", "Update"], errors);
        }
        let kind = entry.child("fieldsType");
        if !matches!(kind.text(), "" | "FieldsV1") {
            errors.invalid(&kind, "must be `FieldsV1`");
        }
        let manager = entry.child("manager");
        if manager.text().len() > MANAGER_LIMIT {
            errors.too_long(&manager, MANAGER_LIMIT);
        }
    }
}
