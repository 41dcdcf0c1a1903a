//! Deletion: preconditions, propagation, grace, collections, dry runs.

use serde_json::{Value, json};

use crate::harness::{Api, JSON, MAPS, MERGE, PODS, names, version};

async fn bound_pod(api: &Api, name: &str) -> Value {
    let pod = json!({
        "metadata": {"name": name}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "x"}]},
    });
    api.post(PODS, &pod).await.ok(201)
}

#[tokio::test]
async fn a_deletion_answers_with_a_status() {
    let api = Api::new().await;
    let map = api.make_map("a").await;
    let status = api.delete(&format!("{MAPS}/a"), &json!(null)).await.ok(200);
    assert_eq!(
        (&status["kind"], &status["status"], &status["details"]["name"], &status["details"]["uid"]),
        (&json!("Status"), &json!("Success"), &json!("a"), &map["metadata"]["uid"])
    );
    api.delete(&format!("{MAPS}/a"), &json!(null)).await.failure(404, "NotFound");
}

#[tokio::test]
async fn preconditions_hold() {
    let api = Api::new().await;
    let map = api.make_map("a").await;
    let path = format!("{MAPS}/a");
    api.delete(&path, &json!({"preconditions": {"uid": "other"}})).await.failure(409, "Conflict");
    api.delete(&path, &json!({"preconditions": {"resourceVersion": "1"}})).await.failure(409, "Conflict");
    api.get(&path).await.ok(200);
    let both = json!({"preconditions": {"uid": map["metadata"]["uid"], "resourceVersion": version(&map)}});
    api.delete(&path, &both).await.ok(200);
}

#[tokio::test]
async fn pods_get_their_grace_when_a_node_has_them() {
    let api = Api::new().await;
    bound_pod(&api, "a").await;
    let deleting = api.delete(&format!("{PODS}/a"), &json!({"gracePeriodSeconds": 5})).await.ok(200);
    assert_eq!(deleting["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(deleting["metadata"]["deletionTimestamp"].is_string());
    api.get(&format!("{PODS}/a")).await.ok(200);
    // The node is done: now it goes.
    api.delete(&format!("{PODS}/a"), &json!({"gracePeriodSeconds": 0})).await.ok(200);
    api.get(&format!("{PODS}/a")).await.failure(404, "NotFound");

    let unbound = json!({"metadata": {"name": "b"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    api.post(PODS, &unbound).await.ok(201);
    api.delete(&format!("{PODS}/b"), &json!(null)).await.ok(200);
    api.get(&format!("{PODS}/b")).await.failure(404, "NotFound");
}

#[tokio::test]
async fn finalizers_hold_and_let_go() {
    let api = Api::new().await;
    let map = json!({"metadata": {"name": "a", "finalizers": ["example.com/x"]}});
    api.post(MAPS, &map).await.ok(201);
    let path = format!("{MAPS}/a");
    let held = api.delete(&path, &json!(null)).await.ok(200);
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let more = json!({"metadata": {"finalizers": ["example.com/x", "example.com/y"]}});
    api.patch(&path, MERGE, &more).await.failure(422, "Invalid");
    api.patch(&path, MERGE, &json!({"metadata": {"finalizers": null}})).await.ok(200);
    api.get(&path).await.failure(404, "NotFound");
}

#[tokio::test]
async fn propagation_is_checked_and_kept_as_a_finalizer() {
    let api = Api::new().await;
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        api.make_map("a").await;
        let held = api.delete(&format!("{MAPS}/a"), &json!({"propagationPolicy": policy})).await.ok(200);
        assert_eq!(held["metadata"]["finalizers"], json!([finalizer]), "{policy}");
        let done = json!({"metadata": {"finalizers": null}});
        api.patch(&format!("{MAPS}/a"), MERGE, &done).await.ok(200);
    }
    api.make_map("a").await;
    let wrong = api.delete(&format!("{MAPS}/a"), &json!({"propagationPolicy": "Sideways"})).await;
    wrong.failure(422, "Invalid");
    api.delete(&format!("{MAPS}/a?propagationPolicy=Background"), &json!(null)).await.ok(200);
}

#[tokio::test]
async fn collections_go_by_selector() {
    let api = Api::new().await;
    for name in ["a", "b", "c"] {
        api.make_map(name).await;
    }
    let path = format!("{MAPS}?labelSelector=n%20in%20(a,b)");
    let list = api.delete(&path, &json!({"dryRun": ["All"]})).await.ok(200);
    assert_eq!(names(&list), ["a", "b"]);
    assert_eq!(names(&api.get(&format!("{MAPS}?labelSelector=n")).await.ok(200)), ["a", "b", "c"]);
    let list = api.delete(&path, &json!(null)).await.ok(200);
    assert_eq!(
        (&list["kind"], names(&list)),
        (&json!("ConfigMapList"), vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(names(&api.get(&format!("{MAPS}?labelSelector=n")).await.ok(200)), ["c"]);
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace() {
    let api = Api::new().await;
    let map = api.make_map("a").await;
    let path = format!("{MAPS}/a");
    let before = api.store.revision();
    let other = json!({"metadata": {"name": "b"}});
    let made = api.post(&format!("{MAPS}?dryRun=All"), &other).await.ok(201);
    assert!(made["metadata"]["uid"].is_string());
    assert_eq!(made["metadata"].get("resourceVersion"), None);
    let patched = api.patch(&format!("{path}?dryRun=All"), MERGE, &json!({"data": {"k": "v"}})).await.ok(200);
    assert_eq!((&patched["data"]["k"], version(&patched)), (&json!("v"), version(&map)));
    let mut changed = map.clone();
    changed["data"] = json!({"k": "w"});
    api.put(&format!("{path}?dryRun=All"), &changed).await.ok(200);
    api.delete(&format!("{path}?dryRun=All"), &json!(null)).await.ok(200);
    assert_eq!(api.store.revision(), before);
    api.post(&format!("{MAPS}?dryRun=Some"), &other).await.failure(422, "Invalid");
    // Taken names stay taken.
    let taken = json!({"metadata": {"name": "a"}});
    api.post(&format!("{MAPS}?dryRun=All"), &taken).await.failure(409, "AlreadyExists");
}

#[tokio::test]
async fn options_of_another_shape_are_refused() {
    let api = Api::new().await;
    api.make_map("a").await;
    let path = format!("{MAPS}/a");
    for body in [r#"{"gracePeriodSeconds":"x"}"#, "{", "[]", r#"{"kind":"Pod","apiVersion":"v1"}"#] {
        let answer = api.send(http::Method::DELETE, &path, JSON, body.into()).await;
        assert_eq!(answer.code, 400, "{body}: {answer:?}");
    }
    api.get(&path).await.ok(200);
}
