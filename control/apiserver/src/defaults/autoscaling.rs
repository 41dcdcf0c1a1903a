//! Defaults of the HorizontalPodAutoscaler.
//!
//! In: the version and the fields of an object. Out: the same, filled.

use serde_json::{Value, json};

use super::fill::{Fields, ensure, object, unset};

pub(super) fn autoscaler(version: &str, autoscaler: &mut Fields) {
    let Some(spec) = ensure(autoscaler, "spec") else { return };
    unset(spec, "minReplicas", 1);
    if version == "v1" {
        return;
    }
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let cpu = json!([{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        spec.insert("metrics".to_owned(), cpu);
    }
    // Without a behavior the controller applies these itself.
    if let Some(behavior) = object(spec, "behavior") {
        if let Some(up) = ensure(behavior, "scaleUp") {
            unset(up, "stabilizationWindowSeconds", 0);
            unset(up, "selectPolicy", "Max");
            let policies = json!([
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ]);
            unset(up, "policies", policies);
        }
        if let Some(down) = ensure(behavior, "scaleDown") {
            unset(down, "selectPolicy", "Max");
            unset(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
        }
    }
}
