//! Space in the flat slot array.
//!
//! In: lengths of runs. Out: where they lie. A released run cools for a while before it is used again: a program that
//! read a service entry just before it changed may still read the old run's slots. Pure; time is a parameter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// A program runs for microseconds; even one that is interrupted is done long before this.
const COOLING: Duration = Duration::from_secs(1);

/// Free and cooling extents of the array.
#[derive(Debug)]
pub(crate) struct SlotSpace {
    total: u32,
    /// Free extents by base.
    free: BTreeMap<u32, u32>,
    /// The same by length, for the tightest fit.
    by_length: BTreeSet<(u32, u32)>,
    cooling: VecDeque<(Instant, u32, u32)>,
}

impl SlotSpace {
    pub(crate) fn new(total: u32) -> Self {
        let mut space =
            Self { total, free: BTreeMap::new(), by_length: BTreeSet::new(), cooling: VecDeque::new() };
        space.insert(0, total);
        space
    }

    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    /// Takes the extent of a restored run. `false`: part of it is not free.
    pub(crate) fn hold(&mut self, base: u32, length: u32) -> bool {
        let Some((from, free)) = self.free.range(..=base).next_back().map(|(from, free)| (*from, *free))
        else {
            return false;
        };
        let Some(end) = base.checked_add(length) else { return false };
        if end > from + free {
            return false;
        }
        self.remove(from, free);
        self.insert(from, base - from);
        self.insert(end, from + free - end);
        true
    }

    /// The base of a free run. Cooling ones are used only when nothing else is left.
    pub(crate) fn allocate(&mut self, length: u32, now: Instant) -> Option<u32> {
        self.thaw(|since| now.saturating_duration_since(since) >= COOLING);
        if let Some(base) = self.take(length) {
            return Some(base);
        }
        self.thaw(|_| true);
        self.take(length)
    }

    /// Gives a run back.
    pub(crate) fn release(&mut self, base: u32, length: u32, now: Instant) {
        if length > 0 {
            self.cooling.push_back((now, base, length));
        }
    }

    fn take(&mut self, length: u32) -> Option<u32> {
        let (found, base) = self.by_length.range((length, 0)..).next().copied()?;
        self.remove(base, found);
        self.insert(base + length, found - length);
        Some(base)
    }

    fn thaw(&mut self, cooled: impl Fn(Instant) -> bool) {
        while let Some((since, base, length)) = self.cooling.front().copied() {
            if !cooled(since) {
                break;
            }
            self.cooling.pop_front();
            self.merge(base, length);
        }
    }

    /// Adds an extent and joins it with its free neighbours.
    fn merge(&mut self, mut base: u32, mut length: u32) {
        if let Some((before, free)) = self.free.range(..base).next_back().map(|(b, f)| (*b, *f))
            && before + free == base
        {
            self.remove(before, free);
            (base, length) = (before, free + length);
        }
        if let Some(free) = self.free.get(&(base + length)).copied() {
            self.remove(base + length, free);
            length += free;
        }
        self.insert(base, length);
    }

    fn insert(&mut self, base: u32, length: u32) {
        if length > 0 {
            self.free.insert(base, length);
            self.by_length.insert((length, base));
        }
    }

    fn remove(&mut self, base: u32, length: u32) {
        self.free.remove(&base);
        self.by_length.remove(&(length, base));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_run_is_not_reused_before_it_cooled() {
        let start = Instant::now();
        let mut space = SlotSpace::new(100);
        assert_eq!(space.allocate(10, start), Some(0));
        space.release(0, 10, start);
        assert_eq!(space.allocate(10, start), Some(10));
        assert_eq!(space.allocate(10, start + COOLING), Some(0));
    }

    #[test]
    fn cooling_space_is_used_rather_than_refusing() {
        let now = Instant::now();
        let mut space = SlotSpace::new(16);
        assert_eq!(space.allocate(16, now), Some(0));
        assert_eq!(space.allocate(1, now), None);
        space.release(4, 4, now);
        space.release(0, 4, now);
        space.release(8, 8, now);
        assert_eq!(space.allocate(16, now), Some(0), "neighbours are joined");
    }

    #[test]
    fn tightest_hole_is_taken() {
        let now = Instant::now();
        let mut space = SlotSpace::new(100);
        for base in [0, 10, 20, 24] {
            assert!(space.hold(base, 4), "{base}");
        }
        assert!(!space.hold(26, 4) && !space.hold(98, 4) && !space.hold(9, 2));
        assert_eq!(space.allocate(6, now), Some(4));
        assert_eq!(space.allocate(60, now), Some(28));
    }
}
