//! Patches: JSON patch, merge patch and strategic merge patch.
//!
//! In: a patch body and its media type. Out: a function from the current object to the patched one, unchecked. Absent:
//! server-side apply, which is in `registry::apply`.

mod operations;

use serde_json::Value;

use crate::codec::{self, Decoded, Format};
use crate::kinds::Gvk;
use crate::schema::Schema;
use crate::status::ApiError;
use crate::strategic::{self, PatchError};

/// Operations in one JSON patch, as upstream.
const MAX_OPERATIONS: usize = 10_000;
const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
     application/apply-patch+yaml";

/// A patch that could be read.
#[derive(Clone, Debug)]
pub(crate) enum Patch {
    Json(json_patch::Patch),
    Merge(Decoded),
    Strategic(Decoded),
}

impl Patch {
    pub(crate) fn parse(media_type: &str, body: &[u8]) -> Result<Self, ApiError> {
        match media_type {
            "application/json-patch+json" => {
                let document = codec::decode(Format::Json, body)?.value;
                let count = document.as_array().map_or(0, Vec::len);
                if count > MAX_OPERATIONS {
                    return Err(ApiError::too_many_operations(MAX_OPERATIONS, count));
                }
                serde_json::from_value(document)
                    .map(Self::Json)
                    .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))
            }
            "application/merge-patch+json" => object(body).map(Self::Merge),
            "application/strategic-merge-patch+json" => object(body).map(Self::Strategic),
            _ => Err(ApiError::unsupported_media_type(ACCEPTED)),
        }
    }

    /// The object with the patch applied, and the duplicate fields of the patch.
    pub(crate) fn apply(&self, gvk: &Gvk, current: Value) -> Result<Decoded, ApiError> {
        match self {
            Self::Json(patch) => {
                let value = operations::apply(current, patch)
                    .map_err(|error| ApiError::patch_failed(error.to_string()))?;
                Ok(Decoded { value, duplicates: Vec::new() })
            }
            Self::Merge(patch) => {
                let mut value = current;
                json_patch::merge(&mut value, &patch.value);
                Ok(Decoded { value, duplicates: patch.duplicates.clone() })
            }
            Self::Strategic(patch) => {
                let definition = Schema::global().map_err(ApiError::internal)?.kind(gvk);
                let definition = definition.ok_or_else(|| ApiError::unsupported_media_type(ACCEPTED))?;
                let value =
                    strategic::merge(definition, &current, &patch.value).map_err(|error| refuse(&error))?;
                Ok(Decoded { value, duplicates: patch.duplicates.clone() })
            }
        }
    }
}

fn refuse(error: &PatchError) -> ApiError {
    match error {
        PatchError::Format(_) => ApiError::bad_request(error.to_string()),
        PatchError::Schema(error) => ApiError::internal(error),
        PatchError::ListOfLists | PatchError::Mismatch(_) => ApiError::patch_failed(error.to_string()),
    }
}

fn object(body: &[u8]) -> Result<Decoded, ApiError> {
    let decoded = codec::decode(Format::Json, body)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {}", error.message())))?;
    if !decoded.value.is_object() {
        return Err(ApiError::bad_request("error decoding patch: a patch is an object"));
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patches_are_told_apart_by_media_type() {
        let gvk = Gvk::new("", "v1", "ConfigMap");
        let current = json!({"data": {"a": "1", "b": "2"}});
        let merge = Patch::parse("application/merge-patch+json", br#"{"data":{"a":null}}"#).expect("parses");
        assert_eq!(merge.apply(&gvk, current.clone()).expect("applies").value, json!({"data": {"b": "2"}}));

        let body = br#"[{"op":"test","path":"/data/a","value":"1"},{"op":"remove","path":"/data/b"}]"#;
        let patch = Patch::parse("application/json-patch+json", body).expect("parses");
        assert_eq!(patch.apply(&gvk, current.clone()).expect("applies").value, json!({"data": {"a": "1"}}));
        assert_eq!(patch.apply(&gvk, json!({"data": {}})).expect_err("test fails").code(), 422);

        assert_eq!(Patch::parse("text/plain", b"").expect_err("unknown").code(), 415);
        assert_eq!(Patch::parse("application/merge-patch+json", b"[]").expect_err("no object").code(), 400);
    }

    #[test]
    fn what_is_not_there_is_null_to_a_test() {
        let gvk = Gvk::new("", "v1", "ConfigMap");
        let body = br#"[{"op":"test","path":"/metadata/finalizers","value":null},
            {"op":"add","path":"/metadata/finalizers","value":["a"]}]"#;
        let patch = Patch::parse("application/json-patch+json", body).expect("parses");
        let first = patch.apply(&gvk, json!({"metadata": {}})).expect("applies").value;
        assert_eq!(first, json!({"metadata": {"finalizers": ["a"]}}));
        assert_eq!(patch.apply(&gvk, first).expect_err("somebody was first").code(), 422);
        assert_eq!(patch.apply(&gvk, json!({})).expect_err("nothing to be in").code(), 422);
    }

    #[test]
    fn json_patches_are_bounded() {
        let operations = vec![json!({"op": "remove", "path": "/a"}); MAX_OPERATIONS + 1];
        let body = Value::from(operations).to_string();
        let error = Patch::parse("application/json-patch+json", body.as_bytes()).expect_err("too many");
        assert_eq!(error.code(), 413);
    }
}
