//! Nodes.
//!
//! In: nodes on their way into the store. Out: with allocatable resources where only the capacity was said; new ones with
//! the taint that keeps pods off until the node is seen to be ready.

use serde_json::{Value, json};
use xebec_api::wellknown::taints::{NO_SCHEDULE, NOT_READY};

use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::strategy::Strategy;

pub(crate) struct NodeStrategy;

impl Strategy for NodeStrategy {
    fn prepare_create(&self, _cx: &Cx<'_>, object: &mut Value) -> Result<(), ApiError> {
        set_allocatable(object);
        taint(object);
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

/// The TaintNodesByCondition admission. Who watches the nodes takes the taint off.
fn taint(node: &mut Value) {
    let mut taints: Vec<Value> = meta::items(node, &["spec", "taints"]).cloned().collect();
    let is = |taint: &Value| {
        meta::text(taint, &["key"]) == NOT_READY && meta::text(taint, &["effect"]) == NO_SCHEDULE
    };
    if !taints.iter().any(is) {
        taints.push(json!({"key": NOT_READY, "effect": NO_SCHEDULE}));
        meta::set(node, &["spec", "taints"], Some(taints.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_node_is_tainted_once() {
        let mut node = json!({"spec": {"taints": [{"key": "mine", "effect": "NoExecute"}]}});
        for _ in 0..2 {
            taint(&mut node);
            assert_eq!(node["spec"]["taints"].as_array().map(Vec::len), Some(2));
        }
        assert_eq!(node["spec"]["taints"][1]["key"], NOT_READY);
    }
}
