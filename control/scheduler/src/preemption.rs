//! Makes room for a pod that fits nowhere: which pods of lower priority would have to go, and where the fewest.
//!
//! In: a pod no node takes as it is, the node table, disruption budgets. Out: a node and the pods that leave it, or
//! none. Pure: pods are taken off the table and put back to see what the filters say.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use rand::Rng;

use crate::budgets::Budgets;
use crate::diagnosis::{Candidates, Diagnosis};
use crate::framework::{Cycle, Framework};
use crate::namespaces::Namespaces;
use crate::node_set::Row;
use crate::node_table::NodeTable;
use crate::pod_info::PodInfo;
use crate::spread::ServiceSelectors;

/// Nodes looked at: a tenth of all, and at least this many.
const FEWEST_LOOKED_AT: usize = 100;

/// Where a pod gets room, and from whom.
#[derive(Clone, Debug)]
pub(crate) struct Preemption {
    pub(crate) node: String,
    pub(crate) victims: Vec<Arc<PodInfo>>,
}

/// What came of looking for room.
#[derive(Clone, Debug)]
pub(crate) enum Search {
    Found(Preemption),
    /// No node has pods that could give way, or not enough.
    Nothing,
    /// The pod's own policy.
    Never,
    /// Those that give way for it have not left yet.
    VictimsLeave,
}

/// What the search rests on.
pub(crate) struct Room<'a> {
    pub(crate) framework: &'a Framework,
    pub(crate) table: &'a mut NodeTable,
    pub(crate) services: &'a ServiceSelectors,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) budgets: &'a Budgets,
}

/// A node that would do.
struct Offer {
    row: Row,
    victims: Vec<Arc<PodInfo>>,
    /// Victims that break a budget.
    broken: usize,
}

impl Room<'_> {
    /// Looks for the place that costs least. `nominated` is where room was made before.
    pub(crate) fn search(
        &mut self,
        pod: &PodInfo,
        diagnosis: &Diagnosis,
        nominated: Option<&str>,
        random: &mut impl Rng,
    ) -> Search {
        if pod.never_preempts {
            return Search::Never;
        }
        if nominated.is_some_and(|node| self.victims_leave(pod, node, diagnosis)) {
            return Search::VictimsLeave;
        }
        let rows: Vec<Row> = diagnosis.resolvable.iter().collect();
        if rows.is_empty() {
            return Search::Nothing;
        }
        let wanted = (self.table.live.len() / 10).max(FEWEST_LOOKED_AT);
        let start = random.random_range(0..rows.len());
        let mut offers = Vec::new();
        for row in rows[start..].iter().chain(&rows[..start]) {
            offers.extend(self.offer(pod, *row));
            if offers.len() == wanted {
                break;
            }
        }
        let best = offers.into_iter().min_by_key(cost);
        best.map_or(Search::Nothing, |offer| {
            Search::Found(Preemption {
                node: self.table.names[offer.row].to_string(),
                victims: offer.victims,
            })
        })
    }

    /// Only pods that preemption sent away count, and only where their leaving can still help: a node that was lost, or
    /// turned unfit, is waited for in vain.
    fn victims_leave(&self, pod: &PodInfo, node: &str, diagnosis: &Diagnosis) -> bool {
        let row = self.table.row_of(node).filter(|row| diagnosis.resolvable.contains(*row));
        let mut there = row.into_iter().flat_map(|row| self.table.pods[row].values());
        there.any(|other| other.terminating && other.preempted && other.priority < pod.priority)
    }

    /// The pods that would have to leave this node; `None` if that is no help.
    fn offer(&mut self, pod: &PodInfo, row: Row) -> Option<Offer> {
        let node = self.table.names[row].clone();
        let lower = self.table.pods[row].values().filter(|other| other.priority < pod.priority);
        let mut lower: Vec<Arc<PodInfo>> = lower.cloned().collect();
        if lower.is_empty() {
            return None;
        }
        // The most important first: they are the first to stay.
        lower.sort_by_key(|other| {
            (Reverse(other.priority), other.started.unwrap_or(Timestamp::MAX), other.uid.clone())
        });
        for other in &lower {
            self.table.displace(&other.uid, &node);
        }
        if !self.fits(pod, row) {
            lower.iter().for_each(|other| self.table.place(other, &node));
            return None;
        }
        let broken = self.budgets.broken(&lower);
        let (first, then): (Vec<_>, Vec<_>) = lower.into_iter().zip(broken).partition(|(_, broken)| *broken);
        let mut offer = Offer { row, victims: Vec::new(), broken: 0 };
        for (other, broken) in first.into_iter().chain(then) {
            self.table.place(&other, &node);
            if !self.fits(pod, row) {
                self.table.displace(&other.uid, &node);
                offer.broken += usize::from(broken);
                offer.victims.push(other);
            }
        }
        offer.victims.iter().for_each(|other| self.table.place(other, &node));
        (!offer.victims.is_empty()).then_some(offer)
    }

    fn fits(&self, pod: &PodInfo, row: Row) -> bool {
        let mut candidates = Candidates::new([row].into_iter().collect());
        let cycle = Cycle { pod, table: self.table, services: self.services, namespaces: self.namespaces };
        self.framework.filter(cycle, &mut candidates);
        !candidates.nodes.is_empty()
    }
}

/// Less is better: budgets kept, then the least important victims, the fewest, those that ran for the shortest time.
fn cost(offer: &Offer) -> (usize, i32, i64, usize, Reverse<Timestamp>, Row) {
    let highest = offer.victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    // Shifted above zero, so that many victims of negative priority do not look cheap.
    let shifted = |victim: &Arc<PodInfo>| i64::from(victim.priority) - i64::from(i32::MIN);
    let sum = offer.victims.iter().map(shifted).sum();
    let of_highest = offer.victims.iter().filter(|victim| victim.priority == highest);
    let earliest = of_highest.filter_map(|victim| victim.started).min().unwrap_or(Timestamp::MAX);
    (offer.broken, highest, sum, offer.victims.len(), Reverse(earliest), offer.row)
}
