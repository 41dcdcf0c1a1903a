//! Keeps pods off nodes that lack what they request, and prefers the node with the most left.
//!
//! In: requests, allocatable and requested columns. Out: rejections, LeastAllocated scores. Pure.

use std::borrow::Cow;

use crate::diagnosis::{Candidates, Verdict};
use crate::events::ClusterEvents;
use crate::framework::{Cycle, MAX_NODE_SCORE, Plugin, PreFilter};
use crate::node_set::Row;

pub(crate) struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn pre_filter<'a>(&self, _: Cycle<'a>) -> PreFilter<'a> {
        PreFilter::Filter
    }

    fn filter(&self, cycle: Cycle<'_>, candidates: &mut Candidates) {
        let rows: Vec<Row> = candidates.nodes.iter().collect();
        for row in rows {
            let lacking = insufficient(cycle, row);
            if lacking.is_empty() {
                continue;
            }
            // Where the pod is larger than the whole node, emptying the node does not help.
            let verdict = if lacking.iter().all(|(_, hopeless)| !hopeless) {
                Verdict::Unschedulable
            } else {
                Verdict::UnschedulableAndUnresolvable
            };
            candidates.reject(self.name(), row, verdict, lacking.into_iter().map(|(reason, _)| reason));
        }
    }

    fn helped_by(&self) -> ClusterEvents {
        ClusterEvents::NODE_ALLOCATABLE.and(ClusterEvents::POD_DELETED)
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, cycle: Cycle<'_>, rows: &[Row], scores: &mut [i64]) {
        let (table, wanted) = (cycle.table, &cycle.pod.requests_nonzero);
        for (row, score) in rows.iter().zip(scores) {
            let cpu = least_allocated(
                table.allocatable.milli_cpu[*row],
                table.requested_nonzero.milli_cpu[*row] + wanted.milli_cpu,
            );
            let memory = least_allocated(
                table.allocatable.memory[*row],
                table.requested_nonzero.memory[*row] + wanted.memory,
            );
            let known: Vec<i64> = [cpu, memory].into_iter().flatten().collect();
            *score = known.iter().sum::<i64>() / i64::try_from(known.len().max(1)).unwrap_or(1);
        }
    }
}

/// Share of the resource that stays free, in percent; `None` when the node has none of it.
fn least_allocated(allocatable: i64, requested: i64) -> Option<i64> {
    (allocatable > 0).then(|| {
        let free = i128::from(allocatable - requested).max(0);
        i64::try_from(free * i128::from(MAX_NODE_SCORE) / i128::from(allocatable)).unwrap_or(0)
    })
}

/// What the node lacks, and whether it would lack it even if it were empty.
fn insufficient(cycle: Cycle<'_>, row: Row) -> Vec<(Cow<'static, str>, bool)> {
    let (table, wanted) = (cycle.table, &cycle.pod.requests);
    let mut lacking = Vec::new();
    let pods = i64::try_from(table.pods[row].len()).unwrap_or(i64::MAX);
    if pods.saturating_add(1) > table.allowed_pods[row] {
        lacking.push((Cow::Borrowed("Too many pods"), false));
    }
    let columns = [
        ("Insufficient cpu", wanted.milli_cpu, &table.allocatable.milli_cpu, &table.requested.milli_cpu),
        ("Insufficient memory", wanted.memory, &table.allocatable.memory, &table.requested.memory),
        (
            "Insufficient ephemeral-storage",
            wanted.ephemeral_storage,
            &table.allocatable.ephemeral_storage,
            &table.requested.ephemeral_storage,
        ),
    ];
    for (reason, wanted, allocatable, requested) in columns {
        if wanted > 0 && wanted > allocatable[row] - requested[row] {
            lacking.push((Cow::Borrowed(reason), wanted > allocatable[row]));
        }
    }
    for (name, wanted) in wanted.scalars.iter().filter(|(_, wanted)| *wanted > 0) {
        let allocatable = table.allocatable.scalar(name, row);
        if *wanted > allocatable - table.requested.scalar(name, row) {
            lacking.push((Cow::Owned(format!("Insufficient {name}")), *wanted > allocatable));
        }
    }
    lacking
}
