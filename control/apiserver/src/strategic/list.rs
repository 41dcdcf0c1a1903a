//! Merging lists: scalars as sets, objects by their merge key.
//!
//! In: the list of the object, the list of the patch. Out: the merged list, in the order of the patch where it says
//! one and of the object where it does not.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::go_text::{go_list, go_map};
use super::{Field, Merger, PatchError, directives, order};

impl Merger<'_> {
    pub(super) fn list(
        &self,
        field: Field<'_>,
        original: Vec<Value>,
        patch: Vec<Value>,
    ) -> Result<Vec<Value>, PatchError> {
        if original.is_empty() && patch.is_empty() {
            return Ok(original);
        }
        if !elements_are_objects(&original, &patch)? {
            let order = patch.clone();
            let merged = order::deduplicated(original.iter().cloned().chain(patch));
            return order::arrange(merged, &order, &original, None);
        }
        let Some(key) = field.meta.merge_key.as_deref() else {
            let owner = match field.shape {
                super::Shape::Object(definition) => definition.short_name(),
                _ => "",
            };
            return Err(PatchError::Mismatch(format!("cannot merge lists without merge key for {owner}")));
        };
        let (original, patch) = apply_markers(original, patch, key)?;
        let (live, wanted) = (original.clone(), patch.clone());
        let merged = self.objects(field, original, patch, key)?;
        order::arrange(merged, &wanted, &live, Some(key))
    }

    fn objects(
        &self,
        field: Field<'_>,
        mut merged: Vec<Value>,
        patch: Vec<Value>,
        key: &str,
    ) -> Result<Vec<Value>, PatchError> {
        let mut places: HashMap<Value, usize> = HashMap::new();
        for (place, candidate) in merged.iter().enumerate() {
            if let Some(identity) = candidate.get(key) {
                places.entry(identity.clone()).or_insert(place);
            }
        }
        for item in patch {
            let Value::Object(item) = item else { continue };
            let identity = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
            match places.get(identity) {
                Some(&place) => {
                    let Value::Object(old) = merged[place].take() else { continue };
                    merged[place] = Value::Object(self.map(field.shape, old, item)?);
                }
                None => {
                    places.insert(identity.clone(), merged.len());
                    merged.push(Value::Object(item));
                }
            }
        }
        Ok(merged)
    }
}

/// Applies the items that carry `$patch`; what remains is a list to merge and a patch without them.
fn apply_markers(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut ordinary = Vec::with_capacity(patch.len());
    let mut replace = false;
    let mut deleted = HashSet::new();
    for item in patch {
        let Some(fields) = item.as_object() else { continue };
        let Some(directive) = fields.get(directives::MARKER) else {
            ordinary.push(item);
            continue;
        };
        match directive.as_str() {
            Some(directives::DELETE) => {
                let identity = fields.get(key).ok_or_else(|| no_merge_key(fields, key))?;
                deleted.insert(identity.clone());
            }
            Some(directives::REPLACE) => replace = true,
            Some(directives::MERGE) => {
                let text = "merging lists cannot yet be specified in the patch";
                return Err(PatchError::Mismatch(text.to_owned()));
            }
            _ => return Err(directives::unknown(directive, fields)),
        }
    }
    original.retain(|candidate| candidate.get(key).is_none_or(|identity| !deleted.contains(identity)));
    Ok(if replace { (ordinary, Vec::new()) } else { (original, ordinary) })
}

/// The list without the listed scalars.
pub(super) fn without(original: Vec<Value>, deleted: &[Value]) -> Result<Vec<Value>, PatchError> {
    if elements_are_objects(&original, deleted)? {
        return Err(PatchError::Format(super::Directive::DeleteFromPrimitiveList));
    }
    let deleted: HashSet<&Value> = deleted.iter().collect();
    Ok(original.into_iter().filter(|item| !deleted.contains(item)).collect())
}

/// Whether both lists hold objects; they must hold values of one type.
pub(super) fn elements_are_objects(left: &[Value], right: &[Value]) -> Result<bool, PatchError> {
    let mut items = left.iter().chain(right);
    let Some(first) = items.next() else { return Ok(false) };
    if first.is_array() {
        return Err(PatchError::ListOfLists);
    }
    if items.any(|item| std::mem::discriminant(item) != std::mem::discriminant(first)) {
        let lists = format!("[{} {}]", go_list(left), go_list(right));
        return Err(PatchError::Mismatch(format!("list element types are not identical: {lists}")));
    }
    Ok(first.is_object())
}

pub(super) fn no_merge_key(item: &Map<String, Value>, key: &str) -> PatchError {
    PatchError::Mismatch(format!("map: {} does not contain declared merge key: {key}", go_map(item)))
}
