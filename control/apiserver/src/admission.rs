//! Admission: what is refused for reasons beyond the form of the object.
//!
//! In: a write, the object it would make, the one it would change or remove. Out: 403, or nothing. Absent: what concerns
//! one kind alone and no configuration; strategies do that.

use serde_json::Value;

use crate::registry::{Cx, Served};
use crate::status::ApiError;

mod node_restriction;

/// What is to be done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// A write that is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Admit<'a> {
    pub(crate) served: &'a Served,
    pub(crate) operation: Operation,
    /// Empty for the object itself.
    pub(crate) subresource: &'a str,
    pub(crate) name: &'a str,
    /// The object before an update.
    pub(crate) old: Option<&'a Value>,
}

// === impl Admit ===

impl Admit<'_> {
    /// Group, resource and sub-resource, to be matched.
    fn target(&self) -> (&str, &str, &str) {
        let resource = &self.served.resource;
        (&resource.gvk.group, &resource.plural, self.subresource)
    }

    /// 403 about the object.
    fn refuse(&self, why: impl std::fmt::Display) -> ApiError {
        let resource = &self.served.resource;
        ApiError::forbidden(&resource.gvk.group, &resource.plural, self.name, why)
    }
}

/// Refuses what must not be; `object` is the one to be written, or the one to be deleted.
pub(crate) fn validate(cx: &Cx<'_>, admit: &Admit<'_>, object: &Value) -> Result<(), ApiError> {
    node_restriction::validate(cx, admit, object)
}
