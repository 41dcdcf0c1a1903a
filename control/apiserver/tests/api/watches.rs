//! Watches: initial events, bookmarks, selectors, resumption, what is too old.

use serde_json::json;
use xebec_store::Revision;

use crate::harness::{Api, MAPS, MERGE, version};

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn every_change_arrives_once_and_in_order() {
    let api = Api::new().await;
    let start = version(&api.make_map("a").await);
    let mut watch = api.watch(&format!("{MAPS}?watch=true&resourceVersion={start}")).await;
    api.make_map("b").await;
    api.patch(&format!("{MAPS}/a"), MERGE, &json!({"data": {"k": "v"}})).await.ok(200);
    api.delete(&format!("{MAPS}/b"), &json!(null)).await.ok(200);
    assert_eq!(watch.change().await, pair("ADDED", "b"));
    let modified = watch.next().await.expect("an event");
    assert_eq!((&modified["type"], &modified["object"]["data"]["k"]), (&json!("MODIFIED"), &json!("v")));
    let deleted = watch.next().await.expect("an event");
    assert_eq!(deleted["type"], "DELETED");
    // A deletion carries the revision of the deletion, from which a client resumes.
    let at = version(&deleted["object"]);
    assert!(at.parse::<u64>().unwrap() > version(&modified["object"]).parse().unwrap());
    let mut resumed = api.watch(&format!("{MAPS}?watch=true&resourceVersion={at}")).await;
    api.make_map("c").await;
    assert_eq!(resumed.change().await, pair("ADDED", "c"));
}

#[tokio::test]
async fn without_a_version_the_present_comes_first() {
    let api = Api::new().await;
    api.make_map("a").await;
    for query in ["", "&resourceVersion=0"] {
        let mut watch = api.watch(&format!("{MAPS}?watch=true&labelSelector=n{query}")).await;
        assert_eq!(watch.change().await, pair("ADDED", "a"), "{query}");
    }
}

#[tokio::test]
async fn a_streamed_list_ends_with_a_marked_bookmark() {
    let api = Api::new().await;
    api.make_map("a").await;
    let last = version(&api.make_map("b").await);
    let query = "watch=true&labelSelector=n&sendInitialEvents=true&allowWatchBookmarks=true&\
                 resourceVersionMatch=NotOlderThan";
    let mut watch = api.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.change().await, pair("ADDED", "a"));
    assert_eq!(watch.change().await, pair("ADDED", "b"));
    let bookmark = watch.next().await.expect("a bookmark");
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(version(&bookmark["object"]), last);
    assert_eq!(bookmark["object"]["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    api.make_map("c").await;
    assert_eq!(watch.change().await, pair("ADDED", "c"));
}

#[tokio::test]
async fn objects_come_and_go_with_the_selector() {
    let api = Api::new().await;
    let start = version(&api.make_map("a").await);
    let mut watch =
        api.watch(&format!("{MAPS}?watch=true&labelSelector=x%3D1&resourceVersion={start}")).await;
    for value in [json!("1"), json!("2"), json!("1")] {
        api.patch(&format!("{MAPS}/a"), MERGE, &json!({"metadata": {"labels": {"x": value}}})).await.ok(200);
    }
    assert_eq!(watch.change().await, pair("ADDED", "a"));
    assert_eq!(watch.change().await, pair("DELETED", "a"));
    assert_eq!(watch.change().await, pair("ADDED", "a"));
}

#[tokio::test]
async fn a_watch_of_one_name_sees_no_other() {
    let api = Api::new().await;
    let start = version(&api.make_map("z").await);
    let selector = "fieldSelector=metadata.name%3Da";
    let mut watch = api.watch(&format!("{MAPS}?watch=true&{selector}&resourceVersion={start}")).await;
    api.make_map("ab").await;
    api.make_map("a").await;
    assert_eq!(watch.change().await, pair("ADDED", "a"));
}

#[tokio::test]
async fn a_watch_from_before_history_is_told_so_in_the_stream() {
    let api = Api::new().await;
    let old = version(&api.make_map("a").await);
    api.make_map("b").await;
    let now: u64 = version(&api.make_map("c").await).parse().unwrap();
    api.store.compact(Revision(now)).await.expect("compacts");
    let mut watch = api.watch(&format!("{MAPS}?watch=true&resourceVersion={old}")).await;
    let event = watch.next().await.expect("an event");
    assert_eq!(event["type"], "ERROR");
    assert_eq!((&event["object"]["code"], &event["object"]["reason"]), (&json!(410), &json!("Expired")));
    assert!(watch.next().await.is_none(), "nothing follows the error");
    // The edge itself is still there: the next change after it is not lost.
    let mut watch = api.watch(&format!("{MAPS}?watch=true&resourceVersion={now}")).await;
    api.make_map("d").await;
    assert_eq!(watch.change().await, pair("ADDED", "d"));
}

#[tokio::test]
async fn a_watch_ends_when_it_was_asked_to() {
    let api = Api::new().await;
    let start = version(&api.make_map("a").await);
    let query = "watch=true&timeoutSeconds=1&allowWatchBookmarks=true";
    let mut watch = api.watch(&format!("{MAPS}?{query}&resourceVersion={start}")).await;
    // The last word is where to go on from.
    assert_eq!(watch.next().await.expect("a bookmark")["type"], "BOOKMARK");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn tables_are_watched_by_rows() {
    let api = Api::new().await;
    api.make_map("a").await;
    let answer = api
        .request(
            http::Method::GET,
            &format!("{MAPS}?watch=true&labelSelector=n&timeoutSeconds=1"),
            &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")],
            Vec::new(),
        )
        .await;
    let event: serde_json::Value = serde_json::from_str(answer.text.lines().next().expect("a line")).unwrap();
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
}
