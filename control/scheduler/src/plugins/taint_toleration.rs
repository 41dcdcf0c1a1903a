//! Keeps pods off tainted nodes they do not tolerate, and rather off softly tainted ones.
//!
//! In: taints, tolerations. Out: rejections, scores. Pure.

use xebec_api::tolerations::tolerates;
use xebec_api::wellknown::taints::{NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE};

use crate::diagnosis::{Candidates, Verdict};
use crate::events::ClusterEvents;
use crate::framework::{Cycle, Plugin, PreFilter, default_normalize_score};
use crate::node_set::Row;

pub(crate) struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn pre_filter<'a>(&self, cycle: Cycle<'a>) -> PreFilter<'a> {
        if cycle.table.tainted.is_empty() { PreFilter::Skip } else { PreFilter::Filter }
    }

    fn filter(&self, cycle: Cycle<'_>, candidates: &mut Candidates) {
        let reason = "node(s) had untolerated taint(s)";
        candidates.retain(self.name(), Verdict::UnschedulableAndUnresolvable, reason, |row| {
            !cycle.table.tainted.contains(row)
                || cycle.table.taints[row]
                    .iter()
                    .filter(|taint| taint.effect == NO_SCHEDULE || taint.effect == NO_EXECUTE)
                    .all(|taint| tolerates(&cycle.pod.tolerations, taint))
        });
    }

    fn helped_by(&self) -> ClusterEvents {
        ClusterEvents::NODE_TAINT
    }

    fn weight(&self) -> i64 {
        3
    }

    fn pre_score(&self, cycle: Cycle<'_>) -> bool {
        !cycle.table.softly_tainted.is_empty()
    }

    fn score(&self, cycle: Cycle<'_>, rows: &[Row], scores: &mut [i64]) {
        for (row, score) in rows.iter().zip(scores) {
            let taints = cycle.table.taints[*row].iter().filter(|taint| taint.effect == PREFER_NO_SCHEDULE);
            let untolerated = taints.filter(|taint| !tolerates(&cycle.pod.tolerations, taint)).count();
            *score = i64::try_from(untolerated).unwrap_or(i64::MAX);
        }
    }

    fn normalize_score(&self, _: Cycle<'_>, _: &[Row], scores: &mut [i64]) {
        default_normalize_score(scores, true);
    }
}
