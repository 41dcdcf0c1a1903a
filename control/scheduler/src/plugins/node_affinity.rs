//! Puts pods where their `nodeSelector` and node affinity say.
//!
//! In: the pod's wishes, node names and labels. Out: rejections, scores. Pure.

use crate::diagnosis::{Candidates, Verdict};
use crate::events::ClusterEvents;
use crate::framework::{Cycle, Plugin, PreFilter, default_normalize_score};
use crate::node_set::Row;

pub(crate) struct NodeAffinityPlugin;

impl Plugin for NodeAffinityPlugin {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn pre_filter<'a>(&self, cycle: Cycle<'a>) -> PreFilter<'a> {
        if cycle.pod.affinity.demands_nothing() {
            return PreFilter::Skip;
        }
        cycle.pod.affinity.named_nodes().map_or(PreFilter::Filter, PreFilter::Only)
    }

    fn filter(&self, cycle: Cycle<'_>, candidates: &mut Candidates) {
        let reason = "node(s) didn't match Pod's node affinity/selector";
        candidates.retain(self.name(), Verdict::UnschedulableAndUnresolvable, reason, |row| {
            cycle.pod.affinity.matches(&cycle.table.facts(row))
        });
    }

    fn helped_by(&self) -> ClusterEvents {
        ClusterEvents::NODE_LABEL
    }

    fn weight(&self) -> i64 {
        2
    }

    fn pre_score(&self, cycle: Cycle<'_>) -> bool {
        !cycle.pod.affinity.prefers_nothing()
    }

    fn score(&self, cycle: Cycle<'_>, rows: &[Row], scores: &mut [i64]) {
        for (row, score) in rows.iter().zip(scores) {
            *score = cycle.pod.affinity.preference(&cycle.table.facts(*row));
        }
    }

    fn normalize_score(&self, _: Cycle<'_>, _: &[Row], scores: &mut [i64]) {
        default_normalize_score(scores, false);
    }
}
