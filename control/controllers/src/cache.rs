//! Indexed copy of all objects of one kind, as a watch tells it.
//!
//! In: events of `kube::runtime::watcher`, from one writer. Out: objects by name, namespace, controlling owner and one
//! further index; the highest resourceVersion seen; the changes an event amounts to. No I/O.
//!
//! kube's own reflector store answers only by name or by a scan over everything; a reconcile asks for "the pods this
//! ReplicaSet owns" and must not pay for all pods of the cluster.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use kube::Resource;
use kube::runtime::watcher::Event;

use crate::key::ObjectKey;

/// What happened to one object. `old` is `None` for a new object, `new` for one that is gone.
#[derive(Debug)]
pub(crate) struct Change<K> {
    pub(crate) old: Option<Arc<K>>,
    pub(crate) new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The object as last known.
    pub(crate) fn object(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// Both sides, newest first.
    pub(crate) fn sides(&self) -> impl Iterator<Item = &Arc<K>> {
        self.new.iter().chain(self.old.iter())
    }
}

/// Derives an index value from an object.
pub(crate) type IndexFn<K> = fn(&K) -> Option<String>;

/// All objects of one kind. Readers see whole events only.
pub(crate) struct Cache<K> {
    inner: RwLock<Inner<K>>,
    index: Option<IndexFn<K>>,
}

struct Inner<K> {
    objects: HashMap<ObjectKey, Arc<K>>,
    by_namespace: HashMap<String, HashSet<ObjectKey>>,
    by_owner: HashMap<String, HashSet<ObjectKey>>,
    by_index: HashMap<String, HashSet<ObjectKey>>,
    /// Highest resourceVersion seen in any event.
    revision: u64,
    /// A list that is not complete yet.
    listing: Option<Pending<K>>,
}

/// Objects of a list so far, and the highest resourceVersion among them: readers may trust it when they see them.
struct Pending<K> {
    objects: HashMap<ObjectKey, Arc<K>>,
    revision: u64,
}

impl<K: Resource> Cache<K> {
    pub(crate) fn new(index: Option<IndexFn<K>>) -> Self {
        let inner = Inner {
            objects: HashMap::new(),
            by_namespace: HashMap::new(),
            by_owner: HashMap::new(),
            by_index: HashMap::new(),
            revision: 0,
            listing: None,
        };
        Self { inner: RwLock::new(inner), index }
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let inner = self.read();
        inner.select(inner.by_namespace.get(namespace))
    }

    /// Objects whose controlling owner has this UID.
    pub(crate) fn controlled_by(&self, uid: &str) -> Vec<Arc<K>> {
        let inner = self.read();
        inner.select(inner.by_owner.get(uid))
    }

    /// Objects of a namespace that no controller owns.
    pub(crate) fn uncontrolled_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let inner = self.read();
        inner.select(inner.by_owner.get(&nobody_in(namespace)))
    }

    /// Objects for which the cache's own index function answered `value`.
    pub(crate) fn indexed(&self, value: &str) -> Vec<Arc<K>> {
        let inner = self.read();
        inner.select(inner.by_index.get(value))
    }

    /// Highest resourceVersion seen: every write up to it is in the cache.
    pub(crate) fn revision(&self) -> u64 {
        self.read().revision
    }

    /// Takes one event in and says what it changed.
    pub(crate) fn apply(&self, event: Event<K>) -> Vec<Change<K>> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => {
                inner.listing = Some(Pending::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let listing = inner.listing.get_or_insert_with(Pending::new);
                listing.revision = listing.revision.max(revision_of(&object));
                listing.objects.insert(ObjectKey::of(&object), Arc::new(object));
                Vec::new()
            }
            Event::InitDone => {
                let listing = inner.listing.take().unwrap_or_else(Pending::new);
                inner.revision = inner.revision.max(listing.revision);
                inner.replace(listing.objects, self.index)
            }
            Event::Apply(object) => {
                inner.see(&object);
                vec![inner.put(Arc::new(object), self.index)]
            }
            Event::Delete(object) => {
                inner.see(&object);
                let old = inner.remove(&ObjectKey::of(&object), self.index);
                vec![Change { old: Some(old.unwrap_or_else(|| Arc::new(object))), new: None }]
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Pending<K> {
    fn new() -> Self {
        Self { objects: HashMap::new(), revision: 0 }
    }
}

impl<K: Resource> Inner<K> {
    fn select(&self, keys: Option<&HashSet<ObjectKey>>) -> Vec<Arc<K>> {
        keys.into_iter().flatten().filter_map(|key| self.objects.get(key).cloned()).collect()
    }

    fn see(&mut self, object: &K) {
        self.revision = self.revision.max(revision_of(object));
    }

    fn replace(&mut self, listing: HashMap<ObjectKey, Arc<K>>, index: Option<IndexFn<K>>) -> Vec<Change<K>> {
        let gone: Vec<ObjectKey> =
            self.objects.keys().filter(|key| !listing.contains_key(key)).cloned().collect();
        let mut changes = Vec::new();
        for key in gone {
            changes.push(Change { old: self.remove(&key, index), new: None });
        }
        for (key, object) in listing {
            let known = self.objects.get(&key);
            if known.is_none_or(|k| k.meta().resource_version != object.meta().resource_version) {
                changes.push(self.put(object, index));
            }
        }
        changes
    }

    fn put(&mut self, object: Arc<K>, index: Option<IndexFn<K>>) -> Change<K> {
        let key = ObjectKey::of(object.as_ref());
        let old = self.remove(&key, index);
        let Terms { namespace, owner, value } = Terms::of(object.as_ref(), index);
        self.by_namespace.entry(namespace).or_default().insert(key.clone());
        self.by_owner.entry(owner).or_default().insert(key.clone());
        if let Some(value) = value {
            self.by_index.entry(value).or_default().insert(key.clone());
        }
        self.objects.insert(key, object.clone());
        Change { old, new: Some(object) }
    }

    fn remove(&mut self, key: &ObjectKey, index: Option<IndexFn<K>>) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        let Terms { namespace, owner, value } = Terms::of(old.as_ref(), index);
        drop_term(&mut self.by_namespace, &namespace, key);
        drop_term(&mut self.by_owner, &owner, key);
        if let Some(value) = value {
            drop_term(&mut self.by_index, &value, key);
        }
        Some(old)
    }
}

/// The index values of one object.
struct Terms {
    namespace: String,
    owner: String,
    value: Option<String>,
}

impl Terms {
    fn of<K: Resource>(object: &K, index: Option<IndexFn<K>>) -> Self {
        let meta = object.meta();
        let namespace = meta.namespace.clone().unwrap_or_default();
        let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        let owner = owner.map_or_else(|| nobody_in(&namespace), |o| o.uid.clone());
        Self { namespace, owner, value: index.and_then(|f| f(object)) }
    }
}

/// Stands in the owner index for "no controller"; no UID holds a slash.
fn nobody_in(namespace: &str) -> String {
    format!("/{namespace}")
}

fn drop_term(terms: &mut HashMap<String, HashSet<ObjectKey>>, term: &str, key: &ObjectKey) {
    if let Some(keys) = terms.get_mut(term) {
        keys.remove(key);
        if keys.is_empty() {
            terms.remove(term);
        }
    }
}

/// The resourceVersion as the number it is here: one counter for the whole store.
pub(crate) fn revision_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn pod(namespace: &str, name: &str, version: u64, owner: Option<&str>, node: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {
                "namespace": namespace, "name": name, "resourceVersion": version.to_string(),
                "ownerReferences": owner.map(|uid| vec![serde_json::json!({
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid, "controller": true
                })]),
            },
            "spec": { "containers": [], "nodeName": node },
        }))
        .unwrap()
    }

    fn node_of(pod: &Pod) -> Option<String> {
        pod.spec.as_ref()?.node_name.clone()
    }

    #[test]
    fn cache_answers_by_every_index_and_forgets_old_terms() {
        let cache = Cache::new(Some(node_of as IndexFn<Pod>));
        cache.apply(Event::Apply(pod("a", "x", 1, Some("u1"), "n1")));
        cache.apply(Event::Apply(pod("b", "y", 2, Some("u1"), "n1")));
        assert_eq!(cache.in_namespace("a").len(), 1);
        assert_eq!(cache.controlled_by("u1").len(), 2);
        assert_eq!(cache.indexed("n1").len(), 2);
        cache.apply(Event::Apply(pod("a", "x", 3, None, "n2")));
        assert_eq!(cache.controlled_by("u1").len(), 1);
        assert_eq!(cache.uncontrolled_in("a").len(), 1);
        assert!(cache.uncontrolled_in("b").is_empty());
        assert_eq!(cache.indexed("n1").len(), 1);
        assert_eq!(cache.indexed("n2").len(), 1);
        cache.apply(Event::Delete(pod("a", "x", 4, None, "n2")));
        assert!(cache.indexed("n2").is_empty());
        assert_eq!(cache.revision(), 4);
    }

    #[test]
    fn relist_reports_only_what_differs() {
        let cache = Cache::new(None);
        for (name, version) in [("same", 1), ("changed", 2), ("gone", 3)] {
            cache.apply(Event::Apply(pod("a", name, version, None, "")));
        }
        cache.apply(Event::Init);
        for (name, version) in [("same", 1), ("changed", 5), ("new", 6)] {
            assert!(cache.apply(Event::InitApply(pod("a", name, version, None, ""))).is_empty());
        }
        assert_eq!(cache.all().len(), 3, "a list in progress is not seen");
        assert_eq!(cache.revision(), 3, "nor is its revision");
        let mut changes: Vec<(bool, bool, String)> = cache
            .apply(Event::InitDone)
            .iter()
            .map(|c| (c.old.is_some(), c.new.is_some(), c.object().unwrap().metadata.name.clone().unwrap()))
            .collect();
        changes.sort();
        assert_eq!(
            changes,
            [
                (false, true, "new".to_owned()),
                (true, false, "gone".to_owned()),
                (true, true, "changed".to_owned()),
            ]
        );
        assert_eq!(cache.revision(), 6);
    }
}
