//! Who waits for which keys.
//!
//! In: prefixes of watchers, events as they are published. Out: per prefix the revisions that match it, and a wake-up
//! for its watchers. A watcher of a quiet prefix is neither woken by nor made to look at the rest of the traffic.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use tokio::sync::watch;

use crate::types::{Event, Revision};

/// All watchers of one prefix.
#[derive(Debug)]
struct Channel {
    watchers: usize,
    /// Every logged revision after `since` that matches.
    revisions: VecDeque<Revision>,
    since: Revision,
    wake: watch::Sender<Revision>,
}

#[derive(Debug, Default)]
pub(crate) struct WatchHub {
    channels: HashMap<Bytes, Channel>,
    /// How many channels have a prefix of this length: what to cut a key to when looking for its channels.
    lengths: BTreeMap<usize, usize>,
    closed: bool,
}

/// The matching revisions a channel knows of.
pub(crate) struct Matches<'a> {
    /// Before and at this revision the log itself has to be searched.
    pub(crate) since: Revision,
    /// Ascending.
    pub(crate) revisions: &'a VecDeque<Revision>,
}

/// A wake-up to send once the events can be read.
pub(crate) struct Wake {
    sender: watch::Sender<Revision>,
    revision: Revision,
}

// === impl Wake ===

impl Wake {
    pub(crate) fn send(self) {
        self.sender.send_replace(self.revision);
    }
}

// === impl WatchHub ===

impl WatchHub {
    /// Adds a watcher, unless the hub is closed; `now` is the last published revision.
    pub(crate) fn join(&mut self, prefix: &Bytes, now: Revision) -> Option<watch::Receiver<Revision>> {
        if self.closed {
            return None;
        }
        let lengths = &mut self.lengths;
        let channel = self.channels.entry(prefix.clone()).or_insert_with(|| {
            *lengths.entry(prefix.len()).or_default() += 1;
            Channel { watchers: 0, revisions: VecDeque::new(), since: now, wake: watch::Sender::new(now) }
        });
        channel.watchers += 1;
        Some(channel.wake.subscribe())
    }

    /// Removes one watcher of the prefix.
    pub(crate) fn leave(&mut self, prefix: &Bytes) {
        let Some(channel) = self.channels.get_mut(prefix) else { return };
        channel.watchers -= 1;
        if channel.watchers > 0 {
            return;
        }
        self.channels.remove(prefix);
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }

    pub(crate) fn matches(&self, prefix: &Bytes) -> Option<Matches<'_>> {
        let channel = self.channels.get(prefix)?;
        Some(Matches { since: channel.since, revisions: &channel.revisions })
    }

    /// Files the events under the prefixes they match and says whom to wake.
    pub(crate) fn publish<'a>(&mut self, events: impl Iterator<Item = &'a Event>) -> Vec<Wake> {
        let mut touched: HashMap<&[u8], Revision> = HashMap::new();
        for event in events {
            let key = event.key();
            for (&length, _) in self.lengths.range(..=key.len()) {
                let Some(channel) = self.channels.get_mut(&key[..length]) else { continue };
                channel.revisions.push_back(event.revision());
                touched.insert(&key[..length], event.revision());
            }
        }
        touched
            .into_iter()
            .filter_map(|(prefix, revision)| {
                Some(Wake { sender: self.channels.get(prefix)?.wake.clone(), revision })
            })
            .collect()
    }

    /// Forgets what the log no longer holds.
    pub(crate) fn compact(&mut self, to: Revision) {
        for channel in self.channels.values_mut() {
            while channel.revisions.pop_front_if(|revision| *revision <= to).is_some() {}
        }
    }

    /// Ends every watcher and lets none join again.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.channels.clear();
        self.lengths.clear();
    }
}
