//! Keeps pods off tainted nodes they do not tolerate, and rather off softly tainted ones.
//!
//! In: taints, tolerations. Out: rejections, scores. Pure.

use k8s_openapi::api::core::v1::{Taint, Toleration};
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

/// Some toleration covers the taint.
pub(crate) fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| covers(toleration, taint))
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => {
            let value = toleration.value.as_deref().unwrap_or_default();
            !key.is_empty() && value == taint.value.as_deref().unwrap_or_default()
        }
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tolerations_cover_by_effect_key_operator_and_value() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "a", "value": "b", "effect": NO_SCHEDULE})).unwrap();
        let cases = [
            (json!({"key": "a", "value": "b", "effect": NO_SCHEDULE}), true),
            (json!({"key": "a", "operator": "Equal", "value": "b"}), true),
            (json!({"key": "a", "operator": "Equal", "value": "c"}), false),
            (json!({"key": "a", "operator": "Exists"}), true),
            (json!({"key": "b", "operator": "Exists"}), false),
            (json!({"operator": "Exists"}), true),
            (json!({"operator": "Exists", "effect": NO_EXECUTE}), false),
            (json!({"key": "a", "operator": "Near", "value": "b"}), false),
            (json!({}), false),
        ];
        for (toleration, expected) in cases {
            let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&[parsed], &taint), expected, "{toleration}");
        }
    }
}
