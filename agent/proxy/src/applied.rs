//! How far the tables have followed the EndpointSlices, for those who wait for it before they end a pod.
//!
//! In: slices as the watch delivers them. Out: [`Applied`], told after the tables were written. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::endpoints::{Endpoint, Slice};

/// What the tables hold of the slices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Highest revision of an EndpointSlice that went into the tables.
    pub revision: u64,
    /// Highest revision of one with an endpoint that terminates: somebody may wait until every node has it.
    pub terminating_revision: u64,
    /// Addresses on this node that are ready endpoints and do not terminate.
    pub ready: Arc<BTreeSet<IpAddr>>,
    /// Addresses on this node that are terminating endpoints.
    pub terminating: Arc<BTreeSet<IpAddr>>,
}

/// Follows the slices ahead of the tables.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    revision: u64,
    terminating_revision: u64,
    /// In how many slices an address of this node is a ready endpoint, and a terminating one.
    counts: HashMap<IpAddr, Count>,
    changed: bool,
    told: Applied,
}

#[derive(Debug, Default)]
struct Count {
    ready: usize,
    terminating: usize,
}

impl Progress {
    /// A slice was seen, whether it means anything to the tables or not.
    pub(crate) fn seen(&mut self, object: &EndpointSlice) {
        let revision = object.metadata.resource_version.as_deref().and_then(|r| r.parse().ok()).unwrap_or(0);
        self.revision = self.revision.max(revision);
        let terminating = |conditions: &k8s_openapi::api::discovery::v1::EndpointConditions| {
            conditions.terminating.unwrap_or(false)
        };
        let mut endpoints = object.endpoints.iter().flatten();
        if endpoints.any(|endpoint| endpoint.conditions.as_ref().is_some_and(terminating)) {
            self.terminating_revision = self.terminating_revision.max(revision);
        }
    }

    /// One slice took another's place.
    pub(crate) fn replace(&mut self, old: Option<&Slice>, new: Option<&Slice>) {
        if old == new {
            return;
        }
        for endpoint in new.into_iter().flat_map(here) {
            let count = self.counts.entry(endpoint.address).or_default();
            count.ready += usize::from(endpoint.ready && !endpoint.terminating);
            count.terminating += usize::from(endpoint.terminating);
            self.changed = true;
        }
        for endpoint in old.into_iter().flat_map(here) {
            let Some(count) = self.counts.get_mut(&endpoint.address) else { continue };
            count.ready -= usize::from(endpoint.ready && !endpoint.terminating);
            count.terminating -= usize::from(endpoint.terminating);
            self.changed = true;
        }
        self.counts.retain(|_, count| count.ready + count.terminating > 0);
    }

    /// The tables hold everything that was seen. What to tell, when it is something new.
    pub(crate) fn written(&mut self) -> Option<Applied> {
        let mut now = Applied {
            revision: self.revision,
            terminating_revision: self.terminating_revision,
            ..self.told.clone()
        };
        if std::mem::take(&mut self.changed) {
            now.ready = self.addresses(|count| count.ready);
            now.terminating = self.addresses(|count| count.terminating);
        }
        if now == self.told {
            return None;
        }
        self.told = now.clone();
        Some(now)
    }

    fn addresses(&self, of: impl Fn(&Count) -> usize) -> Arc<BTreeSet<IpAddr>> {
        Arc::new(self.counts.iter().filter(|(_, count)| of(count) > 0).map(|(address, _)| *address).collect())
    }
}

fn here(slice: &Slice) -> impl Iterator<Item = &Endpoint> {
    slice.endpoints.iter().filter(|endpoint| endpoint.local)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::endpoints;
    use crate::types::ServiceKey;

    fn slice(revision: u64, terminating: bool) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"namespace": "a", "name": "s", "resourceVersion": revision.to_string()},
            "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "nodeName": "here",
                    "conditions": {"ready": !terminating, "serving": true, "terminating": terminating}},
                {"addresses": ["10.0.0.2"], "nodeName": "there"},
            ],
        }))
        .unwrap()
    }

    fn parsed(object: &EndpointSlice) -> Slice {
        endpoints::parse(&ServiceKey::new("a", "s"), object, "here").unwrap()
    }

    fn texts(addresses: &BTreeSet<IpAddr>) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_terminating_endpoint_is_ready_until_the_last_service_turned_away() {
        let mut progress = Progress::default();
        let (up, down) = (slice(5, false), slice(9, true));
        progress.seen(&up);
        // Two services send to it.
        progress.replace(None, Some(&parsed(&up)));
        progress.replace(None, Some(&parsed(&up)));
        let first = progress.written().unwrap();
        assert_eq!((first.revision, first.terminating_revision), (5, 0));
        assert_eq!(texts(&first.ready), ["10.0.0.1"], "others' pods are not counted");
        assert_eq!(progress.written(), None);

        progress.seen(&down);
        progress.replace(Some(&parsed(&up)), Some(&parsed(&down)));
        let second = progress.written().unwrap();
        assert_eq!((second.revision, second.terminating_revision), (9, 9));
        assert_eq!(texts(&second.ready), ["10.0.0.1"], "one service still sends to it");
        assert_eq!(texts(&second.terminating), ["10.0.0.1"]);
        progress.replace(Some(&parsed(&up)), Some(&parsed(&down)));
        let third = progress.written().unwrap();
        assert!(third.ready.is_empty());
        progress.replace(Some(&parsed(&down)), None);
        progress.replace(Some(&parsed(&down)), None);
        assert!(progress.written().unwrap().terminating.is_empty());
    }
}
