//! Objects as the store keeps them: encoded once, without `resourceVersion`, which is the revision of the write.
//!
//! In: JSON trees. Out: bytes that begin with kind, API version and `metadata`, so that the revision can be spliced in
//! without decoding. Lists and watches are made of such splices.

use bytes::Bytes;
use serde_json::Value;
use xebec_store::{KeyValue, Revision};

use crate::kinds::{Gvk, Resource};
use crate::meta;
use crate::status::ApiError;

/// An encoded object and when it was written.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) value: Bytes,
    pub(crate) revision: Revision,
}

/// How the encoded objects of one kind begin.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// `{"kind":"Pod","apiVersion":"v1",`
    type_meta: String,
    /// The above and `"metadata":{`
    head: String,
}

/// Fields of `metadata` that are not stored: the revision is the store's, the others are not kept.
const NOT_STORED: &[&str] = &["resourceVersion", "selfLink"];

// === impl Layout ===

impl Layout {
    pub(crate) fn of(gvk: &Gvk) -> Self {
        let type_meta = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", gvk.kind, gvk.api_version());
        let head = format!("{type_meta}\"metadata\":{{");
        Self { type_meta, head }
    }

    /// Encodes an object of the layout's kind.
    pub(crate) fn encode(&self, object: &Value) -> Result<Bytes, ApiError> {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(self.head.as_bytes());
        let empty = serde_json::Map::new();
        let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        let mut first = true;
        for (key, value) in metadata {
            if !NOT_STORED.contains(&key.as_str()) && !value.is_null() {
                member(&mut out, &mut first, key, value)?;
            }
        }
        out.push(b'}');
        let mut first = false;
        for (key, value) in object.as_object().unwrap_or(&empty) {
            if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
                member(&mut out, &mut first, key, value)?;
            }
        }
        out.push(b'}');
        Ok(out.into())
    }

    /// Appends the object with its resource version; in lists without kind and API version, as upstream.
    pub(crate) fn splice(&self, stored: &Stored, type_meta: bool, out: &mut Vec<u8>) {
        let value = &stored.value;
        debug_assert!(value.starts_with(self.head.as_bytes()), "an object of another kind under this prefix");
        let (start, head) =
            (if type_meta { 0 } else { self.type_meta.len() }, self.head.len().min(value.len()));
        if !type_meta {
            out.push(b'{');
        }
        out.extend_from_slice(value.get(start..head).unwrap_or_default());
        let rest = &value[head..];
        // What a dry run would have created was never written.
        if stored.revision.0 > 0 {
            out.extend_from_slice(b"\"resourceVersion\":\"");
            out.extend_from_slice(stored.revision.0.to_string().as_bytes());
            out.push(b'"');
            if !rest.starts_with(b"}") {
                out.push(b',');
            }
        }
        out.extend_from_slice(rest);
    }

    /// The whole object as it is answered.
    pub(crate) fn json(&self, stored: &Stored) -> Bytes {
        let mut out = Vec::with_capacity(stored.value.len() + 48);
        self.splice(stored, true, &mut out);
        out.into()
    }
}

fn member(out: &mut Vec<u8>, first: &mut bool, key: &str, value: &Value) -> Result<(), ApiError> {
    if !*first {
        out.push(b',');
    }
    *first = false;
    serde_json::to_writer(&mut *out, key).map_err(ApiError::internal)?;
    out.push(b':');
    serde_json::to_writer(&mut *out, value).map_err(ApiError::internal)
}

// === impl Stored ===

impl Stored {
    /// The tree, with its resource version.
    pub(crate) fn decode(&self) -> Result<Value, ApiError> {
        let mut json = serde_json::Deserializer::from_slice(&self.value);
        json.disable_recursion_limit();
        let mut object: Value = serde::Deserialize::deserialize(&mut json).map_err(ApiError::internal)?;
        if self.revision.0 > 0 {
            meta::metadata_mut(&mut object)
                .insert("resourceVersion".into(), self.revision.to_string().into());
        }
        Ok(object)
    }
}

impl From<KeyValue> for Stored {
    fn from(kv: KeyValue) -> Self {
        Self { value: kv.value, revision: kv.mod_revision }
    }
}

impl From<&KeyValue> for Stored {
    fn from(kv: &KeyValue) -> Self {
        Self { value: kv.value.clone(), revision: kv.mod_revision }
    }
}

/// Under which key an object is kept: `/registry/apps/deployments/<namespace>/<name>`.
pub(crate) fn key(resource: &Resource, namespace: Option<&str>, name: &str) -> String {
    format!("{}{name}", prefix(resource, namespace))
}

/// What the keys of a resource, or of its part in one namespace, begin with.
pub(crate) fn prefix(resource: &Resource, namespace: Option<&str>) -> String {
    let gvk = resource.stored_as.as_ref().unwrap_or(&resource.gvk);
    let group = if gvk.group.is_empty() { "core" } else { &gvk.group };
    match namespace {
        Some(namespace) if resource.namespaced => {
            format!("/registry/{group}/{}/{namespace}/", resource.plural)
        }
        _ => format!("/registry/{group}/{}/", resource.plural),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_revision_is_spliced_in_and_the_tree_is_the_same() {
        let layout = Layout::of(&Gvk::new("apps", "v1", "Deployment"));
        let object = json!({
            "kind": "Deployment", "apiVersion": "apps/v1",
            "metadata": {"name": "a", "resourceVersion": "3", "selfLink": "/a", "labels": {"x": "y"}},
            "spec": {"replicas": 1},
        });
        let stored = Stored { value: layout.encode(&object).expect("encodes"), revision: Revision(17) };
        assert!(!String::from_utf8_lossy(&stored.value).contains("resourceVersion"));
        let whole: Value = serde_json::from_slice(&layout.json(&stored)).expect("JSON");
        assert_eq!(whole["metadata"], json!({"name": "a", "resourceVersion": "17", "labels": {"x": "y"}}));
        assert_eq!(whole, stored.decode().expect("decodes"));

        let mut item = Vec::new();
        layout.splice(&stored, false, &mut item);
        let item: Value = serde_json::from_slice(&item).expect("JSON");
        assert_eq!(item.get("kind"), None);
        assert_eq!(item["metadata"], whole["metadata"]);
    }
}
