//! Kinds that need nothing, or only a first phase.
//!
//! In: objects on their way into the store. Out: the same.

use serde_json::{Value, json};

use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::strategy::Strategy;

/// Served by the defaults alone.
pub(crate) struct Generic;

/// Kinds whose status begins with the phase `Pending`.
pub(crate) struct PendingStrategy;

impl Strategy for Generic {}

impl Strategy for PendingStrategy {
    fn prepare_create(&self, _cx: &Cx<'_>, object: &mut Value) -> Result<(), ApiError> {
        meta::set(object, &["status"], Some(json!({ "phase": "Pending" })));
        Ok(())
    }
}
