//! A bounded store for what was read of immutable blobs.
//!
//! In: values and what they weigh. Out: the same values, as long as all of them together stay below a limit of bytes.
//! Images are written by strangers: their number says nothing about the memory they take.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Bytes of memory a value takes, nearly.
pub(super) trait Weigh {
    fn weight(&self) -> usize;
}

#[derive(Debug)]
pub(super) struct Shelf<V> {
    limit: usize,
    held: Mutex<Held<V>>,
}

#[derive(Debug)]
struct Held<V> {
    values: HashMap<String, V>,
    weight: usize,
}

// === impl Shelf ===

impl<V: Clone + Weigh> Shelf<V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, held: Mutex::new(Held { values: HashMap::new(), weight: 0 }) }
    }

    pub(super) fn get(&self, key: &str) -> Option<V> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).values.get(key).cloned()
    }

    /// Keeps a value. When there is no room all others go: a node's own images together are far from the limit.
    pub(super) fn keep(&self, key: &str, value: V) {
        let weight = key.len() + value.weight();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = held.values.remove(key) {
            held.weight = held.weight.saturating_sub(key.len() + old.weight());
        }
        if held.weight + weight > self.limit {
            held.values.clear();
            held.weight = 0;
        }
        if weight <= self.limit {
            held.values.insert(key.to_owned(), value);
            held.weight += weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for String {
        fn weight(&self) -> usize {
            self.len()
        }
    }

    #[test]
    fn what_is_kept_weighs_no_more_than_the_limit() {
        let shelf = Shelf::new(100);
        shelf.keep("a", "x".repeat(40));
        shelf.keep("b", "x".repeat(40));
        assert!(shelf.get("a").is_some() && shelf.get("b").is_some());
        shelf.keep("b", "x".repeat(57));
        assert!(shelf.get("a").is_some(), "the value replaced counts no more");
        shelf.keep("c", "x".repeat(40));
        assert!(shelf.get("a").is_none() && shelf.get("c").is_some());
        shelf.keep("d", "x".repeat(1000));
        assert!(shelf.get("d").is_none(), "one that is larger than all room");
        assert_eq!(shelf.held.lock().unwrap().weight, 0);
    }
}
