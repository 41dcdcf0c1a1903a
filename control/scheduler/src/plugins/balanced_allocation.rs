//! Prefers nodes whose CPU and memory would be used to the same degree.
//!
//! In: requests, allocatable and requested columns. Out: scores. Pure.

use crate::framework::{Cycle, MAX_NODE_SCORE, Plugin};
use crate::node_set::Row;

pub(crate) struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn pre_score(&self, cycle: Cycle<'_>) -> bool {
        // A pod that requests nothing leaves the balance as it is.
        !cycle.pod.requests.is_zero()
    }

    fn score(&self, cycle: Cycle<'_>, rows: &[Row], scores: &mut [i64]) {
        let (table, wanted) = (cycle.table, &cycle.pod.requests);
        for (row, score) in rows.iter().zip(scores) {
            let cpu = fraction(
                table.requested.milli_cpu[*row] + wanted.milli_cpu,
                table.allocatable.milli_cpu[*row],
            );
            let memory =
                fraction(table.requested.memory[*row] + wanted.memory, table.allocatable.memory[*row]);
            let deviation = match (cpu, memory) {
                // The standard deviation of two values.
                (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
                _ => 0.0,
            };
            // Within 0..=100, so the cast is exact enough.
            *score = ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64;
        }
    }
}

fn fraction(requested: i64, allocatable: i64) -> Option<f64> {
    (allocatable > 0).then(|| (requested as f64 / allocatable as f64).min(1.0))
}
