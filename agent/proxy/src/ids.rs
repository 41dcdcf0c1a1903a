//! Small numbers that stay with their owner.
//!
//! In: requests and releases. Out: ids, handed out in rising order and around, so that a number just given back is the
//! last to be used again: flows and affinity entries may still name it. Pure.

/// Ids from 1 up to a limit; 0 is never used.
#[derive(Debug)]
pub(crate) struct Ids {
    /// One past the last id.
    end: u32,
    next: u32,
    used: Vec<u64>,
    count: u32,
}

impl Ids {
    pub(crate) fn new(end: u32) -> Self {
        Self { end, next: 1, used: Vec::new(), count: 0 }
    }

    /// How many ids there are in all.
    pub(crate) fn capacity(&self) -> u32 {
        self.end.saturating_sub(1)
    }

    /// Marks a restored id. `false`: it is taken already or out of range.
    pub(crate) fn hold(&mut self, id: u32) -> bool {
        if id == 0 || id >= self.end || self.is_used(id) {
            return false;
        }
        self.set(id, true);
        // Restored ids are as good as just handed out: go on after them.
        self.next = self.next.max(id.saturating_add(1));
        true
    }

    pub(crate) fn allocate(&mut self) -> Option<u32> {
        if self.count >= self.capacity() {
            return None;
        }
        let next = if self.next >= self.end { 1 } else { self.next };
        let id = self.free_from(next, self.end).or_else(|| self.free_from(1, next))?;
        self.set(id, true);
        self.next = id + 1;
        Some(id)
    }

    pub(crate) fn release(&mut self, id: u32) {
        if self.is_used(id) {
            self.set(id, false);
        }
    }

    fn is_used(&self, id: u32) -> bool {
        self.used.get((id / 64) as usize).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    fn set(&mut self, id: u32, used: bool) {
        let index = (id / 64) as usize;
        if index >= self.used.len() {
            self.used.resize(index + 1, 0);
        }
        let bit = 1u64 << (id % 64);
        if used {
            self.used[index] |= bit;
            self.count += 1;
        } else {
            self.used[index] &= !bit;
            self.count -= 1;
        }
    }

    /// First free id in `from..end`, a word at a time.
    fn free_from(&self, from: u32, end: u32) -> Option<u32> {
        let mut id = from;
        while id < end {
            let word = self.used.get((id / 64) as usize).copied().unwrap_or(0);
            let free = !word >> (id % 64);
            if free != 0 {
                let found = id + free.trailing_zeros();
                return (found < end).then_some(found);
            }
            id = (id / 64 + 1) * 64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_and_come_back_only_after_a_whole_round() {
        let mut ids = Ids::new(4);
        assert_eq!([ids.allocate(), ids.allocate()], [Some(1), Some(2)]);
        ids.release(1);
        assert_eq!([ids.allocate(), ids.allocate(), ids.allocate()], [Some(3), Some(1), None]);
        ids.release(2);
        ids.release(2);
        assert_eq!([ids.allocate(), ids.allocate()], [Some(2), None]);
    }

    #[test]
    fn restored_ids_are_not_handed_out() {
        let mut ids = Ids::new(300);
        assert!(ids.hold(130) && !ids.hold(130) && !ids.hold(0) && !ids.hold(300));
        assert_eq!(ids.allocate(), Some(131));
        let rest: std::collections::BTreeSet<_> = std::iter::from_fn(|| ids.allocate()).collect();
        assert_eq!(rest.len(), 299 - 2);
        assert!(!rest.contains(&130));
    }
}
