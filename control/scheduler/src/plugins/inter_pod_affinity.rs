//! Puts pods near those they need and away from those they, or that, do not stand.
//!
//! In: the pod's terms and those of the pods that run; counters of both by node. Out: rejections, scores. Pure.

use std::collections::{HashMap, HashSet};

use crate::diagnosis::{Candidates, Verdict};
use crate::events::ClusterEvents;
use crate::framework::{Cycle, MAX_NODE_SCORE, Plugin, PreFilter};
use crate::namespaces::Namespaces;
use crate::node_set::Row;
use crate::node_table::NodeTable;
use crate::pod_affinity::Term;
use crate::pod_info::PodInfo;
use crate::spread::Group;
use crate::term_counts::Wish;

const NAME: &str = "InterPodAffinity";
const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
/// What a pod that needs such pods adds to the score of its domain.
const HARD_WEIGHT: i64 = 1;

pub(crate) struct InterPodAffinity;

/// The groups whose pods this pod's placement depends on.
pub(crate) fn groups(pod: &PodInfo, namespaces: &Namespaces) -> Vec<Group> {
    let affinity = &pod.pod_affinity;
    let mut groups: Vec<Group> = needed(pod, namespaces).into_iter().collect();
    let single = affinity.required_anti.iter().chain(affinity.preferred.iter().map(|(_, term)| term));
    groups.extend(single.map(|term| group(term, namespaces)));
    groups
}

/// Pods that all terms of the required affinity mean; they count for each of them.
fn needed(pod: &PodInfo, namespaces: &Namespaces) -> Option<Group> {
    let terms = &pod.pod_affinity.required;
    (!terms.is_empty()).then(|| Group::Meant(terms.iter().map(|term| term.meant(namespaces)).collect()))
}

fn group(term: &Term, namespaces: &Namespaces) -> Group {
    Group::Meant(vec![term.meant(namespaces)])
}

/// Sums over the nodes of each domain.
fn by_domain<'a>(table: &'a NodeTable, key: &str, count: impl Fn(Row) -> i64) -> HashMap<&'a str, i64> {
    let mut sums = HashMap::new();
    for row in table.live.iter() {
        if let Some(domain) = table.labels[row].get(key) {
            let here = count(row);
            if here != 0 {
                *sums.entry(domain.as_str()).or_insert(0) += here;
            }
        }
    }
    sums
}

fn at(rows: &[u32], row: Row) -> i64 {
    rows.get(row).copied().unwrap_or(0).into()
}

fn domain<'a>(table: &'a NodeTable, row: Row, key: &str) -> Option<&'a str> {
    table.labels[row].get(key).map(String::as_str)
}

impl InterPodAffinity {
    fn filter_needs(cycle: Cycle<'_>, candidates: &mut Candidates) {
        let (pod, table) = (cycle.pod, cycle.table);
        let Some(group) = needed(pod, cycle.namespaces) else {
            return;
        };
        let terms: Vec<(&str, HashMap<&str, i64>)> = pod
            .pod_affinity
            .required
            .iter()
            .map(|term| {
                let key = term.topology_key.as_str();
                (key, by_domain(table, key, |row| table.spread.count(&group, row)))
            })
            .collect();
        // The first of pods that need each other has to go somewhere.
        let is_first = terms.iter().all(|(_, sums)| sums.is_empty()) && group.holds(pod);
        candidates.retain(NAME, Verdict::UnschedulableAndUnresolvable, AFFINITY, |row| {
            let domains = terms.iter().map(|(key, sums)| (domain(table, row, key), sums));
            let mut domains = domains.collect::<Vec<_>>().into_iter();
            if is_first {
                domains.all(|(domain, _)| domain.is_some())
            } else {
                domains.all(|(domain, sums)| domain.is_some_and(|domain| sums.contains_key(domain)))
            }
        });
    }

    fn filter_refuses(cycle: Cycle<'_>, candidates: &mut Candidates) {
        let table = cycle.table;
        for term in &cycle.pod.pod_affinity.required_anti {
            let group = group(term, cycle.namespaces);
            let key = term.topology_key.as_str();
            let taken = by_domain(table, key, |row| table.spread.count(&group, row));
            candidates.retain(NAME, Verdict::Unschedulable, ANTI_AFFINITY, |row| {
                domain(table, row, key).is_none_or(|domain| !taken.contains_key(domain))
            });
        }
    }

    fn filter_refused(cycle: Cycle<'_>, candidates: &mut Candidates) {
        let table = cycle.table;
        let mut closed: HashMap<&str, HashSet<&str>> = HashMap::new();
        for (wish, term, rows) in table.terms.iter() {
            if wish == Wish::Refuses && term.means(cycle.pod, cycle.namespaces) {
                let key = term.topology_key.as_str();
                closed.entry(key).or_default().extend(by_domain(table, key, |row| at(rows, row)).into_keys());
            }
        }
        if closed.is_empty() {
            return;
        }
        candidates.retain(NAME, Verdict::Unschedulable, EXISTING, |row| {
            let is_closed = |(key, domains): (&&str, &HashSet<&str>)| {
                domain(table, row, key).is_some_and(|domain| domains.contains(domain))
            };
            !closed.iter().any(is_closed)
        });
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pre_filter<'a>(&self, cycle: Cycle<'a>) -> PreFilter<'a> {
        let own = &cycle.pod.pod_affinity;
        let indifferent = own.required.is_empty() && own.required_anti.is_empty();
        if indifferent && !cycle.table.terms.any_refuses() { PreFilter::Skip } else { PreFilter::Filter }
    }

    fn filter(&self, cycle: Cycle<'_>, candidates: &mut Candidates) {
        Self::filter_needs(cycle, candidates);
        Self::filter_refuses(cycle, candidates);
        Self::filter_refused(cycle, candidates);
    }

    fn helped_by(&self) -> ClusterEvents {
        ClusterEvents::NODE_LABEL
            .and(ClusterEvents::POD_ADDED)
            .and(ClusterEvents::POD_DELETED)
            .and(ClusterEvents::POD_UPDATED)
    }

    fn weight(&self) -> i64 {
        2
    }

    fn pre_score(&self, cycle: Cycle<'_>) -> bool {
        !cycle.pod.pod_affinity.preferred.is_empty() || !cycle.table.terms.is_empty()
    }

    fn score(&self, cycle: Cycle<'_>, rows: &[Row], scores: &mut [i64]) {
        let table = cycle.table;
        let mut add = |key: &str, weight: i64, sums: HashMap<&str, i64>| {
            for (row, score) in rows.iter().zip(scores.iter_mut()) {
                let sum = domain(table, *row, key).and_then(|domain| sums.get(domain)).copied().unwrap_or(0);
                *score += weight * sum;
            }
        };
        for (weight, term) in &cycle.pod.pod_affinity.preferred {
            let group = group(term, cycle.namespaces);
            let key = term.topology_key.as_str();
            add(key, *weight, by_domain(table, key, |row| table.spread.count(&group, row)));
        }
        for (wish, term, counts) in table.terms.iter() {
            let weight = match wish {
                Wish::Refuses => continue,
                Wish::Needs => HARD_WEIGHT,
                Wish::Prefers(weight) => weight,
            };
            if term.means(cycle.pod, cycle.namespaces) {
                let key = term.topology_key.as_str();
                add(key, weight, by_domain(table, key, |row| at(counts, row)));
            }
        }
    }

    fn normalize_score(&self, _: Cycle<'_>, _: &[Row], scores: &mut [i64]) {
        let least = scores.iter().min().copied().unwrap_or(0);
        let span = scores.iter().max().copied().unwrap_or(0) - least;
        for score in scores {
            *score = if span > 0 { MAX_NODE_SCORE * (*score - least) / span } else { 0 };
        }
    }
}
