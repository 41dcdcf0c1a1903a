//! Amounts of resources, a column for each resource and a row for each node.
//!
//! In: [`Resources`] of single rows. Out: plain arrays that a filter or a score walks through. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::node_set::Row;
use crate::resources::Resources;

/// One column of amounts for each resource.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    pub(crate) milli_cpu: Vec<i64>,
    pub(crate) memory: Vec<i64>,
    pub(crate) ephemeral_storage: Vec<i64>,
    scalars: HashMap<Arc<str>, Vec<i64>>,
}

impl Columns {
    /// Makes room for one more row.
    pub(crate) fn grow(&mut self) {
        let Self { milli_cpu, memory, ephemeral_storage, scalars } = self;
        for column in [milli_cpu, memory, ephemeral_storage].into_iter().chain(scalars.values_mut()) {
            column.push(0);
        }
    }

    /// Zero where no node ever had the resource.
    pub(crate) fn scalar(&self, name: &str, row: Row) -> i64 {
        self.scalars.get(name).and_then(|column| column.get(row)).copied().unwrap_or(0)
    }

    pub(crate) fn replace(&mut self, row: Row, amounts: &Resources) {
        self.clear(row);
        self.add(row, amounts);
    }

    /// A row holds other amounts than these.
    pub(crate) fn differs(&self, row: Row, amounts: &Resources) -> bool {
        self.milli_cpu[row] != amounts.milli_cpu
            || self.memory[row] != amounts.memory
            || self.ephemeral_storage[row] != amounts.ephemeral_storage
            || amounts.scalars.iter().any(|(name, amount)| self.scalar(name, row) != *amount)
            || self.scalars.iter().any(|(name, column)| {
                column[row] != 0 && !amounts.scalars.iter().any(|(known, _)| known == name)
            })
    }

    pub(crate) fn clear(&mut self, row: Row) {
        let Self { milli_cpu, memory, ephemeral_storage, scalars } = self;
        for column in [milli_cpu, memory, ephemeral_storage].into_iter().chain(scalars.values_mut()) {
            column[row] = 0;
        }
    }

    pub(crate) fn add(&mut self, row: Row, amounts: &Resources) {
        self.combine(row, amounts, i64::saturating_add);
    }

    pub(crate) fn subtract(&mut self, row: Row, amounts: &Resources) {
        self.combine(row, amounts, i64::saturating_sub);
    }

    fn combine(&mut self, row: Row, amounts: &Resources, with: fn(i64, i64) -> i64) {
        self.milli_cpu[row] = with(self.milli_cpu[row], amounts.milli_cpu);
        self.memory[row] = with(self.memory[row], amounts.memory);
        self.ephemeral_storage[row] = with(self.ephemeral_storage[row], amounts.ephemeral_storage);
        for (name, amount) in &amounts.scalars {
            let rows = self.milli_cpu.len();
            let column = self.scalars.entry(name.clone()).or_insert_with(|| vec![0; rows]);
            column[row] = with(column[row], *amount);
        }
    }
}
