//! Patches of the three types that need no field owners.

use serde_json::json;

use crate::harness::{Api, DEPLOYMENTS, JSON_PATCH, MAPS, MERGE, STRATEGIC, version};

#[tokio::test]
async fn merge_patches_replace_lists_and_strategic_ones_merge_them() {
    let api = Api::new().await;
    let deployment = json!({
        "metadata": {"name": "x"},
        "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]},
            },
        },
    });
    api.post(DEPLOYMENTS, &deployment).await.ok(201);
    let path = format!("{DEPLOYMENTS}/x");
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "c"}]}}}});
    let merged = api.patch(&path, STRATEGIC, &patch).await.ok(200);
    let images: Vec<_> = merged["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["image"])
        .collect();
    assert_eq!(images.len(), 2);
    assert!(images.contains(&&json!("c")) && images.contains(&&json!("a")), "{images:?}");
    assert_eq!(merged["metadata"]["generation"], 2);
    let replaced = api.patch(&path, MERGE, &patch).await.ok(200);
    assert_eq!(replaced["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
    let nothing = api.patch(&path, STRATEGIC, &json!({})).await.ok(200);
    assert_eq!(version(&nothing), version(&replaced));
}

#[tokio::test]
async fn json_patches_test_and_fail_as_a_whole() {
    let api = Api::new().await;
    api.make_map("a").await;
    let path = format!("{MAPS}/a");
    let patch = json!([
        {"op": "add", "path": "/data", "value": {"k": "v"}},
        {"op": "test", "path": "/data/k", "value": "other"},
    ]);
    api.patch(&path, JSON_PATCH, &patch).await.failure(422, "Invalid");
    assert_eq!(api.get(&path).await.ok(200).get("data"), None);
    let patch = json!([{"op": "add", "path": "/data", "value": {"k": "v"}}]);
    assert_eq!(api.patch(&path, JSON_PATCH, &patch).await.ok(200)["data"]["k"], "v");
    for bad in [json!({}), json!([{"op": "fly", "path": "/a"}]), json!([{"path": "/a"}])] {
        api.patch(&path, JSON_PATCH, &bad).await.failure(400, "BadRequest");
    }
}

#[tokio::test]
async fn a_patch_that_breaks_the_object_is_refused_as_a_patch() {
    let api = Api::new().await;
    api.make_map("a").await;
    let path = format!("{MAPS}/a");
    let unknown = api.patch(&format!("{path}?fieldValidation=Strict"), MERGE, &json!({"nope": 1})).await;
    let status = unknown.failure(422, "Invalid");
    let message = status["details"]["causes"][0]["message"].as_str().expect("a message");
    assert!(message.starts_with("Invalid value: \"{\\\""), "{message}");
    assert!(message.ends_with(": strict decoding error: unknown field \"nope\""), "{message}");
    assert_eq!(status["details"]["causes"][0]["field"], "patch");
    let mismatch = api.patch(&path, STRATEGIC, &json!({"data": {"k": 1}})).await.failure(422, "Invalid");
    let message = mismatch["message"].as_str().expect("a message");
    assert!(
        message.starts_with(" \"\" is invalid: patch: Invalid value: \"map[data:map[k:1]]\": "),
        "{message}"
    );
    api.patch(&path, MERGE, &json!({"metadata": {"name": "b"}})).await.failure(400, "BadRequest");
    api.patch(&path, MERGE, &json!({"metadata": {"resourceVersion": "1"}})).await.failure(409, "Conflict");
    api.patch(&path, "application/json", &json!({})).await.failure(415, "UnsupportedMediaType");
    let missing = api.patch(&format!("{MAPS}/nobody"), MERGE, &json!({})).await;
    missing.failure(404, "NotFound");
}
