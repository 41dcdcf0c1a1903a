//! Why a pod fits nowhere, in upstream's words.
//!
//! In: rejected nodes with reasons. Out: the sentence for the PodScheduled condition and the Event; the plugins that
//! rejected, which decide what change may help. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::node_set::{NodeSet, Row};
use crate::preemption::Search;

/// Whether taking pods off the node would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The node would do if it ran less.
    Unschedulable,
    /// The node will not do whatever runs on it.
    UnschedulableAndUnresolvable,
}

/// The nodes still in question, and why the others are not.
#[derive(Debug)]
pub(crate) struct Candidates {
    pub(crate) nodes: NodeSet,
    pub(crate) diagnosis: Diagnosis,
}

/// Reasons by how many nodes gave them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diagnosis {
    nodes: usize,
    reasons: BTreeMap<Cow<'static, str>, usize>,
    unresolvable: usize,
    /// Nodes that would do if they ran less.
    pub(crate) resolvable: NodeSet,
    pub(crate) plugins: BTreeSet<&'static str>,
}

impl Candidates {
    pub(crate) fn new(nodes: NodeSet) -> Self {
        let diagnosis = Diagnosis { nodes: nodes.len(), ..Diagnosis::default() };
        Self { nodes, diagnosis }
    }

    /// Drops a node.
    pub(crate) fn reject(
        &mut self,
        plugin: &'static str,
        row: Row,
        verdict: Verdict,
        reasons: impl IntoIterator<Item = Cow<'static, str>>,
    ) {
        self.nodes.set(row, false);
        for reason in reasons {
            *self.diagnosis.reasons.entry(reason).or_default() += 1;
        }
        match verdict {
            Verdict::Unschedulable => self.diagnosis.resolvable.set(row, true),
            Verdict::UnschedulableAndUnresolvable => self.diagnosis.unresolvable += 1,
        }
        self.diagnosis.plugins.insert(plugin);
    }

    /// Drops every node the predicate refuses, for one reason.
    pub(crate) fn retain(
        &mut self,
        plugin: &'static str,
        verdict: Verdict,
        reason: &'static str,
        keep: impl Fn(Row) -> bool,
    ) {
        let refused: Vec<Row> = self.nodes.iter().filter(|row| !keep(*row)).collect();
        for row in refused {
            self.reject(plugin, row, verdict, [Cow::Borrowed(reason)]);
        }
    }
}

impl Diagnosis {
    /// The sentence that tells a user why, and what came of looking for pods that could give way.
    pub(crate) fn message(&self, search: &Search) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let nodes = self.nodes;
        let mut message = format!("0/{nodes} nodes are available: ");
        message.push_str(&counted(self.reasons.iter().map(|(reason, count)| (reason.as_ref(), *count))));
        message.push('.');
        let preemption = match search {
            Search::Found(_) => return message,
            Search::Never => "not eligible due to preemptionPolicy=Never".to_owned(),
            Search::VictimsLeave => "not eligible due to a terminating pod on the nominated node".to_owned(),
            Search::Nothing => {
                let parts = [
                    ("No preemption victims found for incoming pod", nodes - self.unresolvable),
                    ("Preemption is not helpful for scheduling", self.unresolvable),
                ];
                let parts = counted(parts.into_iter().filter(|(_, count)| *count > 0));
                format!("0/{nodes} nodes are available: {parts}")
            }
        };
        // Writing to a String cannot fail.
        let _ = write!(message, " preemption: {preemption}.");
        message
    }
}

fn counted<'a>(reasons: impl Iterator<Item = (&'a str, usize)>) -> String {
    let mut parts: Vec<String> = reasons.map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_counts_reasons_as_upstream_does() {
        let mut candidates = Candidates::new([0, 1, 2].into_iter().collect());
        let insufficient = ["Insufficient cpu".into(), "Insufficient memory".into()];
        candidates.reject("NodeResourcesFit", 0, Verdict::Unschedulable, insufficient);
        candidates.reject("NodeResourcesFit", 1, Verdict::Unschedulable, ["Insufficient cpu".into()]);
        let taint = "node(s) had untolerated taint(s)";
        candidates.retain("TaintToleration", Verdict::UnschedulableAndUnresolvable, taint, |_| false);
        assert!(candidates.nodes.is_empty());
        assert_eq!(
            candidates.diagnosis.message(&Search::Nothing),
            "0/3 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint(s), 2 Insufficient \
             cpu. preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption \
             victims found for incoming pod."
        );
        assert_eq!(
            candidates.diagnosis.plugins.iter().copied().collect::<Vec<_>>(),
            ["NodeResourcesFit", "TaintToleration"]
        );
    }

    #[test]
    fn message_of_an_empty_cluster_says_so() {
        let message = Candidates::new(NodeSet::default()).diagnosis.message(&Search::Nothing);
        assert_eq!(message, "no nodes available to schedule pods");
    }
}
