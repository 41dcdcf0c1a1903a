//! What the cluster says now, and which services that changes.
//!
//! In: Services and EndpointSlices, as watches deliver them. Out: the set of services whose tables may differ since the
//! last [`Tracker::take`]: many changes of one service are one, changes that mean nothing to the tables are none. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::ResourceExt;
use tokio::time::Instant;

use crate::applied::{Applied, Progress};
use crate::desired::{Context, Desired, desired};
use crate::endpoints::{self, Slice};
use crate::service::{self, Service};
use crate::types::ServiceKey;

/// Every service and slice that matters, and what changed.
#[derive(Debug)]
pub(crate) struct Tracker {
    node_name: String,
    services: HashMap<ServiceKey, Service>,
    slices: HashMap<ServiceKey, BTreeMap<ServiceKey, Slice>>,
    /// The service of each slice, to find what a slice left.
    owners: HashMap<ServiceKey, ServiceKey>,
    changes: Changes,
    progress: Progress,
}

/// What changed since the last time somebody asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) services: HashSet<ServiceKey>,
    pub(crate) service_changes: usize,
    pub(crate) slice_changes: usize,
    /// When the first of them arrived.
    pub(crate) since: Option<Instant>,
    /// Earliest cause that a slice names.
    pub(crate) trigger_time: Option<jiff::Timestamp>,
}

/// Names an object of a watch.
pub(crate) fn key_of(object: &impl ResourceExt) -> ServiceKey {
    ServiceKey::new(&object.namespace().unwrap_or_default(), &object.name_any())
}

impl Tracker {
    pub(crate) fn new(node_name: &str) -> Self {
        Self {
            node_name: node_name.to_owned(),
            services: HashMap::new(),
            slices: HashMap::new(),
            owners: HashMap::new(),
            changes: Changes::default(),
            progress: Progress::default(),
        }
    }

    pub(crate) fn apply_service(&mut self, object: &core::Service) {
        let key = key_of(object);
        match service::parse(&key, object) {
            Some(service) if self.services.get(&key) == Some(&service) => {}
            Some(service) => {
                self.services.insert(key.clone(), service);
                self.service_changed(key);
            }
            None => self.delete_service(&key),
        }
    }

    pub(crate) fn delete_service(&mut self, key: &ServiceKey) {
        if self.services.remove(key).is_some() {
            self.service_changed(key.clone());
        }
    }

    pub(crate) fn apply_slice(&mut self, object: &discovery::EndpointSlice) {
        let name = key_of(object);
        self.progress.seen(object);
        let parsed = endpoints::owner(object)
            .and_then(|owner| endpoints::parse(&owner, object, &self.node_name).map(|slice| (owner, slice)));
        let Some((owner, slice)) = parsed else { return self.delete_slice(&name) };
        if self.owners.get(&name).is_some_and(|previous| *previous != owner) {
            self.delete_slice(&name);
        }
        let of_service = self.slices.entry(owner.clone()).or_default();
        if of_service.get(&name) == Some(&slice) {
            return;
        }
        self.progress.replace(of_service.get(&name), Some(&slice));
        of_service.insert(name.clone(), slice);
        self.owners.insert(name, owner.clone());
        let trigger = endpoints::trigger_time(object);
        self.slice_changed(owner, trigger);
    }

    pub(crate) fn delete_slice(&mut self, name: &ServiceKey) {
        let Some(owner) = self.owners.remove(name) else { return };
        if let Some(of_service) = self.slices.get_mut(&owner) {
            self.progress.replace(of_service.remove(name).as_ref(), None);
            if of_service.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.slice_changed(owner, None);
    }

    /// Drops services that a complete list did not show: their deletion fell into a gap of the watch.
    pub(crate) fn retain_services(&mut self, listed: &HashSet<ServiceKey>) {
        let gone: Vec<_> = self.services.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            self.delete_service(&key);
        }
    }

    /// Drops slices that a complete list did not show.
    pub(crate) fn retain_slices(&mut self, listed: &HashSet<ServiceKey>) {
        let gone: Vec<_> = self.owners.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        for name in gone {
            self.delete_slice(&name);
        }
    }

    /// Every service counts as changed: the node did, or the tables are not known any more.
    pub(crate) fn touch_all(&mut self) {
        self.changes.services.extend(self.services.keys().cloned());
        self.changes.since.get_or_insert_with(Instant::now);
    }

    /// These services count as changed.
    pub(crate) fn touch(&mut self, keys: impl IntoIterator<Item = ServiceKey>) {
        self.changes.services.extend(keys);
        if !self.changes.services.is_empty() {
            self.changes.since.get_or_insert_with(Instant::now);
        }
    }

    pub(crate) fn has_changes(&self) -> bool {
        !self.changes.services.is_empty()
    }

    /// What changed since the last call.
    pub(crate) fn take(&mut self) -> Changes {
        mem::take(&mut self.changes)
    }

    /// A slice was deleted: its last revision is that of its deletion.
    pub(crate) fn slice_deleted(&mut self, object: &discovery::EndpointSlice) {
        self.progress.seen(object);
        self.delete_slice(&key_of(object));
    }

    /// Everything up to now is in the tables. How far that is, when it is further than before.
    pub(crate) fn written(&mut self) -> Option<Applied> {
        self.progress.written()
    }

    /// These changes were not written after all.
    pub(crate) fn put_back(&mut self, unwritten: Changes) {
        let changes = &mut self.changes;
        changes.services.extend(unwritten.services);
        changes.service_changes += unwritten.service_changes;
        changes.slice_changes += unwritten.slice_changes;
        changes.since = changes.since.into_iter().chain(unwritten.since).min();
        changes.trigger_time = changes.trigger_time.into_iter().chain(unwritten.trigger_time).min();
    }

    /// Tables of a service as it is now; `None` when there is no such service.
    pub(crate) fn desired(&self, key: &ServiceKey, context: Context<'_>) -> Option<Desired> {
        let slices = self.slices.get(key);
        let slices: Vec<_> = slices.into_iter().flat_map(BTreeMap::values).collect();
        self.services.get(key).map(|service| desired(context, service, &slices))
    }

    fn service_changed(&mut self, key: ServiceKey) {
        self.changes.service_changes += 1;
        self.changed(key);
    }

    /// A slice of a service without tables (headless, unknown as yet) changes nothing.
    fn slice_changed(&mut self, owner: ServiceKey, trigger: Option<jiff::Timestamp>) {
        if !self.services.contains_key(&owner) {
            return;
        }
        self.changes.slice_changes += 1;
        let known = self.changes.trigger_time;
        self.changes.trigger_time = known.into_iter().chain(trigger).min();
        self.changed(owner);
    }

    fn changed(&mut self, key: ServiceKey) {
        self.changes.services.insert(key);
        self.changes.since.get_or_insert_with(Instant::now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, ip: &str) -> core::Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "a", "name": name},
            "spec": {"clusterIP": ip, "ports": [{"port": 80}]},
        }))
        .unwrap()
    }

    fn slice(name: &str, service: &str, address: &str) -> discovery::EndpointSlice {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "a", "name": name, "labels": {"kubernetes.io/service-name": service},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"}},
            "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": [address]}],
        }))
        .unwrap()
    }

    fn changed(tracker: &mut Tracker) -> Vec<String> {
        let mut keys: Vec<_> = tracker.take().services.iter().map(ToString::to_string).collect();
        keys.sort();
        keys
    }

    #[test]
    fn many_changes_of_one_service_are_one_and_repetitions_none() {
        let mut tracker = Tracker::new("n");
        tracker.apply_service(&service("web", "10.0.0.1"));
        tracker.apply_slice(&slice("web-1", "web", "10.1.0.1"));
        tracker.apply_slice(&slice("web-2", "web", "10.1.0.2"));
        let changes = tracker.take();
        assert_eq!((changes.services.len(), changes.service_changes, changes.slice_changes), (1, 1, 2));
        assert!(changes.trigger_time.is_some() && changes.since.is_some());
        tracker.apply_service(&service("web", "10.0.0.1"));
        tracker.apply_slice(&slice("web-1", "web", "10.1.0.1"));
        assert!(!tracker.has_changes());
    }

    #[test]
    fn slices_before_their_service_wait_for_it() {
        let mut tracker = Tracker::new("n");
        tracker.apply_slice(&slice("web-1", "web", "10.1.0.1"));
        assert!(!tracker.has_changes());
        tracker.apply_service(&service("web", "10.0.0.1"));
        assert_eq!(changed(&mut tracker), ["a/web"]);
    }

    #[test]
    fn slice_that_moves_to_another_service_changes_both() {
        let mut tracker = Tracker::new("n");
        tracker.apply_service(&service("web", "10.0.0.1"));
        tracker.apply_service(&service("api", "10.0.0.2"));
        tracker.apply_slice(&slice("x", "web", "10.1.0.1"));
        tracker.take();
        tracker.apply_slice(&slice("x", "api", "10.1.0.1"));
        assert_eq!(changed(&mut tracker), ["a/api", "a/web"]);
    }

    #[test]
    fn relist_finds_what_was_deleted_in_a_gap() {
        let mut tracker = Tracker::new("n");
        for (name, ip) in [("web", "10.0.0.1"), ("api", "10.0.0.2")] {
            tracker.apply_service(&service(name, ip));
            tracker.apply_slice(&slice(name, name, "10.1.0.1"));
        }
        tracker.take();
        tracker.retain_services(&HashSet::from([ServiceKey::new("a", "web")]));
        assert_eq!(changed(&mut tracker), ["a/api"]);
        tracker.retain_slices(&HashSet::new());
        assert_eq!(changed(&mut tracker), ["a/web"]);
    }

    #[test]
    fn service_that_becomes_headless_loses_its_tables() {
        let mut tracker = Tracker::new("n");
        tracker.apply_service(&service("web", "10.0.0.1"));
        tracker.take();
        tracker.apply_service(&service("web", "None"));
        assert_eq!(changed(&mut tracker), ["a/web"]);
    }
}
