//! Admission: what is changed or refused for reasons beyond the form of the object.
//!
//! In: a write, the object it would make, the one it would change or remove. Out: the object with what the cluster adds
//! to it, or 403. `mutate` comes before validation, `validate` after it, as upstream orders them; quotas come last.
//! Absent: what concerns one kind alone and no configuration; strategies do that.

use serde_json::Value;

use crate::registry::{Cx, Served};
use crate::status::ApiError;

mod demand;
mod external_ips;
mod limit_ranger;
mod node_restriction;
mod pod_security;
pub(crate) mod quota;

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

/// Adds to a new object what the cluster wants in it.
pub(crate) fn mutate(cx: &Cx<'_>, admit: &Admit<'_>, object: &mut Value) {
    limit_ranger::mutate(cx, admit, object);
}

/// Refuses what must not be; `object` is the one to be written, or the one to be deleted.
pub(crate) fn validate(cx: &Cx<'_>, admit: &Admit<'_>, object: &Value) -> Result<(), ApiError> {
    node_restriction::validate(cx, admit, object)?;
    external_ips::validate(cx, admit, object)?;
    limit_ranger::validate(cx, admit, object)?;
    pod_security::validate(cx, admit, object)
}
