//! Sets of completion indexes, as a Job's status writes them: `0-2,5`.
//!
//! In: that text, single indexes. Out: membership, the text. Pure.

use std::collections::BTreeSet;
use std::fmt;

/// A set of completion indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Indexes(BTreeSet<i32>);

impl Indexes {
    /// Reads the status's text up to `end`; what cannot be read is left out, as it was not written by this controller.
    pub(crate) fn parse(text: &str, end: i32) -> Self {
        let mut set = BTreeSet::new();
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                // Bounded by what the Job can have, whatever the text claims.
                set.extend(first.max(0)..=last.min(end - 1));
            }
        }
        Self(set)
    }

    pub(crate) fn insert(&mut self, index: i32) {
        self.0.insert(index);
    }

    pub(crate) fn extend(&mut self, indexes: impl IntoIterator<Item = i32>) {
        self.0.extend(indexes);
    }

    pub(crate) fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    pub(crate) fn len(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    /// How many of these are in `other` as well.
    pub(crate) fn common(&self, other: &Self) -> i32 {
        i32::try_from(self.0.intersection(&other.0).count()).unwrap_or(i32::MAX)
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if_eq(&(last + 1)) {
                last = next;
            }
            // Two neighbours are written one by one.
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                1 => write!(f, "{separator}{first},{last}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_set_agree() {
        for text in ["", "3", "0-2,5", "0,1,3-5", "7"] {
            assert_eq!(Indexes::parse(text, 10).to_string(), text);
        }
        assert_eq!(Indexes::parse("0-1", 10).to_string(), "0,1");
        assert_eq!(Indexes::parse("8-2000000000,x,-4", 10).to_string(), "8,9");
        let (a, b) = (Indexes::parse("0-4", 10), Indexes::parse("3-6", 10));
        assert_eq!((a.len(), a.common(&b), a.contains(4), a.contains(5)), (5, 2, true, false));
    }
}
