//! Custom resources: from the definition to objects that are pruned, filled, checked, listed, scaled and cleaned up.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, MERGE, STRATEGIC, names};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const SHIPS: &str = "/apis/example.com/v1/namespaces/default/ships";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ships.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "ships", "kind": "Ship", "shortNames": ["sh"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.masts", "statusReplicasPath": ".status.masts"},
                },
                "selectableFields": [{"jsonPath": ".spec.flag"}],
                "additionalPrinterColumns": [
                    {"name": "Masts", "type": "integer", "jsonPath": ".spec.masts"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["flag"], "properties": {
                        "flag": {"type": "string", "enum": ["red", "blue"]},
                        "masts": {"type": "integer", "minimum": 1, "default": 2},
                        "cargo": {
                            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {"type": "object", "required": ["name"], "properties": {
                                "name": {"type": "string"}, "tons": {"type": "integer"},
                            }},
                        },
                    }},
                    "status": {"type": "object", "properties": {"masts": {"type": "integer"}}},
                }}},
            }],
        },
    })
}

fn ship(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Ship", "metadata": {"name": name}, "spec": spec})
}

async fn defined() -> Api {
    let api = Api::new().await;
    api.post(DEFINITIONS, &definition()).await.ok(201);
    api
}

#[tokio::test]
async fn nothing_is_added_to_a_group_of_the_server() {
    let api = Api::new().await;
    let jane = api.by("jane", &["developers"]);
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    jane.get(secrets).await.failure(403, "Forbidden");
    let mut wanted = definition();
    wanted["metadata"] = json!({
        "name": "xroles.rbac.authorization.k8s.io", "annotations": {"api-approved.kubernetes.io": "unapproved"},
    });
    wanted["spec"]["group"] = "rbac.authorization.k8s.io".into();
    wanted["spec"]["scope"] = "Cluster".into();
    wanted["spec"]["names"] = json!({"plural": "xroles", "kind": "XRole"});
    let everything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    wanted["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = everything;
    let refused = api.post(DEFINITIONS, &wanted).await.failure(422, "Invalid");
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.group", "{refused}");
    // What would have made everybody an administrator.
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "XRole", "metadata": {"name": "system:basic-user"},
        "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    });
    assert_eq!(api.post("/apis/rbac.authorization.k8s.io/v1/xroles", &role).await.code, 404);
    jane.get(secrets).await.failure(403, "Forbidden");
}

#[tokio::test]
async fn the_door_for_status_lets_only_status_through() {
    let api = defined().await;
    let mut wanted = ship("a", &json!({"flag": "red"}));
    wanted["metadata"]["labels"] = json!({"team": "a"});
    wanted["metadata"]["finalizers"] = json!(["example.com/held"]);
    let made = api.post(SHIPS, &wanted).await.ok(201);
    let path = format!("{SHIPS}/a/status");
    let change = json!({
        "metadata": {"labels": {"team": "b"}, "annotations": {"x": "y"}, "finalizers": null, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"},
        ]},
        "spec": {"flag": "blue"}, "status": {"masts": 3},
    });
    let changed = api.patch(&path, MERGE, &change).await.ok(200);
    assert_eq!(changed["status"]["masts"], 3);
    assert_eq!(changed["spec"], made["spec"]);
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        assert_eq!(changed["metadata"].get(field), made["metadata"].get(field), "{field}");
    }
    let managers: Vec<_> = changed["metadata"]["managedFields"].as_array().expect("entries").iter().collect();
    assert!(managers.iter().any(|entry| entry["subresource"] == "status"), "{managers:?}");
    api.delete(&format!("{SHIPS}/a"), &Value::Null).await.ok(200);
    let mut whole = api.get(&format!("{SHIPS}/a")).await.ok(200);
    whole["metadata"]["finalizers"] = json!([]);
    api.put(&path, &whole).await.ok(200);
    api.get(&format!("{SHIPS}/a")).await.ok(200);
}

#[tokio::test]
async fn a_definition_is_served_at_once() {
    let api = Api::new().await;
    api.get(SHIPS).await;
    assert_eq!(api.get(SHIPS).await.code, 404);
    let made = api.post(DEFINITIONS, &definition()).await.ok(201);
    let holds: Vec<(&Value, &Value)> = made["status"]["conditions"]
        .as_array()
        .expect("conditions")
        .iter()
        .map(|condition| (&condition["type"], &condition["status"]))
        .collect();
    let (yes, accepted, established) = (json!("True"), json!("NamesAccepted"), json!("Established"));
    assert_eq!(holds, [(&accepted, &yes), (&established, &yes)]);
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(made["spec"]["names"]["listKind"], "ShipList");
    assert_eq!(api.get(SHIPS).await.ok(200)["kind"], "ShipList");
    let discovered = api.get("/apis/example.com/v1").await.ok(200);
    let listed: Vec<&str> = discovered["resources"]
        .as_array()
        .expect("resources")
        .iter()
        .filter_map(|r| r["name"].as_str())
        .collect();
    assert_eq!(listed, ["ships", "ships/scale", "ships/status"]);
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let groups = api.request(Method::GET, "/apis", &[("accept", aggregated)], Vec::new()).await.ok(200);
    assert!(names(&groups).contains(&"example.com".to_owned()));
    let openapi = api.get("/openapi/v3/apis/example.com/v1").await.ok(200);
    let schemas = &openapi["components"]["schemas"];
    assert_eq!(schemas["com.example.v1.Ship"]["properties"]["spec"]["required"], json!(["flag"]));
    assert!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());
    let v2 = api.get("/openapi/v2").await.ok(200);
    assert!(v2["definitions"]["com.example.v1.Ship"].is_object());
}

#[tokio::test]
async fn objects_are_pruned_filled_and_checked() {
    let api = defined().await;
    let made = api.post(SHIPS, &ship("a", &json!({"flag": "red", "crew": 7}))).await;
    assert_eq!(made.warnings(), ["299 - \"unknown field \\\"spec.crew\\\"\""]);
    let made = made.ok(201);
    assert_eq!(made["spec"], json!({"flag": "red", "masts": 2}));
    assert_eq!(made["metadata"]["generation"], 1);
    let strict = format!("{SHIPS}?fieldValidation=Strict");
    api.post(&strict, &ship("b", &json!({"flag": "red", "crew": 7}))).await.failure(400, "BadRequest");
    let mut odd = ship("b", &json!({"flag": "red"}));
    odd["metadata"]["colour"] = "red".into();
    api.post(&strict, &odd).await.failure(400, "BadRequest");
    for (spec, sentence) in [
        (json!({}), "spec.flag: Required value"),
        (
            json!({"flag": "green"}),
            "spec.flag: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
        ),
        (
            json!({"flag": "red", "masts": "two"}),
            "spec.masts: Invalid value: \"string\": spec.masts in body must be of type integer: \"string\"",
        ),
        (
            json!({"flag": "red", "masts": 0}),
            "spec.masts: Invalid value: 0: spec.masts in body should be greater than or equal to 1",
        ),
    ] {
        let refused = api.post(SHIPS, &ship("bad", &spec)).await.failure(422, "Invalid");
        assert_eq!(refused["message"], format!("Ship.example.com \"bad\" is invalid: {sentence}"));
    }
    let path = format!("{SHIPS}/a");
    api.patch(&path, MERGE, &json!({"spec": {"masts": -1}})).await.failure(422, "Invalid");
    api.patch(&path, STRATEGIC, &json!({})).await.failure(415, "UnsupportedMediaType");
    let changed = api.patch(&path, MERGE, &json!({"spec": {"masts": 3}})).await.ok(200);
    assert_eq!((&changed["spec"]["masts"], &changed["metadata"]["generation"]), (&json!(3), &json!(2)));
    let mut unversioned = changed.clone();
    unversioned["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    api.put(&path, &unversioned).await.failure(422, "Invalid");
    api.put(&path, &changed).await.ok(200);
}

#[tokio::test]
async fn objects_have_columns_fields_status_and_scale() {
    let api = defined().await;
    for (name, flag) in [("a", "red"), ("b", "blue")] {
        api.post(SHIPS, &ship(name, &json!({"flag": flag}))).await.ok(201);
    }
    let table = api.request(Method::GET, SHIPS, &[("accept", TABLE)], Vec::new()).await.ok(200);
    let heads: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .expect("columns")
        .iter()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(heads, ["Name", "Masts", "Age"]);
    assert_eq!(table["rows"][0]["cells"][1], 2);
    assert_eq!(names(&api.get(&format!("{SHIPS}?fieldSelector=spec.flag%3Dblue")).await.ok(200)), ["b"]);
    api.get(&format!("{SHIPS}?fieldSelector=spec.masts%3D2")).await.failure(400, "BadRequest");
    let path = format!("{SHIPS}/a");
    let through_main = api.patch(&path, MERGE, &json!({"status": {"masts": 9}})).await.ok(200);
    assert_eq!(through_main.get("status"), None);
    let both = json!({"status": {"masts": 1}, "spec": {"masts": 8}});
    let status = api.patch(&format!("{path}/status"), MERGE, &both).await.ok(200);
    assert_eq!((&status["status"]["masts"], &status["spec"]["masts"]), (&json!(1), &json!(2)));
    let scale = format!("{path}/scale");
    let read = api.get(&scale).await.ok(200);
    assert_eq!((&read["spec"]["replicas"], &read["status"]["replicas"]), (&json!(2), &json!(1)));
    api.patch(&scale, MERGE, &json!({"spec": {"replicas": 5}})).await.ok(200);
    assert_eq!(api.get(&path).await.ok(200)["spec"]["masts"], 5);
}

#[tokio::test]
async fn objects_are_applied_and_watched() {
    let api = defined().await;
    let mut watch = api.watch(&format!("{SHIPS}?watch=1")).await;
    let apply = async |manager: &str, spec: Value| -> Answer {
        let path = format!("{SHIPS}/a?fieldManager={manager}");
        api.patch(&path, "application/apply-patch+yaml", &ship("a", &spec)).await
    };
    apply("one", json!({"flag": "red", "cargo": [{"name": "tea", "tons": 1}]})).await.ok(201);
    let both = apply("two", json!({"flag": "red", "cargo": [{"name": "rum", "tons": 2}]})).await.ok(200);
    assert_eq!(both["spec"]["cargo"].as_array().expect("cargo").len(), 2, "{both}");
    let conflict = apply("two", json!({"flag": "blue"})).await.failure(409, "Conflict");
    assert_eq!(conflict["details"]["causes"][0]["field"], ".spec.flag");
    assert_eq!(watch.change().await, ("ADDED".into(), "a".into()));
    assert_eq!(watch.change().await, ("MODIFIED".into(), "a".into()));
    api.delete(&format!("{SHIPS}/a"), &Value::Null).await.ok(200);
    assert_eq!(watch.change().await, ("DELETED".into(), "a".into()));
}

#[tokio::test]
async fn versions_share_their_objects() {
    let api = defined().await;
    api.post(SHIPS, &ship("old", &json!({"flag": "red"}))).await.ok(201);
    let mut changed = api.get(&format!("{DEFINITIONS}/ships.example.com")).await.ok(200);
    let mut newer = changed["spec"]["versions"][0].clone();
    newer["name"] = "v2".into();
    newer["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["sails"] =
        json!({"type": "integer", "default": 4});
    changed["spec"]["versions"][0]["storage"] = false.into();
    changed["spec"]["versions"].as_array_mut().expect("versions").push(newer);
    let path = format!("{DEFINITIONS}/ships.example.com");
    let updated = api.put(&path, &changed).await.ok(200);
    assert_eq!(updated["status"]["storedVersions"], json!(["v1", "v2"]));
    let v2 = SHIPS.replace("/v1/", "/v2/");
    let read = api.get(&format!("{v2}/old")).await.ok(200);
    assert_eq!((&read["apiVersion"], &read["spec"]["sails"]), (&json!("example.com/v2"), &json!(4)));
    assert_eq!(api.get(&v2).await.ok(200)["items"][0]["spec"]["sails"], 4, "filled from the store");
    assert_eq!(api.get(&format!("{SHIPS}/old")).await.ok(200)["apiVersion"], "example.com/v1");
    let mut gone = updated.clone();
    gone["spec"]["versions"].as_array_mut().expect("versions").remove(0);
    let refused = api.put(&path, &gone).await.failure(422, "Invalid");
    assert!(
        refused["message"].as_str().expect("a message").contains("status.storedVersions[0]"),
        "{refused}"
    );
}

#[tokio::test]
async fn definitions_are_checked() {
    let api = defined().await;
    let mut wrong = definition();
    wrong["metadata"]["name"] = "boats.example.com".into();
    let refused = api.post(DEFINITIONS, &wrong).await.failure(422, "Invalid");
    assert!(
        refused["message"].as_str().expect("a message").contains("must be spec.names.plural"),
        "{refused}"
    );
    let mut twin = definition();
    twin["metadata"]["name"] = "vessels.example.com".into();
    twin["spec"]["names"] = json!({"plural": "vessels", "singular": "vessel", "kind": "Ship"});
    let conflicting = api.post(DEFINITIONS, &twin).await.ok(201);
    assert_eq!(conflicting["status"]["conditions"][0]["reason"], "KindConflict");
    assert_eq!(api.get("/apis/example.com/v1/namespaces/default/vessels").await.code, 404);
    let path = format!("{DEFINITIONS}/ships.example.com");
    api.patch(&path, MERGE, &json!({"spec": {"scope": "Cluster"}})).await.failure(422, "Invalid");
}

#[tokio::test]
async fn a_definition_takes_its_objects_along() {
    let api = defined().await;
    let server = api.server.clone();
    let maintained = tokio::spawn(async move { server.maintain().await });
    api.post(SHIPS, &ship("a", &json!({"flag": "red"}))).await.ok(201);
    let mut held = ship("b", &json!({"flag": "red"}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    api.post(SHIPS, &held).await.ok(201);
    let mut watch =
        api.watch(&format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3Dships.example.com")).await;
    assert_eq!(watch.change().await.0, "ADDED");
    let path = format!("{DEFINITIONS}/ships.example.com");
    let going = api.delete(&path, &Value::Null).await.ok(200);
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    let refused = api.post(SHIPS, &ship("c", &json!({"flag": "red"}))).await.failure(405, "MethodNotAllowed");
    assert_eq!(refused["message"], "create not allowed while custom resource definition is terminating");
    api.patch(&format!("{SHIPS}/b"), MERGE, &json!({"metadata": {"finalizers": null}})).await.ok(200);
    while watch.change().await.0 != "DELETED" {}
    assert_eq!(api.get(SHIPS).await.code, 404);
    maintained.abort();
}
