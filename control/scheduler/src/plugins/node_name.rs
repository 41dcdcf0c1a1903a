//! Keeps a pod that names its node off all others.
//!
//! In: `spec.nodeName`. Out: rejections. Pure. (A pod that names its node is bound already; this guards pods that
//! other code hands to the framework to ask whether they would fit.)

use crate::diagnosis::{Candidates, Verdict};
use crate::framework::{Cycle, Plugin, PreFilter};

pub(crate) struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn pre_filter<'a>(&self, cycle: Cycle<'a>) -> PreFilter<'a> {
        if cycle.pod.node_name.is_some() { PreFilter::Filter } else { PreFilter::Skip }
    }

    fn filter(&self, cycle: Cycle<'_>, candidates: &mut Candidates) {
        let reason = "node(s) didn't match the requested node name";
        candidates.retain(self.name(), Verdict::UnschedulableAndUnresolvable, reason, |row| {
            cycle.pod.node_name.as_deref() == Some(&*cycle.table.names[row])
        });
    }
}
