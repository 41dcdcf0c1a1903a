//! Roles and bindings: nobody hands out what they do not have.
//!
//! In: roles and bindings on their way into the store, who writes them. Out: the same, or 403.

use serde_json::Value;

use crate::authz::escalation;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::strategy::Strategy;

pub(crate) struct RoleStrategy;
pub(crate) struct BindingStrategy;

impl Strategy for RoleStrategy {
    fn prepare_create(&self, cx: &Cx<'_>, object: &mut Value) -> Result<(), ApiError> {
        escalation::check_role(cx, object, None)
    }

    fn prepare_update(&self, cx: &Cx<'_>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
        escalation::check_role(cx, new, Some(old))
    }
}

impl Strategy for BindingStrategy {
    fn prepare_create(&self, cx: &Cx<'_>, object: &mut Value) -> Result<(), ApiError> {
        escalation::check_binding(cx, object, None)
    }

    fn prepare_update(&self, cx: &Cx<'_>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
        escalation::check_binding(cx, new, Some(old))
    }
}
