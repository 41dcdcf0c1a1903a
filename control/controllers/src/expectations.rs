//! What a controller wrote and its cache must show before it may count again.
//!
//! In: the revision of each write, the UID of each deletion. Out: whether the cache has caught up. Without it a
//! ReplicaSet that runs twice before its watch delivers would create its pods twice.
//!
//! Upstream counts events; here every write has a place in one global order, so "seen" is a comparison.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Resource;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::key::ObjectKey;

/// After this long a run goes ahead on what the cache shows: an expectation that never comes true (a write that was
/// undone while the watch was down) must not stop an object for good.
const EXPIRY: Duration = Duration::from_secs(300);

/// Expectations of one controller, by the object it reconciles.
#[derive(Default)]
pub(crate) struct Expectations {
    pending: Mutex<HashMap<ObjectKey, Pending>>,
}

struct Pending {
    revision: u64,
    deleted: HashMap<ObjectKey, Option<String>>,
    since: Instant,
}

impl Expectations {
    /// A create or update made for `key` happened at `revision`.
    pub(crate) fn wrote(&self, key: &ObjectKey, revision: u64) {
        self.pending(key, |pending| pending.revision = pending.revision.max(revision));
    }

    /// A deletion of `object` was made for `key`.
    pub(crate) fn deleted<K: Resource>(&self, key: &ObjectKey, object: &K) {
        self.pending(key, |pending| {
            pending.deleted.insert(ObjectKey::of(object), object.meta().uid.clone());
        });
    }

    /// The cache shows everything that was done for `key`.
    pub(crate) fn satisfied<K: Resource>(&self, key: &ObjectKey, cache: &Cache<K>) -> bool {
        let mut all = self.lock();
        let Some(pending) = all.get_mut(key) else {
            return true;
        };
        pending.deleted.retain(|object, uid| {
            cache
                .get(object)
                .is_some_and(|known| known.meta().uid == *uid && known.meta().deletion_timestamp.is_none())
        });
        let seen = cache.revision() >= pending.revision && pending.deleted.is_empty();
        let done = seen || pending.since.elapsed() >= EXPIRY;
        if done {
            all.remove(key);
        }
        done
    }

    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    fn pending(&self, key: &ObjectKey, change: impl FnOnce(&mut Pending)) {
        let mut all = self.lock();
        let pending = all.entry(key.clone()).or_insert_with(|| Pending {
            revision: 0,
            deleted: HashMap::new(),
            since: Instant::now(),
        });
        pending.since = Instant::now();
        change(pending);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use kube::runtime::watcher::Event;

    fn pod(name: &str, version: u64, deleting: bool) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {
            "namespace": "a", "name": name, "uid": name, "resourceVersion": version.to_string(),
            "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z"),
        }}))
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn expectations_wait_for_writes_and_deletions_and_expire() {
        let (expectations, cache) = (Expectations::default(), Cache::new(None));
        let key = ObjectKey::new("a", "r");
        assert!(expectations.satisfied(&key, &cache));

        expectations.wrote(&key, 7);
        cache.apply(Event::Apply(pod("x", 6, false)));
        assert!(!expectations.satisfied(&key, &cache));
        cache.apply(Event::Apply(pod("y", 7, false)));
        assert!(expectations.satisfied(&key, &cache));

        expectations.deleted(&key, &pod("x", 6, false));
        assert!(!expectations.satisfied(&key, &cache));
        cache.apply(Event::Apply(pod("x", 8, true)));
        assert!(expectations.satisfied(&key, &cache), "a terminating pod counts as deleted");

        expectations.wrote(&key, 1000);
        assert!(!expectations.satisfied(&key, &cache));
        tokio::time::advance(EXPIRY).await;
        assert!(expectations.satisfied(&key, &cache));
    }
}
