//! Nodes.
//!
//! In: nodes on their way into the store. Out: with allocatable resources where only the capacity was said.

use serde_json::Value;

use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::strategy::Strategy;

pub(crate) struct NodeStrategy;

impl Strategy for NodeStrategy {
    fn prepare_create(&self, _cx: &Cx<'_>, object: &mut Value) -> Result<(), ApiError> {
        set_allocatable(object);
        Ok(())
    }

    fn prepare_status(&self, new: &mut Value, _old: &Value) {
        set_allocatable(new);
    }
}

fn set_allocatable(node: &mut Value) {
    if meta::at(node, &["status", "allocatable"]).is_none()
        && let Some(capacity) = meta::at(node, &["status", "capacity"]).cloned()
    {
        meta::set(node, &["status", "allocatable"], Some(capacity));
    }
}
