//! The phases a pod goes through, and the plugins that make them.
//!
//! In: a pod and the node table. Out: the node it should run on, or why there is none. Pure but for the choice among
//! equals, which the caller's random source makes.
//!
//! ```text
//! PreFilter → Filter → PreScore → Score → NormalizeScore → (Reserve → Bind: see `scheduler`)
//! ```
//!
//! A phase sees all nodes at once, as columns, instead of one node at a time.

use std::borrow::Cow;

use rand::Rng;

use crate::diagnosis::{Candidates, Diagnosis, Verdict};
use crate::events::ClusterEvents;
use crate::namespaces::Namespaces;
use crate::node_set::{NodeSet, Row};
use crate::node_table::NodeTable;
use crate::plugins::{
    BalancedAllocation, ImageLocality, InterPodAffinity, NodeAffinityPlugin, NodeName, NodePorts,
    NodeResourcesFit, NodeUnschedulable, PodTopologySpread, TaintToleration,
};
use crate::pod_info::PodInfo;
use crate::spread::ServiceSelectors;

/// Highest score of a plugin before its weight.
pub(crate) const MAX_NODE_SCORE: i64 = 100;

/// What one scheduling cycle is about.
#[derive(Clone, Copy)]
pub(crate) struct Cycle<'a> {
    pub(crate) pod: &'a PodInfo,
    pub(crate) table: &'a NodeTable,
    pub(crate) services: &'a ServiceSelectors,
    pub(crate) namespaces: &'a Namespaces,
}

/// What PreFilter says about the Filter to come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PreFilter<'a> {
    /// Nothing to filter for this pod.
    Skip,
    /// Every node is to be looked at.
    Filter,
    /// Only these nodes can do; they are to be looked at.
    Only(Vec<&'a str>),
}

/// One concern of scheduling. A plugin implements the phases it has something to say in.
pub(crate) trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    fn pre_filter<'a>(&self, _cycle: Cycle<'a>) -> PreFilter<'a> {
        PreFilter::Skip
    }

    /// Rejects the candidates that will not do.
    fn filter(&self, _cycle: Cycle<'_>, _candidates: &mut Candidates) {}

    /// Cluster changes after which a pod this plugin rejected may fit.
    fn helped_by(&self) -> ClusterEvents {
        ClusterEvents::NONE
    }

    /// How much the score counts; 0 for a plugin that does not score.
    fn weight(&self) -> i64 {
        0
    }

    /// Whether there is anything to score for this pod.
    fn pre_score(&self, _cycle: Cycle<'_>) -> bool {
        true
    }

    /// Adds to each row's score.
    fn score(&self, _cycle: Cycle<'_>, _rows: &[Row], _scores: &mut [i64]) {}

    /// Brings the scores to 0..=[`MAX_NODE_SCORE`], more being better.
    fn normalize_score(&self, _cycle: Cycle<'_>, _rows: &[Row], _scores: &mut [i64]) {}
}

/// The plugins in the order of upstream's default profile.
pub(crate) struct Framework {
    plugins: Vec<Box<dyn Plugin>>,
}

impl Default for Framework {
    fn default() -> Self {
        Self {
            plugins: vec![
                Box::new(NodeUnschedulable),
                Box::new(NodeName),
                Box::new(TaintToleration),
                Box::new(NodeAffinityPlugin),
                Box::new(NodePorts),
                Box::new(NodeResourcesFit),
                Box::new(PodTopologySpread),
                Box::new(InterPodAffinity),
                Box::new(BalancedAllocation),
                Box::new(ImageLocality),
            ],
        }
    }
}

impl Framework {
    /// The best of these nodes for the cycle's pod; `None` when there are none.
    pub(crate) fn choose(&self, cycle: Cycle<'_>, nodes: &NodeSet, random: &mut impl Rng) -> Option<Row> {
        let rows: Vec<Row> = nodes.iter().collect();
        match rows.as_slice() {
            [] => None,
            [only] => Some(*only),
            _ => Some(best(&rows, &self.run_score(cycle, &rows), random)),
        }
    }

    /// The best node for the cycle's pod.
    #[cfg(test)]
    pub(crate) fn select(&self, cycle: Cycle<'_>, random: &mut impl Rng) -> Result<Row, Diagnosis> {
        let mut candidates = Candidates::new(cycle.table.live.clone());
        self.filter(cycle, &mut candidates);
        self.choose(cycle, &candidates.nodes, random).ok_or(candidates.diagnosis)
    }

    /// Changes after which a pod rejected by these plugins may fit.
    pub(crate) fn hopes(&self, diagnosis: &Diagnosis) -> ClusterEvents {
        if diagnosis.plugins.is_empty() {
            // No node at all was there to reject it.
            return ClusterEvents::NODE_ADDED;
        }
        let rejecting = self.plugins.iter().filter(|plugin| diagnosis.plugins.contains(plugin.name()));
        rejecting.map(|plugin| plugin.helped_by()).fold(ClusterEvents::NODE_ADDED, ClusterEvents::and)
    }

    /// Rejects the candidates that will not do.
    pub(crate) fn filter(&self, cycle: Cycle<'_>, candidates: &mut Candidates) {
        let mut filters: Vec<&dyn Plugin> = Vec::with_capacity(self.plugins.len());
        for plugin in &self.plugins {
            match plugin.pre_filter(cycle) {
                PreFilter::Skip => {}
                PreFilter::Filter => filters.push(plugin.as_ref()),
                PreFilter::Only(names) => {
                    filters.push(plugin.as_ref());
                    narrow(cycle, plugin.name(), &names, candidates);
                }
            }
        }
        for plugin in filters {
            if candidates.nodes.is_empty() {
                break;
            }
            plugin.filter(cycle, candidates);
        }
    }

    fn run_score(&self, cycle: Cycle<'_>, rows: &[Row]) -> Vec<i64> {
        let mut totals = vec![0; rows.len()];
        let mut scores = vec![0; rows.len()];
        for plugin in self.plugins.iter().filter(|plugin| plugin.weight() > 0) {
            if !plugin.pre_score(cycle) {
                continue;
            }
            scores.fill(0);
            plugin.score(cycle, rows, &mut scores);
            plugin.normalize_score(cycle, rows, &mut scores);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += plugin.weight() * score.clamp(&0, &MAX_NODE_SCORE);
            }
        }
        totals
    }
}

fn narrow(cycle: Cycle<'_>, plugin: &'static str, names: &[&str], candidates: &mut Candidates) {
    let named: NodeSet = names.iter().filter_map(|name| cycle.table.row_of(name)).collect();
    let refused: Vec<Row> = candidates.nodes.iter().filter(|row| !named.contains(*row)).collect();
    for row in refused {
        let reason = Cow::Owned(format!("node(s) didn't satisfy plugin(s) [{plugin}]"));
        candidates.reject(plugin, row, Verdict::UnschedulableAndUnresolvable, [reason]);
    }
}

/// The row with the highest score, any of them when there are several.
fn best(rows: &[Row], scores: &[i64], random: &mut impl Rng) -> Row {
    let highest = scores.iter().max().copied().unwrap_or(0);
    let mut chosen = rows[0];
    let mut equals = 0_u32;
    for (row, score) in rows.iter().zip(scores) {
        if *score == highest {
            equals += 1;
            if random.random_range(0..equals) == 0 {
                chosen = *row;
            }
        }
    }
    chosen
}

/// Scales scores so that the highest becomes [`MAX_NODE_SCORE`]; `reverse` where less is better.
pub(crate) fn default_normalize_score(scores: &mut [i64], reverse: bool) {
    let highest = scores.iter().max().copied().unwrap_or(0);
    for score in scores {
        let scaled = if highest == 0 { 0 } else { MAX_NODE_SCORE * *score / highest };
        *score = if reverse { MAX_NODE_SCORE - scaled } else { scaled };
    }
}

#[cfg(test)]
mod tests;
