//! Labels of namespaces: pod affinity may select by them.
//!
//! In: namespaces as the watch tells them. Out: which of them a selector matches. Pure.

use std::collections::{BTreeMap, HashMap};

use xebec_api::labels::Selector;

/// Labels by namespace.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    labels: HashMap<String, BTreeMap<String, String>>,
}

impl Namespaces {
    pub(crate) fn put(&mut self, name: &str, labels: BTreeMap<String, String>) {
        self.labels.insert(name.to_owned(), labels);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.labels.remove(name);
    }

    pub(crate) fn matching<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = &'a str> {
        self.labels.iter().filter(|(_, labels)| selector.matches(*labels)).map(|(name, _)| name.as_str())
    }

    pub(crate) fn is_matched(&self, name: &str, selector: &Selector) -> bool {
        self.labels.get(name).is_some_and(|labels| selector.matches(labels))
    }
}
