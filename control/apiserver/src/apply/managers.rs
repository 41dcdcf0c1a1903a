//! `metadata.managedFields`: read, kept up on every write, and what an application makes of it.
//!
//! In: the object before and after a write, who writes through which door. Out: the new entries; for an application the
//! merged object, or the conflicts.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::compare::{self, compare};
use super::field_set::FieldSet;
use super::{last_applied, merge, shape};
use crate::meta;
use crate::schema::{Definition, Schema};

/// Updaters remembered one by one, as upstream; older ones share an entry.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Apply,
    Update,
}

/// Who writes, and through which door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) manager: String,
    pub(crate) operation: Operation,
    /// Empty for the object itself.
    pub(crate) subresource: String,
    pub(crate) api_version: String,
}

/// A field that somebody else owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The owner as upstream names it: `"kubectl" using apps/v1`.
    pub(crate) owner: String,
    pub(crate) path: String,
}

/// One owner with what it owns.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    who: Who,
    time: String,
    fields: FieldSet,
}

/// Records what a write changed in the new object's entries, which it may have changed by itself.
pub(crate) fn after_update(
    schema: &Schema,
    definition: &Definition,
    old: &Value,
    new: &mut Value,
    who: &Who,
    now: Timestamp,
) {
    let mut entries = read(new);
    let mut delta = compare(schema, definition, old, new);
    for set in [&mut delta.added, &mut delta.modified, &mut delta.removed] {
        reset(set, &who.subresource);
    }
    let mut set = delta.added;
    set.union(&delta.modified);
    if !set.is_empty() || !delta.removed.is_empty() {
        for entry in entries.iter_mut().filter(|entry| entry.who != *who) {
            entry.fields.subtract(&set);
            entry.fields.subtract(&delta.removed);
        }
        let place = position(&mut entries, who);
        let mine = &mut entries[place];
        let before = mine.fields.clone();
        mine.fields.subtract(&delta.removed);
        mine.fields.union(&set);
        if mine.fields != before || mine.time.is_empty() {
            mine.time = meta::time(now);
        }
    }
    write(new, entries);
}

/// The live object with the configuration applied to it.
pub(crate) fn apply(
    schema: &Schema,
    definition: &Definition,
    live: &Value,
    config: &Value,
    who: &Who,
    force: bool,
    now: Timestamp,
) -> Result<Value, Vec<Conflict>> {
    let mut entries = read(live);
    let mut wanted = shape::fields_of(schema, definition, config);
    // With the fields that are in no record, such as the name: they hold what is around them.
    let mut owned = wanted.clone();
    compare::strip(&mut wanted);
    reset(&mut wanted, &who.subresource);
    let place = position(&mut entries, who);
    let last = std::mem::replace(&mut entries[place].fields, wanted.clone());
    entries.iter().for_each(|entry| owned.union(&entry.fields));
    let merged = merge::merge(schema, definition, live, config);
    let gone = merge::abandoned(&last, &owned);
    let mut new = merge::without(schema, definition, &merged, &gone);

    let delta = compare(schema, definition, live, &new);
    let mut changed = delta.added;
    changed.union(&delta.modified);
    reset(&mut changed, &who.subresource);
    let handed_over = last_applied::unchanged(schema, definition, live, who);
    let mut conflicts = Vec::new();
    for entry in entries.iter_mut().filter(|entry| entry.who != *who) {
        let taken = entry.fields.intersection(&changed);
        entry.fields.subtract(&taken);
        entry.fields.subtract(&delta.removed);
        let mut contested = taken;
        contested.subtract(&handed_over);
        let paths = contested.paths().into_iter();
        conflicts.extend(paths.map(|path| Conflict { owner: entry.who.shown(), path }));
    }
    if !force && !conflicts.is_empty() {
        return Err(conflicts);
    }
    let mine = &mut entries[place];
    if last != wanted || mine.time.is_empty() {
        mine.time = meta::time(now);
    }
    mine.who.api_version.clone_from(&who.api_version);
    last_applied::follow(&mut new, config, who);
    write(&mut new, entries);
    Ok(new)
}

/// What a door resets is not owned by who comes through it.
fn reset(set: &mut FieldSet, subresource: &str) {
    if subresource == "status" {
        set.remove("f:spec");
    } else if subresource.is_empty() {
        set.remove("f:status");
    }
}

/// Where the entry of a writer is; one is added if there is none.
fn position(entries: &mut Vec<Entry>, who: &Who) -> usize {
    entries.iter().position(|entry| entry.who == *who || entry.who.is_same_applier(who)).unwrap_or_else(
        || {
            entries.push(Entry { who: who.clone(), time: String::new(), fields: FieldSet::default() });
            entries.len() - 1
        },
    )
}

fn read(object: &Value) -> Vec<Entry> {
    let entries = meta::items(object, &["metadata", "managedFields"]);
    entries
        .map(|entry| {
            let text = |field: &str| meta::text(entry, &[field]).to_owned();
            let operation = if text("operation") == "Apply" { Operation::Apply } else { Operation::Update };
            Entry {
                who: Who {
                    manager: text("manager"),
                    operation,
                    subresource: text("subresource"),
                    api_version: text("apiVersion"),
                },
                time: text("time"),
                fields: entry.get("fieldsV1").map(FieldSet::from_json).unwrap_or_default(),
            }
        })
        .collect()
}

fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    forget_the_oldest(&mut entries);
    entries.sort_by(|a, b| {
        let key = |entry: &Entry| (entry.who.operation, entry.time.clone(), entry.who.manager.clone());
        key(a).cmp(&key(b))
    });
    let list: Vec<Value> = entries.iter().map(Entry::to_json).collect();
    meta::set(object, &["metadata", "managedFields"], (!list.is_empty()).then(|| list.into()));
}

fn forget_the_oldest(entries: &mut Vec<Entry>) {
    loop {
        let updaters = entries.iter().filter(|entry| entry.who.operation == Operation::Update);
        let mut updaters: Vec<&Entry> = updaters.collect();
        if updaters.len() <= MAX_UPDATERS {
            return;
        }
        let age = |entry: &Entry| (entry.who.manager != ANCIENT, entry.time.clone());
        updaters.sort_by_key(|entry| age(entry));
        let (first, second) = (updaters[0].clone(), updaters[1].clone());
        entries.retain(|entry| *entry != first && *entry != second);
        let mut shared = second;
        shared.fields.union(&first.fields);
        shared.who = Who { manager: ANCIENT.to_owned(), subresource: String::new(), ..shared.who };
        entries.push(shared);
    }
}

// === impl Who ===

impl Who {
    /// An applier is the same whatever version it applies in.
    fn is_same_applier(&self, other: &Self) -> bool {
        self.operation == Operation::Apply
            && other.operation == Operation::Apply
            && self.manager == other.manager
            && self.subresource == other.subresource
    }

    fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

// === impl Entry ===

impl Entry {
    fn to_json(&self) -> Value {
        let operation = match self.who.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        };
        let mut entry: Map<String, Value> = Map::new();
        entry.insert("manager".into(), self.who.manager.as_str().into());
        entry.insert("operation".into(), operation.into());
        entry.insert("apiVersion".into(), self.who.api_version.as_str().into());
        entry.insert("time".into(), self.time.as_str().into());
        entry.insert("fieldsType".into(), json!("FieldsV1"));
        entry.insert("fieldsV1".into(), self.fields.to_json());
        if !self.who.subresource.is_empty() {
            entry.insert("subresource".into(), self.who.subresource.as_str().into());
        }
        entry.into()
    }
}
