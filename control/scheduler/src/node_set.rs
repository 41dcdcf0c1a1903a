//! A set of rows of the node table, one bit each.
//!
//! In: row numbers. Out: membership, intersection, iteration in row order. Pure.

/// Index of a node in every column of the node table.
pub(crate) type Row = usize;

/// Set of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeSet {
    words: Vec<u64>,
}

impl NodeSet {
    pub(crate) fn contains(&self, row: Row) -> bool {
        self.words.get(row / 64).is_some_and(|word| word & (1 << (row % 64)) != 0)
    }

    pub(crate) fn set(&mut self, row: Row, member: bool) {
        if row / 64 >= self.words.len() {
            if !member {
                return;
            }
            self.words.resize(row / 64 + 1, 0);
        }
        let bit = 1 << (row % 64);
        if member {
            self.words[row / 64] |= bit;
        } else {
            self.words[row / 64] &= !bit;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Row> + '_ {
        self.words.iter().enumerate().flat_map(|(position, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros() as usize;
                (rest != 0).then(|| {
                    rest &= rest - 1;
                    position * 64 + bit
                })
            })
        })
    }
}

impl FromIterator<Row> for NodeSet {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Self {
        let mut set = Self::default();
        rows.into_iter().for_each(|row| set.set(row, true));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_holds_rows_across_words() {
        let mut set: NodeSet = [0, 63, 64, 200].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 200]);
        assert_eq!(set.len(), 4);
        set.set(64, false);
        set.set(9999, false);
        assert!(set.contains(63) && !set.contains(64) && !set.contains(9999));
        for row in [0, 63, 200] {
            set.set(row, false);
        }
        assert!(set.is_empty());
    }
}
