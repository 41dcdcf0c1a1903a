//! Keeps pods off cordoned nodes.
//!
//! In: `spec.unschedulable`, tolerations. Out: rejections. Pure.

use k8s_openapi::api::core::v1::Taint;
use xebec_api::wellknown::taints::{NO_SCHEDULE, UNSCHEDULABLE};

use crate::diagnosis::{Candidates, Verdict};
use crate::events::ClusterEvents;
use crate::framework::{Cycle, Plugin, PreFilter};
use xebec_api::tolerations::tolerates;

pub(crate) struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn pre_filter<'a>(&self, cycle: Cycle<'a>) -> PreFilter<'a> {
        let cordon =
            Taint { key: UNSCHEDULABLE.to_owned(), effect: NO_SCHEDULE.to_owned(), ..Taint::default() };
        if cycle.table.unschedulable.is_empty() || tolerates(&cycle.pod.tolerations, &cordon) {
            return PreFilter::Skip;
        }
        PreFilter::Filter
    }

    fn filter(&self, cycle: Cycle<'_>, candidates: &mut Candidates) {
        let reason = "node(s) were unschedulable";
        candidates.retain(self.name(), Verdict::UnschedulableAndUnresolvable, reason, |row| {
            !cycle.table.unschedulable.contains(row)
        });
    }

    fn helped_by(&self) -> ClusterEvents {
        ClusterEvents::NODE_TAINT
    }
}
