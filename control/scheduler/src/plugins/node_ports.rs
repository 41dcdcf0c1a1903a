//! Keeps pods off nodes where a host port they want is taken.
//!
//! In: host ports of the pod and of the pods on each node. Out: rejections. Pure.

use crate::diagnosis::{Candidates, Verdict};
use crate::events::ClusterEvents;
use crate::framework::{Cycle, Plugin, PreFilter};

pub(crate) struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn pre_filter<'a>(&self, cycle: Cycle<'a>) -> PreFilter<'a> {
        if cycle.pod.host_ports.is_empty() { PreFilter::Skip } else { PreFilter::Filter }
    }

    fn filter(&self, cycle: Cycle<'_>, candidates: &mut Candidates) {
        let reason = "node(s) didn't have free ports for the requested pod ports";
        candidates.retain(self.name(), Verdict::Unschedulable, reason, |row| {
            let mut taken = cycle.table.host_ports(row);
            !taken.any(|taken| cycle.pod.host_ports.iter().any(|wanted| wanted.conflicts(taken)))
        });
    }

    fn helped_by(&self) -> ClusterEvents {
        ClusterEvents::POD_DELETED
    }
}
