//! Defaults of role bindings.
//!
//! In: the fields of an object. Out: the same, filled.

use super::fill::{Fields, empty, ensure, objects, text};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn binding(binding: &mut Fields) {
    if let Some(role) = ensure(binding, "roleRef") {
        empty(role, "apiGroup", GROUP);
    }
    for subject in objects(binding, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            empty(subject, "apiGroup", GROUP);
        }
    }
}
