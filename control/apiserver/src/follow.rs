//! What the server keeps in memory about some of the stored objects, right whenever it is looked at.
//!
//! In: the keys' prefix, how an object changes the view. Out: the view, with every write in it that was answered before
//! the look. Nothing runs in between: who looks first after a write pays for it.

use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use serde_json::Value;
use xebec_store::{Event, Store, WatchEnd, Watcher};

use crate::stored::Stored;

/// A view of objects.
pub(crate) trait Fold: Default {
    /// An object is there, new or changed. `place` is its key without the prefix.
    fn put(&mut self, place: &str, object: Value);
    /// An object is gone.
    fn delete(&mut self, place: &str);
}

/// A view and how far it has come.
pub(crate) struct Follow<T> {
    prefix: &'static str,
    /// `None` until the first look, and after history was lost.
    watcher: Mutex<Option<Watcher>>,
    view: RwLock<T>,
}

// === impl Follow ===

impl<T: Fold> Follow<T> {
    pub(crate) fn new(prefix: &'static str) -> Self {
        Self { prefix, watcher: Mutex::new(None), view: RwLock::default() }
    }

    /// The view as of now. While the guard lives no later look is answered, so it must not be held across a wait.
    pub(crate) fn read(&self, store: &Store) -> RwLockReadGuard<'_, T> {
        let mut place = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watcher = place.take().or_else(|| self.begin(store));
        while let Some(mut following) = watcher.take() {
            match following.ready() {
                Ok(batch) if batch.events.is_empty() => {
                    *place = Some(following);
                    break;
                }
                Ok(batch) => {
                    let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
                    for event in &batch.events {
                        self.apply(&mut view, event);
                    }
                    watcher = Some(following);
                }
                // Looked at too rarely: from the beginning.
                Err(WatchEnd::Lagged { .. }) => watcher = self.begin(store),
                // What was read last stays right: nothing is written any more.
                Err(WatchEnd::Closed) => break,
            }
        }
        drop(place);
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads everything; `None` when the store is closed.
    fn begin(&self, store: &Store) -> Option<Watcher> {
        let page = store.list(self.prefix.as_bytes(), None, 0, None).ok()?;
        let watcher = store.watch(self.prefix.as_bytes(), page.revision).ok()?;
        let mut view = T::default();
        for kv in &page.items {
            self.put(&mut view, &kv.key, &Stored::from(kv));
        }
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        Some(watcher)
    }

    fn apply(&self, view: &mut T, event: &Event) {
        match event {
            Event::Put { current, .. } => self.put(view, &current.key, &Stored::from(current)),
            Event::Delete { .. } => view.delete(&self.place(event.key())),
        }
    }

    fn put(&self, view: &mut T, key: &[u8], stored: &Stored) {
        match stored.decode() {
            Ok(object) => view.put(&self.place(key), object),
            Err(error) => tracing::error!(%error, "a stored object cannot be read"),
        }
    }

    fn place(&self, key: &[u8]) -> String {
        String::from_utf8_lossy(&key[self.prefix.len()..]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use xebec_store::{EngineConfig, Precondition, Revision, Write};

    use super::*;

    #[derive(Default)]
    struct Names(BTreeMap<String, i64>);

    impl Fold for Names {
        fn put(&mut self, place: &str, object: Value) {
            self.0.insert(place.to_owned(), object["n"].as_i64().unwrap_or(0));
        }

        fn delete(&mut self, place: &str) {
            self.0.remove(place);
        }
    }

    async fn put(store: &Store, key: &str, n: i64) -> Revision {
        let value = format!("{{\"n\":{n},\"metadata\":{{}}}}").into();
        let there = store.get(key.as_bytes());
        let precondition =
            there.map_or(Precondition::Absent, |there| Precondition::Unchanged(there.mod_revision));
        let write = Write::Put { key: key.to_owned().into(), value, precondition };
        store.write(write).await.expect("written").revision
    }

    #[tokio::test]
    async fn every_look_sees_every_answered_write() {
        let store = Store::open(EngineConfig::Memory).expect("a store");
        let follow = Follow::<Names>::new("/a/");
        put(&store, "/a/x", 1).await;
        assert_eq!(follow.read(&store).0["x"], 1);
        let last = put(&store, "/a/x", 2).await;
        put(&store, "/b/y", 3).await;
        assert_eq!(follow.read(&store).0, BTreeMap::from([("x".to_owned(), 2)]));
        store.write(Write::Delete { key: "/a/x".into(), unchanged: last }).await.expect("deleted");
        assert!(follow.read(&store).0.is_empty());
    }

    #[tokio::test]
    async fn history_that_was_lost_is_read_anew() {
        let store = Store::open(EngineConfig::Memory).expect("a store");
        let follow = Follow::<Names>::new("/a/");
        let first = put(&store, "/a/x", 1).await;
        drop(follow.read(&store));
        store.write(Write::Delete { key: "/a/x".into(), unchanged: first }).await.expect("deleted");
        let last = put(&store, "/a/y", 2).await;
        store.compact(last).await.expect("compacted");
        assert_eq!(follow.read(&store).0, BTreeMap::from([("y".to_owned(), 2)]));
    }
}
