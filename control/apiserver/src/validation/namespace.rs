//! Namespaces.
//!
//! In: a Namespace. Out: what is wrong with its finalizers and its phase, in `Errors`.

use xebec_api::names;

use super::field::{Errors, Field};

pub(super) fn namespace(object: &Field<'_>, errors: &mut Errors) {
    let spec = object.child("spec");
    let finalizers = spec.child("finalizers");
    for finalizer in finalizers.items() {
        errors.invalid_all(&finalizers.with(finalizer.value()), names::qualified_name(finalizer.text()));
    }
}

pub(super) fn status(object: &Field<'_>, errors: &mut Errors) {
    let (status, metadata) = (object.child("status"), object.child("metadata"));
    // The spelling of the field in the path is upstream's.
    let shown = status.child("Phase");
    let phase = status.child("phase");
    if metadata.child("deletionTimestamp").is_set() {
        if phase.text() != "Terminating" {
            let detail = "may only be 'Terminating' if `deletionTimestamp` is not empty";
            errors.invalid(&shown.with(phase.value()), detail);
        }
    } else if phase.text() != "Active" {
        errors.invalid(&shown.with(phase.value()), "may only be 'Active' if `deletionTimestamp` is empty");
    }
}
