//! Spreads pods of one group over hosts and zones.
//!
//! In: the pod's constraints, or the default ones (rather not two on one host, rather not all in one zone); counters
//! of pods by group and node. Out: rejections, scores. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use xebec_api::labels::{Operator, Requirement, Selector};
use xebec_api::wellknown::labels::{HOSTNAME, TOPOLOGY_ZONE};
use xebec_api::wellknown::taints::{NO_EXECUTE, NO_SCHEDULE};

use crate::diagnosis::{Candidates, Verdict};
use crate::events::ClusterEvents;
use crate::framework::{Cycle, MAX_NODE_SCORE, Plugin, PreFilter};
use crate::node_set::Row;
use crate::pod_info::PodInfo;
use crate::spread::{Group, ServiceSelectors};
use xebec_api::tolerations::tolerates;

const NAME: &str = "PodTopologySpread";
const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";
const MISSING_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

pub(crate) struct PodTopologySpread;

/// One constraint, with the group it counts.
#[derive(Clone, Debug)]
struct Constraint {
    key: String,
    max_skew: i64,
    min_domains: i64,
    hard: bool,
    honor_affinity: bool,
    honor_taints: bool,
    group: Group,
}

/// The groups whose pods this pod's placement depends on.
pub(crate) fn groups(pod: &PodInfo, services: &ServiceSelectors) -> Vec<Group> {
    constraints(pod, services).into_iter().map(|constraint| constraint.group).collect()
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pre_filter<'a>(&self, cycle: Cycle<'a>) -> PreFilter<'a> {
        let hard = cycle.pod.spread.iter().any(|constraint| constraint.when_unsatisfiable == "DoNotSchedule");
        if hard { PreFilter::Filter } else { PreFilter::Skip }
    }

    fn filter(&self, cycle: Cycle<'_>, candidates: &mut Candidates) {
        let hard: Vec<Constraint> =
            constraints(cycle.pod, cycle.services).into_iter().filter(|constraint| constraint.hard).collect();
        for constraint in &hard {
            let domains = domains(cycle, constraint, &hard, cycle.table.live.iter());
            let least = domains.values().min().copied().unwrap_or(0);
            let few = i64::try_from(domains.len()).unwrap_or(i64::MAX) < constraint.min_domains;
            let least = if few { 0 } else { least };
            let itself = i64::from(constraint.group.holds(cycle.pod));
            let rows: Vec<Row> = candidates.nodes.iter().collect();
            for row in rows {
                let Some(domain) = cycle.table.labels[row].get(&constraint.key) else {
                    let verdict = Verdict::UnschedulableAndUnresolvable;
                    candidates.reject(NAME, row, verdict, [MISSING_LABEL.into()]);
                    continue;
                };
                let there = domains.get(domain.as_str()).copied().unwrap_or(0);
                if there + itself - least > constraint.max_skew {
                    candidates.reject(NAME, row, Verdict::Unschedulable, [MISMATCH.into()]);
                }
            }
        }
    }

    fn helped_by(&self) -> ClusterEvents {
        ClusterEvents::NODE_LABEL
            .and(ClusterEvents::NODE_TAINT)
            .and(ClusterEvents::POD_ADDED)
            .and(ClusterEvents::POD_DELETED)
            .and(ClusterEvents::POD_UPDATED)
    }

    fn weight(&self) -> i64 {
        2
    }

    fn pre_score(&self, cycle: Cycle<'_>) -> bool {
        constraints(cycle.pod, cycle.services).iter().any(|constraint| !constraint.hard)
    }

    fn score(&self, cycle: Cycle<'_>, rows: &[Row], scores: &mut [i64]) {
        let mut sums = vec![0.0_f64; rows.len()];
        let soft: Vec<Constraint> = constraints(cycle.pod, cycle.services)
            .into_iter()
            .filter(|constraint| !constraint.hard)
            .collect();
        for constraint in &soft {
            let labels = |row: &Row| cycle.table.labels[*row].get(&constraint.key);
            // Many domains make each pod count more, or their differences would drown in the scale.
            let among: BTreeSet<&String> = rows.iter().filter_map(labels).collect();
            let weight = (among.len() as f64 + 2.0).ln();
            let counts = domains(cycle, constraint, &soft, cycle.table.live.iter());
            for (row, sum) in rows.iter().zip(&mut sums) {
                let Some(domain) = labels(row) else {
                    continue;
                };
                let there = counts.get(domain.as_str()).copied().unwrap_or(0);
                *sum += there as f64 * weight + (constraint.max_skew - 1) as f64;
            }
        }
        for (sum, score) in sums.iter().zip(scores) {
            *score = sum.round() as i64;
        }
    }

    fn normalize_score(&self, cycle: Cycle<'_>, rows: &[Row], scores: &mut [i64]) {
        // A node that lacks a label the pod's own constraints name is no domain at all: the worst choice.
        let ignored = |row: Row| {
            cycle.pod.spread.iter().any(|constraint| {
                constraint.when_unsatisfiable != "DoNotSchedule"
                    && !cycle.table.labels[row].contains_key(&constraint.topology_key)
            })
        };
        let counted: Vec<i64> = rows
            .iter()
            .zip(scores.iter())
            .filter(|(row, _)| !ignored(**row))
            .map(|(_, score)| *score)
            .collect();
        let (least, most) =
            (counted.iter().min().copied().unwrap_or(0), counted.iter().max().copied().unwrap_or(0));
        for (row, score) in rows.iter().zip(scores) {
            *score = if ignored(*row) {
                0
            } else if most == 0 {
                MAX_NODE_SCORE
            } else {
                MAX_NODE_SCORE * (most + least - *score) / most
            };
        }
    }
}

/// Pods of the constraint's group by domain, over the nodes the pod could run on at all.
fn domains<'a>(
    cycle: Cycle<'a>,
    constraint: &Constraint,
    all: &[Constraint],
    rows: impl Iterator<Item = Row>,
) -> BTreeMap<&'a str, i64> {
    let mut domains = BTreeMap::new();
    // With the default constraints a node without a zone still counts as a host.
    let needs_every_key = !cycle.pod.spread.is_empty();
    for row in rows {
        let labels = &cycle.table.labels[row];
        let Some(domain) = labels.get(&constraint.key) else {
            continue;
        };
        if needs_every_key && !all.iter().all(|other| labels.contains_key(&other.key)) {
            continue;
        }
        if constraint.honor_affinity && !cycle.pod.affinity.matches(&cycle.table.facts(row)) {
            continue;
        }
        if constraint.honor_taints && !tolerated(cycle, row) {
            continue;
        }
        *domains.entry(domain.as_str()).or_insert(0) += cycle.table.spread.count(&constraint.group, row);
    }
    domains
}

fn tolerated(cycle: Cycle<'_>, row: Row) -> bool {
    cycle.table.taints[row]
        .iter()
        .filter(|taint| taint.effect == NO_SCHEDULE || taint.effect == NO_EXECUTE)
        .all(|taint| tolerates(&cycle.pod.tolerations, taint))
}

fn constraints(pod: &PodInfo, services: &ServiceSelectors) -> Vec<Constraint> {
    if !pod.spread.is_empty() {
        return pod.spread.iter().filter_map(|constraint| own(pod, constraint)).collect();
    }
    let Some(group) = services.default_group(pod) else {
        return Vec::new();
    };
    [(HOSTNAME, 3), (TOPOLOGY_ZONE, 5)]
        .into_iter()
        .map(|(key, max_skew)| Constraint {
            key: key.to_owned(),
            max_skew,
            min_domains: 1,
            hard: false,
            honor_affinity: true,
            honor_taints: false,
            group: group.clone(),
        })
        .collect()
}

/// A constraint of the pod's own; one whose selector cannot be read counts no pod.
fn own(pod: &PodInfo, constraint: &TopologySpreadConstraint) -> Option<Constraint> {
    let mut selectors =
        vec![Selector::from_label_selector(constraint.label_selector.as_ref()).unwrap_or(Selector::Nothing)];
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.labels.get(key) {
            let requirement = Requirement::new(key, Operator::In, vec![value.clone()]).ok()?;
            selectors.push(Selector::from_requirements(vec![requirement]));
        }
    }
    Some(Constraint {
        key: constraint.topology_key.clone(),
        max_skew: constraint.max_skew.into(),
        min_domains: constraint.min_domains.unwrap_or(1).into(),
        hard: constraint.when_unsatisfiable == "DoNotSchedule",
        honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        group: Group::Selected { namespace: pod.namespace.clone(), selectors },
    })
}
