//! What one watch has told of, so that a new list shows what is gone.
//!
//! In: the names in lists and events. Out: what a list that ended did not mention. Pure.

use std::collections::HashSet;
use std::hash::Hash;

/// Follows one watch's lists: what is known and not listed again is gone.
pub(crate) struct Listing<T> {
    known: HashSet<T>,
    listed: Option<HashSet<T>>,
    /// A first list is complete.
    pub(crate) complete: bool,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), listed: None, complete: false }
    }
}

impl<T: Clone + Eq + Hash> Listing<T> {
    /// A list begins.
    pub(crate) fn begin(&mut self) {
        self.listed = Some(HashSet::new());
    }

    pub(crate) fn add(&mut self, item: T) {
        if let Some(listed) = &mut self.listed {
            listed.insert(item.clone());
        }
        self.known.insert(item);
    }

    pub(crate) fn remove(&mut self, item: &T) {
        self.known.remove(item);
    }

    /// What the list that ends did not mention.
    pub(crate) fn end(&mut self) -> Vec<T> {
        self.complete = true;
        let listed = self.listed.take().unwrap_or_default();
        let gone: Vec<T> = self.known.difference(&listed).cloned().collect();
        self.known = listed;
        gone
    }
}
