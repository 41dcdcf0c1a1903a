//! Workloads: counts that upstream always writes, labels that the status door does not change.
//!
//! In: workloads on their way into the store. Out: with a status whose required counts are there.

use serde_json::{Value, json};

use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::strategy::Strategy;

pub(crate) struct WorkloadStrategy;

impl Strategy for WorkloadStrategy {
    fn prepare_create(&self, _cx: &Cx<'_>, object: &mut Value) -> Result<(), ApiError> {
        let status = match meta::text(object, &["kind"]) {
            "ReplicaSet" | "ReplicationController" => json!({ "replicas": 0 }),
            "StatefulSet" => json!({ "replicas": 0, "availableReplicas": 0 }),
            "DaemonSet" => json!({
                "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
            }),
            "PodDisruptionBudget" => json!({
                "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0,
            }),
            _ => json!({}),
        };
        meta::set(object, &["status"], Some(status));
        Ok(())
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        let labels = meta::at(old, &["metadata", "labels"]).cloned();
        meta::set(new, &["metadata", "labels"], labels);
    }
}
