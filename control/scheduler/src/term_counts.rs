//! What the pods on the nodes wish about others, counted by wish and node.
//!
//! In: pods placed and displaced. Out: for each distinct term how many pods on each row have it. Pods of one workload
//! share their terms, so there are few: asking whom they concern is no scan of the pods. Pure.

use std::collections::HashMap;

use crate::node_set::Row;
use crate::pod_affinity::Term;
use crate::pod_info::PodInfo;

/// How much a pod wishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wish {
    /// No such pod may come.
    Refuses,
    /// It came here because of such a pod.
    Needs,
    /// Rather, or rather not where negative.
    Prefers(i64),
}

/// Pods by their own terms.
#[derive(Debug, Default)]
pub(crate) struct TermCounts {
    terms: HashMap<(Wish, Term), Counter>,
}

#[derive(Debug, Default)]
struct Counter {
    rows: Vec<u32>,
    total: u32,
}

impl TermCounts {
    pub(crate) fn place(&mut self, pod: &PodInfo, row: Row) {
        for (wish, term) in wishes(pod) {
            let counter = self.terms.entry((wish, term.clone())).or_default();
            if counter.rows.len() <= row {
                counter.rows.resize(row + 1, 0);
            }
            counter.rows[row] += 1;
            counter.total += 1;
        }
    }

    pub(crate) fn displace(&mut self, pod: &PodInfo, row: Row) {
        for (wish, term) in wishes(pod) {
            let key = (wish, term.clone());
            if let Some(counter) = self.terms.get_mut(&key) {
                if let Some(count) = counter.rows.get_mut(row) {
                    *count = count.saturating_sub(1);
                }
                counter.total = counter.total.saturating_sub(1);
                if counter.total == 0 {
                    self.terms.remove(&key);
                }
            }
        }
    }

    /// Some pod refuses others.
    pub(crate) fn any_refuses(&self) -> bool {
        self.terms.keys().any(|(wish, _)| *wish == Wish::Refuses)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Every distinct term with the number of pods that have it, by row; rows beyond the end have none.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Wish, &Term, &[u32])> {
        self.terms.iter().map(|((wish, term), counter)| (*wish, term, counter.rows.as_slice()))
    }
}

fn wishes(pod: &PodInfo) -> impl Iterator<Item = (Wish, &Term)> {
    let affinity = &pod.pod_affinity;
    let refuses = affinity.required_anti.iter().map(|term| (Wish::Refuses, term));
    let needs = affinity.required.iter().map(|term| (Wish::Needs, term));
    let prefers = affinity.preferred.iter().map(|(weight, term)| (Wish::Prefers(*weight), term));
    refuses.chain(needs).chain(prefers)
}
