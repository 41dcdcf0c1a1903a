//! The order of merged lists.
//!
//! In: merged items, the order the patch wants, the order of the object. Out: the items with the patch's relative
//! order first, and the others where the object had them.

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
    let (mut named, mut others): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| place(wanted, item, key).is_some());
    let last = |place: Option<usize>| place.unwrap_or(usize::MAX);
    named.sort_by_key(|item| last(place(wanted, item, key)));
    others.sort_by_key(|item| last(place(live, item, key)));
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let at = place(live, &item, key);
        while let Some(other) = others.peek() {
            let before = matches!((place(live, other, key), at), (Some(other), Some(at)) if other < at);
            if !before {
                break;
            }
            arranged.extend(others.next());
        }
        arranged.push(item);
    }
    arranged.extend(others);
    Ok(arranged)
}

pub(super) fn deduplicated(items: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut unique = Vec::new();
    for item in items {
        if !unique.contains(&item) {
            unique.push(item);
        }
    }
    unique
}

fn place(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|candidate| same(candidate, item, key))
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
