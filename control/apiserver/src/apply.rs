//! Who owns which field: server-side apply, and the record that every other write keeps for it.
//!
//! In: objects before and after a write, who writes. Out: `metadata.managedFields`, merged objects, or the conflicts that
//! keep an applier from changing what others own. The algorithm is that of upstream's structured merge: fields are
//! compared and merged as the schema says they are lists of keyed items, sets, maps or single values.

mod compare;
mod field_set;
mod last_applied;
mod managers;
mod merge;
mod shape;

pub(crate) use managers::{Conflict, Operation, Who, after_update, apply};
