//! The order of merged lists.
//!
//! In: merged items, the order the patch wants, the order of the object. Out: the items with the patch's relative
//! order first, and the others where the object had them.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::go_text::{go_list, go_type};
use super::list::{elements_are_objects, no_merge_key};
use super::{Directive, Merger, PatchError, Shape, directives};

impl<'a> Merger<'a> {
    /// Merges the lists that come with a `$setElementOrder` and takes both out of the patch.
    pub(super) fn set_element_orders(
        &self,
        shape: Shape<'a>,
        original: &mut Map<String, Value>,
        patch: &mut Map<String, Value>,
    ) -> Result<(), PatchError> {
        let orders: Vec<String> =
            patch.keys().filter(|name| name.starts_with(directives::SET_ORDER)).cloned().collect();
        for directive in orders {
            let name = &directive[directives::SET_ORDER.len()..];
            let Some(wanted) = list_of(patch.remove(&directive))? else { continue };
            let live = list_of(original.get(name).cloned())?;
            let change = list_of(patch.get(name).filter(|change| !change.is_null()).cloned())?;
            let field = self.field(shape, name)?;
            let key = field.meta.merge_key.as_deref();
            check_order(change.as_deref().unwrap_or_default(), &wanted, key)?;
            let merged = match (&live, change) {
                // A null change deletes the list; the ordinary merge does that.
                _ if patch.get(name).is_some_and(Value::is_null) => continue,
                (None, None) => continue,
                (Some(live), None) => live.clone(),
                (None, Some(change)) => change.into_iter().filter_map(directives::plain).collect(),
                (Some(live), Some(change)) if field.meta.merge => self.list(field, live.clone(), change)?,
                (Some(_), Some(change)) => change,
            };
            let arranged = arrange(merged, &wanted, live.as_deref().unwrap_or_default(), key)?;
            original.insert(name.to_owned(), Value::Array(arranged));
            patch.remove(name);
        }
        Ok(())
    }
}

/// The items in the wanted order, and those it does not name interleaved as the live list has them.
pub(super) fn arrange(
    items: Vec<Value>,
    wanted: &[Value],
    live: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    if elements_are_objects(&items, &[])? {
        for item in items.iter().chain(wanted) {
            let (Some(fields), Some(key)) = (item.as_object(), key) else { continue };
            if !fields.contains_key(key) {
                return Err(no_merge_key(fields, key));
            }
        }
    }
    let (wanted, live) = (Places::of(wanted, key), Places::of(live, key));
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for item in items {
        let (to, from) = (wanted.of_item(&item), live.of_item(&item));
        match to {
            Some(to) => named.push((to, from, item)),
            None => others.push((from, item)),
        }
    }
    named.sort_by_key(|(to, ..)| *to);
    others.sort_by_key(|(from, _)| from.unwrap_or(usize::MAX));
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, at, item) in named {
        while let Some((_, other)) =
            others.next_if(|(from, _)| matches!((*from, at), (Some(other), Some(at)) if other < at))
        {
            arranged.push(other);
        }
        arranged.push(item);
    }
    arranged.extend(others.map(|(_, item)| item));
    Ok(arranged)
}

/// Where each item first stands in a list: lists are as long as clients make them.
struct Places<'a> {
    key: Option<&'a str>,
    /// Of objects with the merge key, by its value.
    keyed: HashMap<&'a Value, usize>,
    /// Of everything else.
    whole: HashMap<&'a Value, usize>,
}

// === impl Places ===

impl<'a> Places<'a> {
    fn of(list: &'a [Value], key: Option<&'a str>) -> Self {
        let mut places = Self { key, keyed: HashMap::new(), whole: HashMap::new() };
        for (place, item) in list.iter().enumerate() {
            match key {
                Some(key) if item.is_object() => {
                    if let Some(identity) = item.get(key) {
                        places.keyed.entry(identity).or_insert(place);
                    }
                }
                _ => {
                    places.whole.entry(item).or_insert(place);
                }
            }
        }
        places
    }

    fn of_item(&self, item: &Value) -> Option<usize> {
        let keyed = self.key.and_then(|key| self.keyed.get(item.get(key)?));
        keyed.into_iter().chain(self.whole.get(item)).min().copied()
    }
}

pub(super) fn deduplicated(items: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(item.clone())).collect()
}

fn same(left: &Value, right: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) if left.is_object() => left.get(key).is_some() && left.get(key) == right.get(key),
        _ => left == right,
    }
}

fn list_of(value: Option<Value>) -> Result<Option<Vec<Value>>, PatchError> {
    match value {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(other) => {
            let text = format!("expected a []interface {{}}, but received a {}", go_type(&other));
            Err(PatchError::Mismatch(text))
        }
    }
}

/// The items of the patch must come in the wanted order, and none may be missing from it.
fn check_order(change: &[Value], wanted: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if change.is_empty() || wanted.is_empty() {
        return Ok(());
    }
    if key.is_some() && wanted.iter().any(|item| !item.is_object()) {
        return Err(PatchError::Format(Directive::SetElementOrder));
    }
    let mut wanted_items = wanted.iter();
    for item in change.iter().filter(|item| item.get(directives::MARKER).is_none()) {
        if !wanted_items.any(|candidate| same(candidate, item, key)) {
            let text = format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                go_list(change),
                go_list(wanted)
            );
            return Err(PatchError::Mismatch(text));
        }
    }
    Ok(())
}
