//! Bodies: media types, sizes, depth, YAML, what is no object.

use http::Method;
use serde_json::json;

use crate::harness::{Api, JSON, MAPS, YAML};

#[tokio::test]
async fn only_what_is_spoken_is_taken_and_given() {
    let api = Api::new().await;
    let body = br#"{"metadata":{"name":"a"}}"#.to_vec();
    for media_type in ["text/plain", "application/cbor", "garbage"] {
        let refused = api.send(Method::POST, MAPS, media_type, body.clone()).await;
        refused.failure(415, "UnsupportedMediaType");
    }
    let no_protobuf = api.send(Method::POST, MAPS, "application/vnd.kubernetes.protobuf", body).await;
    no_protobuf.failure(400, "BadRequest");
    for accept in ["application/vnd.kubernetes.protobuf", "text/html", "application/cbor;q=1"] {
        let refused = api.request(Method::GET, MAPS, &[("accept", accept)], Vec::new()).await;
        refused.failure(406, "NotAcceptable");
    }
    let accept = "application/vnd.kubernetes.protobuf,application/json";
    api.request(Method::GET, MAPS, &[("accept", accept)], Vec::new()).await.ok(200);
}

#[tokio::test]
async fn yaml_is_read_and_written() {
    let api = Api::new().await;
    let yaml =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: \"1\"\n  text: |\n    x\n    y\n";
    let made = api.send(Method::POST, MAPS, YAML, yaml.into()).await.ok(201);
    assert_eq!(made["data"], json!({"k": "1", "text": "x\ny\n"}));
    let shown = api.request(Method::GET, &format!("{MAPS}/a"), &[("accept", YAML)], Vec::new()).await;
    assert_eq!(shown.headers["content-type"], YAML);
    assert!(shown.text.contains("kind: ConfigMap\n"), "{}", shown.text);
    for bad in ["a: [", "a: *x", "- a"] {
        let refused = api.send(Method::POST, MAPS, YAML, bad.into()).await;
        assert_eq!(refused.code, 400, "{bad:?}: {refused:?}");
    }
}

#[tokio::test]
async fn bodies_are_bounded() {
    let api = Api::new().await;
    let with =
        |size: usize| json!({"metadata": {"name": "big"}, "data": {"k": "x".repeat(size)}}).to_string();
    let large = api.send(Method::POST, MAPS, JSON, with(3 * 1024 * 1024).into()).await;
    large.failure(413, "RequestEntityTooLarge");
    // Upstream's limits on the parts are met before those on the whole.
    api.send(Method::POST, MAPS, JSON, with(1024 * 1024 + 1).into()).await.failure(422, "Invalid");
    api.send(Method::POST, MAPS, JSON, with(1000 * 1024).into()).await.ok(201);
}

#[tokio::test]
async fn depth_is_bounded() {
    let api = Api::new().await;
    for depth in [1_000, 100_000, 1_000_000] {
        let body = format!("{{\"metadata\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let refused = api.send(Method::POST, MAPS, JSON, body.into()).await;
        refused.failure(400, "BadRequest");
    }
}

#[tokio::test]
async fn every_truncation_of_a_body_is_refused() {
    let api = Api::new().await;
    let body = br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","labels":{"x":"y"}},"data":{"k":"\u0041"}}"#;
    for end in 0..body.len() {
        let answer = api.send(Method::POST, MAPS, JSON, body[..end].to_vec()).await;
        assert_eq!(answer.code, 400, "{end}: {answer:?}");
    }
    api.send(Method::POST, MAPS, JSON, body.to_vec()).await.ok(201);
}

#[tokio::test]
async fn numbers_and_texts_that_are_none_are_refused() {
    let api = Api::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    for number in ["1e400", "2147483648", "9223372036854775808", "1.5", "\"3\"", "true", "[]", "NaN"] {
        let body = format!("{{\"metadata\":{{\"name\":\"a\"}},\"spec\":{{\"replicas\":{number}}}}}");
        let refused = api.send(Method::POST, deployments, JSON, body.into()).await;
        refused.failure(400, "BadRequest");
    }
    for text in [&b"\"\\ud800\""[..], b"\"\xff\"", b"\"\x00\""] {
        let body = [b"{\"metadata\":{\"name\":", text, b"}}"].concat();
        api.send(Method::POST, MAPS, JSON, body).await.failure(400, "BadRequest");
    }
    let bom = [&b"\xef\xbb\xbf"[..], b"{\"metadata\":{\"name\":\"a\"}}"].concat();
    api.send(Method::POST, MAPS, JSON, bom).await.failure(400, "BadRequest");
}

#[tokio::test]
async fn quantities_that_are_none_are_refused() {
    let api = Api::new().await;
    for quantity in ["1e99999999", "0x10", "1.5.5", "1 Gi", "--1", ""] {
        let pod = json!({
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c", "image": "x", "resources": {"limits": {"cpu": quantity}}}]},
        });
        let refused = api.post("/api/v1/namespaces/default/pods", &pod).await;
        assert!(matches!(refused.code, 400 | 422), "{quantity:?}: {refused:?}");
    }
}

#[tokio::test]
async fn a_body_of_another_kind_is_refused() {
    let api = Api::new().await;
    for body in [
        json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}}),
        json!({"kind": "ConfigMap", "apiVersion": "v2", "metadata": {"name": "a"}}),
        json!([]),
        json!("x"),
    ] {
        api.post(MAPS, &body).await.failure(400, "BadRequest");
    }
}

#[tokio::test]
async fn names_that_would_be_paths_are_refused() {
    let api = Api::new().await;
    for name in ["", "A", "a/b", "..", ".", "a%2fb", "\u{fc}", "-a", &"a".repeat(254)] {
        api.post(MAPS, &json!({"metadata": {"name": name}})).await.failure(422, "Invalid");
    }
    // Such a path leads to no other object, not even where that exists.
    api.post("/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": "s"}})).await.ok(201);
    for path in
        ["a%2fb", "%2e%2e", "..%2f..%2fsecrets", "..%2f..%2fsecrets%2fdefault%2fs", "%2e%2e/secrets/s"]
    {
        let answer = api.get(&format!("{MAPS}/{path}")).await;
        assert_eq!(answer.code, 404, "{path}: {answer:?}");
    }
    api.by("jane", &[]).get("/api/v1/namespaces/default/secrets/s").await.failure(403, "Forbidden");
}
