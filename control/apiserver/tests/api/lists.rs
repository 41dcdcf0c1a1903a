//! Lists: pages, resource versions, selectors.

use serde_json::json;
use xebec_store::Revision;

use crate::harness::{Api, MAPS, PODS, names, version};

const SELECTED: &str = "labelSelector=n&";

#[tokio::test]
async fn pages_are_of_one_snapshot() {
    let api = Api::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        api.make_map(name).await;
    }
    let first = api.get(&format!("{MAPS}?limit=2")).await.ok(200);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // What comes and goes between the pages is not in them.
    api.make_map("bb").await;
    api.delete(&format!("{MAPS}/e"), &json!(null)).await.ok(200);
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let second = api.get(&format!("{MAPS}?limit=2&continue={token}")).await.ok(200);
    let token = second["metadata"]["continue"].as_str().expect("a token");
    let third = api.get(&format!("{MAPS}?limit=2&continue={token}")).await.ok(200);
    assert_eq!([names(&first), names(&second), names(&third)].concat(), ["a", "b", "c", "d", "e"]);
    assert_eq!(third["metadata"].get("continue"), None);
    for page in [&second, &third] {
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    }
}

#[tokio::test]
async fn pages_of_a_selector_do_not_count_the_rest() {
    let api = Api::new().await;
    for name in ["a", "b", "c"] {
        api.make_map(name).await;
    }
    let page = api.get(&format!("{MAPS}?{SELECTED}limit=2")).await.ok(200);
    assert_eq!(names(&page), ["a", "b"]);
    assert_eq!(page["metadata"].get("remainingItemCount"), None);
    assert!(page["metadata"]["continue"].is_string());
}

#[tokio::test]
async fn resource_versions_mean_what_upstream_means() {
    let api = Api::new().await;
    let old = version(&api.make_map("a").await);
    let new = version(&api.make_map("b").await);
    for (query, expected) in [
        (String::new(), &["a", "b"][..]),
        ("resourceVersion=0".to_owned(), &["a", "b"]),
        (format!("resourceVersion={old}"), &["a", "b"]),
        (format!("resourceVersion={old}&resourceVersionMatch=NotOlderThan"), &["a", "b"]),
        (format!("resourceVersion={old}&resourceVersionMatch=Exact"), &["a"]),
        (format!("resourceVersion={old}&limit=5"), &["a"]),
        (format!("resourceVersion={new}&resourceVersionMatch=Exact"), &["a", "b"]),
    ] {
        let list = api.get(&format!("{MAPS}?{SELECTED}{query}")).await.ok(200);
        assert_eq!(names(&list), expected, "{query}");
    }
    let exact = api.get(&format!("{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")).await.ok(200);
    assert_eq!(exact["metadata"]["resourceVersion"], *old);
    let future = api.get(&format!("{MAPS}?resourceVersion=999999")).await;
    let status = future.failure(504, "Timeout");
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert!(
        status["message"].as_str().unwrap().starts_with("Too large resource version: 999999"),
        "{status}"
    );
}

#[tokio::test]
async fn combinations_that_mean_nothing_are_refused() {
    let api = Api::new().await;
    for query in [
        "resourceVersion=x",
        "resourceVersion=-1",
        "resourceVersionMatch=Exact",
        "resourceVersionMatch=Sometimes&resourceVersion=1",
        "resourceVersionMatch=Exact&resourceVersion=0",
        "continue=nonsense",
        "limit=x",
        "sendInitialEvents=true",
        "labelSelector=a%20in%20(",
        "fieldSelector=spec",
    ] {
        let answer = api.get(&format!("{MAPS}?{query}")).await;
        assert!(matches!(answer.code, 400 | 422), "{query}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_compacted_is_gone() {
    let api = Api::new().await;
    let old = version(&api.make_map("a").await);
    api.make_map("b").await;
    let page = api.get(&format!("{MAPS}?limit=1")).await.ok(200);
    let token = page["metadata"]["continue"].as_str().expect("a token").to_owned();
    let now: u64 = version(&api.make_map("c").await).parse().unwrap();
    api.store.compact(Revision(now)).await.expect("compacts");
    let exact = api.get(&format!("{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")).await;
    exact.failure(410, "Expired");
    // The status of an expired page holds a token that goes on, with what is there now.
    let expired = api.get(&format!("{MAPS}?limit=1&continue={token}")).await.failure(410, "Expired");
    let fresh = expired["metadata"]["continue"].as_str().expect("a fresh token");
    let rest = api.get(&format!("{MAPS}?{SELECTED}continue={fresh}")).await.ok(200);
    assert_eq!(names(&rest), ["b", "c"]);
}

#[tokio::test]
async fn fields_select() {
    let api = Api::new().await;
    for (name, node) in [("a", "n1"), ("b", "")] {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "x"}]},
        });
        api.post(PODS, &pod).await.ok(201);
    }
    for (selector, expected) in [
        ("spec.nodeName=n1", &["a"][..]),
        ("spec.nodeName=", &["b"]),
        ("spec.nodeName!=n1", &["b"]),
        ("metadata.name=a", &["a"]),
        ("status.phase=Pending", &["a", "b"]),
        ("status.phase!=Pending", &[]),
        ("spec.restartPolicy=Always,spec.nodeName=n1", &["a"]),
    ] {
        let selector = selector.replace('=', "%3D").replace('!', "%21");
        let list = api.get(&format!("{PODS}?fieldSelector={selector}")).await.ok(200);
        assert_eq!(names(&list), expected, "{selector}");
    }
    let unknown = api.get(&format!("{PODS}?fieldSelector=spec.nope%3D1")).await;
    assert_eq!(unknown.failure(400, "BadRequest")["message"], "field label not supported: spec.nope");
    let unknown = api.get(&format!("{MAPS}?fieldSelector=data.a%3D1")).await;
    let sentence = "\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
    assert_eq!(unknown.failure(400, "BadRequest")["message"], sentence);
}

#[tokio::test]
async fn lists_of_other_namespaces_are_empty_not_missing() {
    let api = Api::new().await;
    let list = api.get("/api/v1/namespaces/nowhere/pods").await.ok(200);
    assert_eq!(list["items"], json!([]));
    let missing = api.get("/api/v1/namespaces/default/pods/nobody").await;
    let status = missing.failure(404, "NotFound");
    assert_eq!(status["message"], "pods \"nobody\" not found");
    assert_eq!(status["details"], json!({"name": "nobody", "kind": "pods"}));
}

#[tokio::test]
async fn only_known_methods_do_anything() {
    let api = Api::new().await;
    api.make_map("a").await;
    for method in ["OPTIONS", "TRACE", "LIST"] {
        let method = http::Method::from_bytes(method.as_bytes()).expect("a method");
        for path in [MAPS.to_owned(), format!("{MAPS}/a"), "/api/v1/configmaps?watch=true".to_owned()] {
            let answer = api.send(method.clone(), &path, "", Vec::new()).await;
            answer.failure(405, "MethodNotAllowed");
        }
    }
    // What is in no namespace is not deleted everywhere at once.
    api.delete("/api/v1/configmaps", &serde_json::Value::Null).await.failure(405, "MethodNotAllowed");
    api.get(&format!("{MAPS}/a")).await.ok(200);
    api.delete(MAPS, &serde_json::Value::Null).await.ok(200);
    api.get(&format!("{MAPS}/a")).await.failure(404, "NotFound");
}
