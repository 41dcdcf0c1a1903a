//! Server-side apply: owners, conflicts, what an owner gives up, the record in `managedFields`.

use serde_json::{Value, json};

use crate::harness::{Answer, Api, DEPLOYMENTS, MAPS, MERGE, version};

const APPLY: &str = "application/apply-patch+yaml";

async fn apply(api: &Api, path: &str, manager: &str, force: bool, config: &Value) -> Answer {
    let force = if force { "&force=true" } else { "" };
    api.patch(&format!("{path}?fieldManager={manager}{force}"), APPLY, config).await
}

fn map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn deployment(spec: &Value) -> Value {
    let mut all = json!({
        "selector": {"matchLabels": {"app": "x"}},
        "template": {
            "metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
        },
    });
    json_patch::merge(&mut all, spec);
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": all})
}

fn owner<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().expect("a record");
    entries.iter().find(|entry| entry["manager"] == manager).unwrap_or_else(|| panic!("{manager}: {object}"))
}

#[tokio::test]
async fn the_first_application_creates_and_the_second_does_nothing() {
    let api = Api::new().await;
    let path = format!("{MAPS}/a");
    let config = map(&json!({"k": "v"}));
    let made = apply(&api, &path, "one", false, &config).await.ok(201);
    let entry = owner(&made, "one");
    assert_eq!((&entry["operation"], &entry["apiVersion"]), (&json!("Apply"), &json!("v1")));
    assert_eq!(entry["fieldsV1"], json!({"f:data": {"f:k": {}}}));
    let again = apply(&api, &path, "one", false, &config).await.ok(200);
    assert_eq!(version(&again), version(&made));
    assert_eq!(again, made);
}

#[tokio::test]
async fn two_appliers_conflict_until_one_forces() {
    let api = Api::new().await;
    let path = format!("{MAPS}/a");
    apply(&api, &path, "one", false, &map(&json!({"k": "1", "mine": "1"}))).await.ok(201);
    // The same value is shared.
    let shared = apply(&api, &path, "two", false, &map(&json!({"k": "1"}))).await.ok(200);
    assert_eq!(owner(&shared, "two")["fieldsV1"], json!({"f:data": {"f:k": {}}}));
    let refused = apply(&api, &path, "two", false, &map(&json!({"k": "2"}))).await;
    let status = refused.failure(409, "Conflict");
    assert_eq!(status["message"], "Apply failed with 1 conflict: conflict with \"one\": .data.k");
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.k"}])
    );
    let forced = apply(&api, &path, "two", true, &map(&json!({"k": "2"}))).await.ok(200);
    assert_eq!(forced["data"], json!({"k": "2", "mine": "1"}));
    assert_eq!(owner(&forced, "one")["fieldsV1"], json!({"f:data": {"f:mine": {}}}));
}

#[tokio::test]
async fn what_its_only_owner_drops_disappears() {
    let api = Api::new().await;
    let path = format!("{MAPS}/a");
    apply(&api, &path, "one", false, &map(&json!({"k": "1", "gone": "1", "shared": "1"}))).await.ok(201);
    apply(&api, &path, "two", false, &map(&json!({"shared": "1"}))).await.ok(200);
    api.patch(&path, MERGE, &json!({"data": {"other": "1"}})).await.ok(200);
    let left = apply(&api, &path, "one", false, &map(&json!({"k": "1"}))).await.ok(200);
    assert_eq!(left["data"], json!({"k": "1", "shared": "1", "other": "1"}));
}

#[tokio::test]
async fn an_update_takes_fields_from_an_applier() {
    let api = Api::new().await;
    let path = format!("{DEPLOYMENTS}/x");
    let made = apply(&api, &path, "one", false, &deployment(&json!({"replicas": 2}))).await.ok(201);
    let containers = &owner(&made, "one")["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"];
    let port = "k:{\"containerPort\":80,\"protocol\":\"TCP\"}";
    assert_eq!(
        containers["k:{\"name\":\"c\"}"],
        json!({".": {}, "f:name": {}, "f:image": {}, "f:ports": {port: {".": {}, "f:containerPort": {}}}})
    );
    let scale = format!("{path}/scale?fieldManager=scaler");
    api.patch(&scale, MERGE, &json!({"spec": {"replicas": 5}})).await.ok(200);
    let scaled = api.get(&path).await.ok(200);
    let entry = owner(&scaled, "scaler");
    assert_eq!(
        (&entry["subresource"], &entry["fieldsV1"]),
        (&json!("scale"), &json!({"f:spec": {"f:replicas": {}}}))
    );
    assert_eq!(owner(&scaled, "one")["fieldsV1"]["f:spec"].get("f:replicas"), None);
    let refused = apply(&api, &path, "one", false, &deployment(&json!({"replicas": 2}))).await;
    assert_eq!(
        refused.failure(409, "Conflict")["message"],
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    // Left to the scaler, the count stays.
    let left = apply(&api, &path, "one", false, &deployment(&json!({}))).await.ok(200);
    assert_eq!(left["spec"]["replicas"], 5);
}

#[tokio::test]
async fn items_of_keyed_lists_belong_to_their_appliers() {
    let api = Api::new().await;
    let path = format!("{DEPLOYMENTS}/x");
    let with = |containers: Value| deployment(&json!({"template": {"spec": {"containers": containers}}}));
    let (a, b) = (json!({"name": "a", "image": "a"}), json!({"name": "b", "image": "b"}));
    apply(&api, &path, "one", false, &with(json!([a, b]))).await.ok(201);
    let side = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"},
        "spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s"}]}}},
    });
    apply(&api, &path, "two", false, &side).await.ok(200);
    let left = apply(&api, &path, "one", false, &with(json!([b]))).await.ok(200);
    let names: Vec<&Value> = left["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["name"])
        .collect();
    assert_eq!(names, ["b", "side"]);
}

#[tokio::test]
async fn every_write_is_recorded() {
    let api = Api::new().await;
    let body = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let made = api.post(&format!("{MAPS}?fieldManager=maker"), &body).await.ok(201);
    let entry = owner(&made, "maker");
    assert_eq!((&entry["operation"], &entry["fieldsType"]), (&json!("Update"), &json!("FieldsV1")));
    assert_eq!(entry["fieldsV1"], json!({"f:data": {".": {}, "f:k": {}}}));
    let changed =
        api.patch(&format!("{MAPS}/a?fieldManager=other"), MERGE, &json!({"data": {"k": "w"}})).await;
    let changed = changed.ok(200);
    assert_eq!(owner(&changed, "other")["fieldsV1"], json!({"f:data": {"f:k": {}}}));
    assert_eq!(owner(&changed, "maker")["fieldsV1"], json!({"f:data": {}}));
    // A client that writes back what it read changes nothing.
    assert_eq!(api.put(&format!("{MAPS}/a"), &changed).await.ok(200), changed);
}

#[tokio::test]
async fn configurations_that_cannot_be_applied_are_refused() {
    let api = Api::new().await;
    let path = format!("{MAPS}/a");
    let config = map(&json!({"k": "v"}));
    api.patch(&path, APPLY, &config).await.failure(422, "Invalid");
    for bad in [
        json!({"metadata": {"name": "a"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "nope": 1}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "managedFields": [{}]}}),
        json!([]),
    ] {
        let refused = apply(&api, &path, "one", false, &bad).await;
        assert_eq!(refused.code, 400, "{bad}: {refused:?}");
    }
    api.patch(&format!("{path}?force=true"), MERGE, &json!({})).await.failure(422, "Invalid");
    let dry = api.patch(&format!("{path}?fieldManager=one&dryRun=All"), APPLY, &config).await;
    dry.ok(201);
    api.get(&path).await.failure(404, "NotFound");
}

#[tokio::test]
async fn one_empty_entry_forgets_who_owned_what() {
    let api = Api::new().await;
    let entries = |object: &Value| object["metadata"].get("managedFields").cloned();
    let made = api.make_map("a").await;
    assert!(entries(&made).is_some());
    let path = format!("{MAPS}/a");
    let ignored = json!({"metadata": {"managedFields": []}});
    assert_eq!(entries(&api.patch(&path, MERGE, &ignored).await.ok(200)), entries(&made));
    let reset = json!({"metadata": {"managedFields": [{}]}});
    assert_eq!(entries(&api.patch(&path, MERGE, &reset).await.ok(200)), None);
    let changed = api.patch(&path, MERGE, &json!({"data": {"k": "v"}})).await.ok(200);
    let left = entries(&changed).expect("the change is owned");
    assert_eq!(left[0]["fieldsV1"], json!({"f:data": {".": {}, "f:k": {}}}), "{left}");
    // Entries that were renamed stay so, which is how clients hand over from one way of applying to another.
    let mut moved = changed.clone();
    moved["metadata"]["managedFields"][0]["manager"] = "renamed".into();
    let renamed = api.put(&path, &moved).await.ok(200);
    assert_eq!(entries(&renamed).expect("entries")[0]["manager"], "renamed");
}

#[tokio::test]
async fn what_an_application_refers_to_may_be_missing() {
    let api = Api::new().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let binding = |role: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "b"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "joe"}],
        })
    };
    let rules = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterrolebindings"], "verbs": ["*"]}]);
    api.post(&format!("{rbac}/clusterroles"), &json!({"metadata": {"name": "binds"}, "rules": rules}))
        .await
        .ok(201);
    let mut own = binding("binds");
    own["metadata"]["name"] = "own".into();
    own["subjects"][0]["name"] = "jane".into();
    api.post(&format!("{rbac}/clusterrolebindings"), &own).await.ok(201);
    api.post(&format!("{rbac}/clusterrolebindings"), &binding("nowhere")).await.ok(201);
    let mut wanted = binding("nowhere");
    wanted["subjects"][0]["name"] = "jim".into();
    let path = format!("{rbac}/clusterrolebindings/b?fieldManager=m&force=true");
    let jane = api.by("jane", &[]);
    jane.patch(&path, "application/apply-patch+yaml", &wanted).await.failure(404, "NotFound");
}

#[tokio::test]
async fn the_record_can_be_corrected_and_cleared() {
    let api = Api::new().await;
    let path = format!("{MAPS}/a");
    let made = apply(&api, &path, "one", false, &map(&json!({"k": "1", "l": "2"}))).await.ok(201);
    let mut entry = owner(&made, "one").clone();
    entry["manager"] = json!("other");
    let moved = api.patch(&path, MERGE, &json!({"metadata": {"managedFields": [entry]}})).await.ok(200);
    assert_eq!(owner(&moved, "other")["fieldsV1"], json!({"f:data": {"f:k": {}, "f:l": {}}}));
    assert_eq!(moved["metadata"]["managedFields"].as_array().map(Vec::len), Some(1), "{moved}");
    let dropped = apply(&api, &path, "other", false, &map(&json!({"k": "1"}))).await.ok(200);
    assert_eq!(dropped["data"], json!({"k": "1"}), "the new owner drops what the old one set");
    let kept = api.patch(&path, MERGE, &json!({"metadata": {"managedFields": []}})).await.ok(200);
    assert_eq!(version(&kept), version(&dropped), "no record is no correction");
    let cleared = api.patch(&path, MERGE, &json!({"metadata": {"managedFields": [{}]}})).await.ok(200);
    assert_eq!(cleared["metadata"].get("managedFields"), None);
}

#[tokio::test]
async fn kubectl_takes_over_what_it_applied_by_itself() {
    const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let api = Api::new().await;
    let path = format!("{MAPS}/a");
    let mut own = map(&json!({"k": "1", "theirs": "1"}));
    own["metadata"]["annotations"] = json!({LAST: map(&json!({"k": "1", "theirs": "1"})).to_string()});
    api.post(&format!("{MAPS}?fieldManager=kubectl-client-side-apply"), &own).await.ok(201);
    api.patch(&format!("{path}?fieldManager=them"), MERGE, &json!({"data": {"theirs": "2"}})).await.ok(200);
    let wanted = map(&json!({"k": "9"}));
    let refused = apply(&api, &path, "somebody", false, &wanted).await;
    refused.failure(409, "Conflict");
    let refused = apply(&api, &path, "kubectl", false, &map(&json!({"k": "9", "theirs": "9"}))).await;
    let status = refused.failure(409, "Conflict");
    assert_eq!(
        status["message"], "Apply failed with 1 conflict: conflict with \"them\" using v1: .data.theirs",
        "what was changed since is not its own"
    );
    let taken = apply(&api, &path, "kubectl", false, &wanted).await.ok(200);
    assert_eq!(taken["data"], json!({"k": "9", "theirs": "2"}));
    let last = taken["metadata"]["annotations"][LAST].as_str().expect("kept");
    let last: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(last["data"], json!({"k": "9"}), "the annotation follows");
}

#[tokio::test]
async fn what_is_dropped_from_the_metadata_goes_alone() {
    let api = Api::new().await;
    let path = format!("{MAPS}/a");
    let mut labelled = map(&json!({"k": "1"}));
    labelled["metadata"]["labels"] = json!({"a": "1"});
    labelled["metadata"]["annotations"] = json!({"b": "2"});
    apply(&api, &path, "one", false, &labelled).await.ok(201);
    let dropped = apply(&api, &path, "one", false, &map(&json!({"k": "1"}))).await.ok(200);
    assert_eq!((&dropped["metadata"]["name"], dropped["metadata"].get("labels")), (&json!("a"), None));
    assert_eq!(dropped["metadata"].get("annotations"), None);
    assert!(dropped["metadata"]["uid"].is_string() && dropped["metadata"]["creationTimestamp"].is_string());
}

#[tokio::test]
async fn what_the_server_adds_to_a_new_object_is_nobodys() {
    let api = Api::new().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = api.post("/api/v1/namespaces/default/pods?fieldManager=one", &pod).await.ok(201);
    assert!(made["spec"]["tolerations"].is_array(), "{made}");
    let owned = owner(&made, "one")["fieldsV1"]["f:spec"].clone();
    assert!(owned.get("f:containers").is_some() && owned.get("f:dnsPolicy").is_some(), "{owned}");
    for added in ["f:tolerations", "f:priority", "f:preemptionPolicy"] {
        assert_eq!(owned.get(added), None, "{added}");
    }
}
