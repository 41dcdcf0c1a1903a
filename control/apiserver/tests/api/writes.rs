//! Creation and update: names, namespaces, versions, unknown fields, warnings.

use serde_json::{Value, json};

use crate::harness::{Api, DEPLOYMENTS, MAPS, version};

#[tokio::test]
async fn the_server_writes_what_only_it_may() {
    let api = Api::new().await;
    let body = json!({"metadata": {
        "name": "a", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "selfLink": "x", "generation": 7,
        "deletionTimestamp": "2001-01-01T00:00:00Z",
    }});
    let made = api.post(MAPS, &body).await.ok(201);
    assert_ne!(made["metadata"]["uid"], "mine");
    assert_ne!(made["metadata"]["creationTimestamp"], "2001-01-01T00:00:00Z");
    for field in ["selfLink", "deletionTimestamp"] {
        assert_eq!(made["metadata"].get(field), None, "{field}");
    }
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    let taken = api.post(MAPS, &json!({"metadata": {"name": "a"}})).await.failure(409, "AlreadyExists");
    assert_eq!(taken["message"], "configmaps \"a\" already exists");
    let versioned = json!({"metadata": {"name": "b", "resourceVersion": "1"}});
    let refused = api.post(MAPS, &versioned).await;
    assert_eq!(refused.message(), "resourceVersion should not be set on objects to be created");
}

#[tokio::test]
async fn names_are_generated() {
    let api = Api::new().await;
    let body = json!({"metadata": {"generateName": "web-"}});
    let (one, two) = (api.post(MAPS, &body).await.ok(201), api.post(MAPS, &body).await.ok(201));
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name(&one).starts_with("web-") && name(&one).len() == 9, "{one}");
    assert_ne!(name(&one), name(&two));
    let long = json!({"metadata": {"generateName": "x".repeat(100)}});
    assert_eq!(name(&api.post(MAPS, &long).await.ok(201)).len(), 63);
    api.post(MAPS, &json!({"metadata": {"generateName": "A"}})).await.failure(422, "Invalid");
}

#[tokio::test]
async fn namespaces_must_be_there_and_agree() {
    let api = Api::new().await;
    let nowhere = "/api/v1/namespaces/nowhere/configmaps";
    let missing = api.post(nowhere, &json!({"metadata": {"name": "a"}})).await.failure(404, "NotFound");
    assert_eq!(missing["message"], "namespaces \"nowhere\" not found");
    let other = json!({"metadata": {"name": "a", "namespace": "kube-system"}});
    let refused = api.post(MAPS, &other).await.failure(400, "BadRequest");
    let sentence = "the namespace of the provided object does not match the namespace sent on the request";
    assert_eq!(refused["message"], sentence);

    api.post("/api/v1/namespaces", &json!({"metadata": {"name": "x"}})).await.ok(201);
    let going = api.delete("/api/v1/namespaces/x", &json!(null)).await.ok(200);
    assert_eq!(going["status"]["phase"], "Terminating");
    let late = api.post("/api/v1/namespaces/x/configmaps", &json!({"metadata": {"name": "a"}})).await;
    let status = late.failure(403, "Forbidden");
    assert_eq!(status["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut finalized = api.get("/api/v1/namespaces/x").await.ok(200);
    finalized["spec"]["finalizers"] = json!([]);
    api.put("/api/v1/namespaces/x/finalize", &finalized).await.ok(200);
    api.get("/api/v1/namespaces/x").await.failure(404, "NotFound");
    api.delete("/api/v1/namespaces/kube-system", &json!(null)).await.failure(403, "Forbidden");
}

#[tokio::test]
async fn updates_say_what_they_saw() {
    let api = Api::new().await;
    let mut map = api.make_map("a").await;
    let path = format!("{MAPS}/a");
    let old = map.clone();
    map["data"] = json!({"k": "1"});
    let new = api.put(&path, &map).await.ok(200);
    assert_ne!(version(&new), version(&old));
    let stale = api.put(&path, &old).await.failure(409, "Conflict");
    assert_eq!(
        stale["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    // Nothing changes: nothing is written.
    let again = api.put(&path, &new).await.ok(200);
    assert_eq!(version(&again), version(&new));
    let mut unversioned = new.clone();
    unversioned["metadata"]["resourceVersion"] = json!(null);
    unversioned["data"] = json!({"k": "2"});
    api.put(&path, &unversioned).await.ok(200);
    let mut renamed = new.clone();
    renamed["metadata"]["name"] = json!("b");
    api.put(&path, &renamed).await.failure(400, "BadRequest");
    let mut foreign = new;
    foreign["metadata"]["uid"] = json!("other");
    foreign["metadata"]["resourceVersion"] = json!(null);
    api.put(&path, &foreign).await.failure(409, "Conflict");
    api.put(&format!("{MAPS}/nobody"), &json!({"metadata": {"name": "nobody"}}))
        .await
        .failure(404, "NotFound");
}

#[tokio::test]
async fn leases_are_made_by_updates_and_need_versions() {
    let api = Api::new().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let made =
        api.put(path, &json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}})).await.ok(201);
    let unversioned = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "b"}});
    let refused = api.put(path, &unversioned).await.failure(422, "Invalid");
    assert_eq!(
        refused["message"],
        "Lease.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an \
         update"
    );
    let mut next = made;
    next["spec"]["holderIdentity"] = json!("b");
    api.put(path, &next).await.ok(200);
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_treated_as_asked() {
    let api = Api::new().await;
    let body = |name: &str| {
        format!("{{\"metadata\":{{\"name\":\"{name}\",\"nope\":1}},\"data\":{{}},\"data\":{{}}}}")
    };
    let send = async |name: &str, query: &str| {
        api.send(http::Method::POST, &format!("{MAPS}?{query}"), "application/json", body(name).into()).await
    };
    let strict = send("a", "fieldValidation=Strict").await.failure(400, "BadRequest");
    assert_eq!(
        strict["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \
         \"metadata.nope\", duplicate field \"data\""
    );
    for query in ["fieldValidation=Warn", ""] {
        let name = if query.is_empty() { "c" } else { "b" };
        let warned = send(name, query).await;
        let made = warned.ok(201);
        assert_eq!(made["metadata"].get("nope"), None);
        let expected =
            ["299 - \"unknown field \\\"metadata.nope\\\"\"", "299 - \"duplicate field \\\"data\\\"\""];
        assert_eq!(warned.warnings(), expected);
    }
    let ignored = send("d", "fieldValidation=Ignore").await;
    ignored.ok(201);
    assert_eq!(ignored.warnings(), Vec::<String>::new());
    send("e", "fieldValidation=Maybe").await.failure(422, "Invalid");
}

#[tokio::test]
async fn kinds_without_a_controller_say_so() {
    let api = Api::new().await;
    let ingress = json!({"metadata": {"name": "a"}, "spec": {"defaultBackend": {"service": {"name": "s",
        "port": {"number": 80}}}}});
    let made = api.post("/apis/networking.k8s.io/v1/namespaces/default/ingresses", &ingress).await;
    made.ok(201);
    assert_eq!(made.warnings().len(), 1, "{made:?}");
    assert!(made.warnings()[0].contains("Ingress"), "{made:?}");
}

#[tokio::test]
async fn causes_are_listed_one_by_one() {
    let api = Api::new().await;
    let deployment = json!({
        "metadata": {"name": "x"},
        "spec": {
            "replicas": -1, "selector": {"matchLabels": {"app": "x"}},
            "template": {
                "metadata": {"labels": {"app": "y"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    });
    let status = api.post(DEPLOYMENTS, &deployment).await.failure(422, "Invalid");
    assert_eq!(
        (&status["details"]["kind"], &status["details"]["group"]),
        (&json!("Deployment"), &json!("apps"))
    );
    assert_eq!(
        status["details"]["causes"],
        json!([
            {
                "reason": "FieldValueInvalid", "field": "spec.replicas",
                "message": "Invalid value: -1: must be greater than or equal to 0",
            },
            {
                "reason": "FieldValueInvalid", "field": "spec.template.metadata.labels",
                "message": "Invalid value: {\"app\":\"y\"}: `selector` does not match template `labels`",
            },
        ])
    );
    let message = status["message"].as_str().unwrap();
    assert!(
        message.starts_with("Deployment.apps \"x\" is invalid: [spec.replicas: Invalid value: -1: "),
        "{message}"
    );
}

#[tokio::test]
async fn verbs_that_are_not_served_are_405() {
    let api = Api::new().await;
    api.send(http::Method::POST, &format!("{MAPS}/a"), "application/json", b"{}".to_vec())
        .await
        .failure(405, "MethodNotAllowed");
    api.put(MAPS, &json!({})).await.failure(405, "MethodNotAllowed");
    api.get("/api/v1/namespaces/default/bindings").await.failure(405, "MethodNotAllowed");
    assert_eq!(api.get("/api/v1/nonsense").await.code, 404);
    assert_eq!(api.get("/apis/nonsense/v1/things").await.code, 404);
}
