//! How fast pods may be taken off nodes, by how much of a zone is in trouble.
//!
//! In: readiness of all nodes by zone. Out: the pause between two nodes of a zone, or that nothing is evicted. Pure
//! but for the clock it is given. As upstream: many silent nodes at once are rather a broken network than broken nodes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;
use xebec_api::wellknown::labels::{TOPOLOGY_REGION, TOPOLOGY_ZONE};

use crate::node_lifecycle::conditions::{Readiness, readiness};
use crate::node_lifecycle::taints::Eviction;

/// One node in ten seconds.
const PAUSE: Duration = Duration::from_secs(10);
/// In a large zone that is mostly in trouble.
const LONG_PAUSE: Duration = Duration::from_secs(100);
/// Nodes a zone has at least to be large.
const LARGE: usize = 50;

/// Nodes of one zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Zone {
    pub(crate) ready: usize,
    pub(crate) not_ready: usize,
}

impl Zone {
    /// 55 % or more are not ready, and not just a few.
    fn is_partly_disrupted(self) -> bool {
        self.not_ready > 2 && self.not_ready * 100 >= 55 * (self.ready + self.not_ready)
    }

    fn is_fully_disrupted(self) -> bool {
        self.ready == 0 && self.not_ready > 0
    }
}

pub(crate) type ZoneName = (String, String);

/// Region and zone of a node; nodes without form one zone.
pub(crate) fn zone_of(node: &Node) -> ZoneName {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
    (label(TOPOLOGY_REGION).unwrap_or_default(), label(TOPOLOGY_ZONE).unwrap_or_default())
}

pub(crate) fn count<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> HashMap<ZoneName, Zone> {
    let mut zones: HashMap<ZoneName, Zone> = HashMap::new();
    for node in nodes {
        let zone = zones.entry(zone_of(node)).or_default();
        match readiness(node) {
            Readiness::Ready => zone.ready += 1,
            Readiness::NotReady | Readiness::Unknown | Readiness::Unsaid => zone.not_ready += 1,
        }
    }
    zones
}

/// The pause between two evicted nodes of `zone`; an error says what else is done.
pub(crate) fn pause(zones: &HashMap<ZoneName, Zone>, zone: &ZoneName) -> Result<Duration, Eviction> {
    if zones.values().all(|zone| zone.is_fully_disrupted()) {
        return Err(Eviction::Stopped);
    }
    let zone = zones.get(zone).copied().unwrap_or_default();
    if zone.is_fully_disrupted() || !zone.is_partly_disrupted() {
        return Ok(PAUSE);
    }
    if zone.ready + zone.not_ready > LARGE { Ok(LONG_PAUSE) } else { Err(Eviction::Later) }
}

/// When the next node of each zone may be evicted.
#[derive(Default)]
pub(crate) struct Pace {
    next: Mutex<HashMap<ZoneName, Instant>>,
}

impl Pace {
    /// Takes the zone's turn. If it is not its turn yet, says in how long it is.
    pub(crate) fn take(&self, zone: ZoneName, pause: Duration, now: Instant) -> Result<(), Duration> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.entry(zone).or_insert(now);
        if *turn > now {
            return Err(turn.duration_since(now));
        }
        *turn = now + pause;
        Ok(())
    }

    /// The turn was not used.
    pub(crate) fn give_back(&self, zone: &ZoneName, now: Instant) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.insert(zone.clone(), now);
    }
}
