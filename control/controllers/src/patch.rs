//! Writes only what a reconcile changed.
//!
//! In: an object as cached and as it should be. Out: a JSON merge patch that holds the difference and the
//! resourceVersion it was computed from, so that a write on stale data is refused and not merged.
//!
//! A full update would drop whatever this build's types do not know; a patch cannot.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::Error;

/// Which half of the object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// Metadata and spec.
    Main,
    /// The status sub-resource.
    Status,
}

/// Brings `current` to `desired` in the API. `None` when there is nothing to change.
pub(crate) async fn update<K>(api: &Api<K>, half: Half, current: &K, desired: &K) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = current.meta().name.clone().unwrap_or_default();
    let Some(patch) = difference(current, desired, half)? else {
        return Ok(None);
    };
    let params = PatchParams::default();
    let written = match half {
        Half::Main => api.patch(&name, &params, &Patch::Merge(&patch)).await,
        Half::Status => api.patch_status(&name, &params, &Patch::Merge(&patch)).await,
    };
    let kind = K::kind(&());
    match written {
        Ok(object) => Ok(Some(object)),
        Err(error) => Err(Error::api(format!("update {kind} {name}"), error)),
    }
}

/// The merge patch from `current` to `desired`, bound to `current`'s version; `None` when they are equal.
fn difference<K>(current: &K, desired: &K, half: Half) -> Result<Option<Value>, Error>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let to_value = |object: &K| {
        serde_json::to_value(object).map_err(|error| Error::Invalid {
            object: format!("{} {}", K::kind(&()), object.meta().name.as_deref().unwrap_or_default()),
            field: "content",
            reason: error.to_string(),
        })
    };
    let (mut old, mut new) = (to_value(current)?, to_value(desired)?);
    for side in [&mut old, &mut new] {
        if let Some(fields) = side.as_object_mut() {
            match half {
                Half::Main => drop(fields.remove("status")),
                Half::Status => fields.retain(|field, _| field == "status"),
            }
        }
    }
    let Some(mut patch) = merge_difference(&old, &new) else {
        return Ok(None);
    };
    let meta = current.meta();
    if let Some(fields) = patch.as_object_mut() {
        let target = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let (Some(target), Some(version)) = (target.as_object_mut(), &meta.resource_version) {
            target.insert("resourceVersion".to_owned(), Value::String(version.clone()));
        }
    }
    Ok(Some(patch))
}

/// RFC 7386 patch that turns `old` into `new`; `None` when they are equal.
fn merge_difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(known) => {
                if let Some(change) = merge_difference(known, value) {
                    patch.insert(key.clone(), change);
                }
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Node;
    use serde_json::json;

    #[test]
    fn merge_difference_holds_changes_additions_and_removals_only() {
        let old = json!({"a": 1, "b": {"c": [1, 2], "d": 4}, "e": 5});
        let new = json!({"a": 1, "b": {"c": [1, 3], "d": 4, "f": 6}});
        assert_eq!(merge_difference(&old, &new), Some(json!({"b": {"c": [1, 3], "f": 6}, "e": null})));
        assert_eq!(merge_difference(&old, &old), None);
    }

    #[test]
    fn halves_do_not_mix_and_carry_the_version() {
        let node = |cidr: Option<&str>, phase: &str| -> Node {
            serde_json::from_value(json!({
                "metadata": {"name": "n", "resourceVersion": "7"},
                "spec": {"podCIDR": cidr}, "status": {"phase": phase},
            }))
            .unwrap()
        };
        let (old, new) = (node(None, "a"), node(Some("10.0.0.0/24"), "b"));
        assert_eq!(
            difference(&old, &new, Half::Main).unwrap(),
            Some(json!({"metadata": {"resourceVersion": "7"}, "spec": {"podCIDR": "10.0.0.0/24"}}))
        );
        assert_eq!(
            difference(&old, &new, Half::Status).unwrap(),
            Some(json!({"metadata": {"resourceVersion": "7"}, "status": {"phase": "b"}}))
        );
        assert_eq!(difference(&old, &node(None, "b"), Half::Main).unwrap(), None);
    }
}
