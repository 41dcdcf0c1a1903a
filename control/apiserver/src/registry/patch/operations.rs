//! The operations of a JSON patch, applied one by one under the limits that keep a small patch from making a huge object.
//!
//! In: an object, operations. Out: the patched object, or why not. Copies are the only operation that makes more of what
//! it is given, so they are counted; a tree that nests too deep is refused before it exists, because trees are walked,
//! and dropped, by recursion.

use json_patch::{PatchError, PatchOperation};
use serde_json::Value;

use crate::codec::{MAX_DEPTH, encoded_len};

/// Bytes that the copies of one patch may add up to, as upstream: as many as a body may have.
const MAX_COPIED: usize = crate::body::MAX_BODY;

/// Why a patch is not applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperationError {
    #[error("{0}")]
    Failed(String),
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {size}, exceeding the limit {limit}"
    )]
    Copied { size: usize, limit: usize },
    #[error("operation {operation} would nest the object deeper than {limit} levels")]
    Depth { operation: usize, limit: usize },
}

/// Applies all operations, or fails at the first that cannot be.
pub(super) fn apply(mut value: Value, operations: &[PatchOperation]) -> Result<Value, OperationError> {
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        check(&value, index, operation, &mut copied)?;
        if asks_for_nothing(operation, &value) {
            continue;
        }
        json_patch::patch_unsafe(&mut value, std::slice::from_ref(operation))
            .map_err(|error| OperationError::Failed(words(operation, &error)))?;
    }
    Ok(value)
}

/// A test for `null` of a field that is not there: clients make sure in this way that nobody has set it.
fn asks_for_nothing(operation: &PatchOperation, value: &Value) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let path = test.path.as_str();
    let parent = path.rsplit_once('/').and_then(|(parent, _)| value.pointer(parent));
    test.value.is_null() && parent.is_some_and(Value::is_object) && value.pointer(path).is_none()
}

/// Why an operation failed, in the words that clients look for.
fn words(operation: &PatchOperation, error: &PatchError) -> String {
    let path = error.path.as_str();
    let key = path.rsplit('/').next().unwrap_or_default();
    match operation {
        PatchOperation::Test(_) => format!("testing value {path} failed: test failed"),
        PatchOperation::Remove(_) => {
            format!(
                "error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value"
            )
        }
        PatchOperation::Add(_) => {
            format!("add operation does not apply: doc is missing path: {path:?}: missing value")
        }
        PatchOperation::Replace(_) => {
            format!("replace operation does not apply: doc is missing key: {path}: missing value")
        }
        _ => error.to_string(),
    }
}

fn check(
    value: &Value,
    index: usize,
    operation: &PatchOperation,
    copied: &mut usize,
) -> Result<(), OperationError> {
    let added = match operation {
        PatchOperation::Add(add) => &add.value,
        PatchOperation::Replace(replace) => &replace.value,
        PatchOperation::Move(step) => match step.from.resolve(value) {
            Ok(source) => source,
            // Said by whoever applies it.
            Err(_) => return Ok(()),
        },
        PatchOperation::Copy(copy) => {
            let Ok(source) = copy.from.resolve(value) else { return Ok(()) };
            *copied += encoded_len(source);
            if *copied > MAX_COPIED {
                return Err(OperationError::Copied { size: *copied, limit: MAX_COPIED });
            }
            source
        }
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
    };
    if operation.path().count() + depth(added) > MAX_DEPTH {
        return Err(OperationError::Depth { operation: index, limit: MAX_DEPTH });
    }
    Ok(())
}

/// Levels of nesting; both sides of every operation are bounded, so this recursion is.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(value: Value, operations: Value) -> Result<Value, String> {
        let operations: json_patch::Patch = serde_json::from_value(operations).expect("operations");
        apply(value, &operations.0).map_err(|error| error.to_string())
    }

    #[test]
    fn operations_follow_one_another() {
        let operations = json!([
            {"op": "copy", "from": "/a", "path": "/b"}, {"op": "move", "from": "/a", "path": "/c"},
            {"op": "replace", "path": "/b", "value": 2},
        ]);
        assert_eq!(patched(json!({"a": 1}), operations), Ok(json!({"b": 2, "c": 1})));
        let failed = json!([{"op": "add", "path": "/b", "value": 1}, {"op": "remove", "path": "/c"}]);
        let told = patched(json!({}), failed).expect_err("there is no c");
        assert!(told.contains("path: '/c'"), "{told}");
        let nowhere = json!([{"op": "copy", "from": "/x", "path": "/b"}]);
        assert!(patched(json!({}), nowhere).is_err());
    }

    #[test]
    fn failed_operations_are_told_in_the_words_clients_look_for() {
        let fails = |body: &str| {
            let operations = serde_json::from_str(body).expect("JSON");
            patched(json!({"data": {"a": "1"}}), operations).expect_err("fails")
        };
        let told = |body: &str, words: &str| assert_eq!(fails(body), words);
        told(r#"[{"op":"test","path":"/data/a","value":"2"}]"#, "testing value /data/a failed: test failed");
        told(
            r#"[{"op":"remove","path":"/data/z"}]"#,
            "error in remove for path: '/data/z': Unable to remove nonexistent key: z: missing value",
        );
        told(
            r#"[{"op":"replace","path":"/data/z","value":"1"}]"#,
            "replace operation does not apply: doc is missing key: /data/z: missing value",
        );
        told(
            r#"[{"op":"add","path":"/x/z","value":"1"}]"#,
            "add operation does not apply: doc is missing path: \"/x/z\": missing value",
        );
    }

    #[test]
    fn copies_of_copies_end_at_the_limit() {
        let mut operations = vec![json!({"op": "add", "path": "/x", "value": ["y".repeat(1000)]})];
        operations.extend(vec![json!({"op": "copy", "from": "/x", "path": "/x/-"}); 100]);
        let told = patched(json!({}), operations.into()).expect_err("too much");
        assert!(told.starts_with("Unable to complete the copy"), "{told}");
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let mut place = "/x".to_owned();
        let mut operations = vec![json!({"op": "add", "path": "/x", "value": {}})];
        for _ in 0..20 {
            operations.push(json!({"op": "copy", "from": "/x", "path": format!("{place}/x")}));
            place = format!("{place}/x{}", &place[2..]);
        }
        let told = patched(json!({}), operations.into()).expect_err("too deep");
        assert!(told.contains("deeper than 512 levels"), "{told}");
    }
}
