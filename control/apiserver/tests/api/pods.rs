//! Pods and what is done to them through their sub-resources.

use serde_json::{Value, json};

use crate::harness::{Api, MERGE, PODS, STRATEGIC, version};

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}})
}

#[tokio::test]
async fn a_new_pod_is_complete() {
    let api = Api::new().await;
    let made = api.post(PODS, &pod("a")).await.ok(201);
    assert_eq!(made["status"]["phase"], "Pending");
    assert_eq!(made["status"]["qosClass"], "BestEffort");
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["enableServiceLinks"], true);
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(made["spec"]["priority"], 0);
    assert!(made["spec"]["volumes"][0]["projected"].is_object(), "{made}");
}

#[tokio::test]
async fn the_door_for_status_lets_nothing_else_through() {
    let api = Api::new().await;
    let mut seen = api.post(PODS, &pod("a")).await.ok(201);
    let path = format!("{PODS}/a");
    seen["status"]["phase"] = json!("Running");
    seen["spec"]["containers"][0]["image"] = json!("other");
    seen["metadata"]["labels"]["app"] = json!("y");
    let through_main = api.put(&path, &seen).await.ok(200);
    assert_eq!(through_main["status"]["phase"], "Pending");
    assert_eq!(through_main["spec"]["containers"][0]["image"], "other");
    let mut seen = through_main;
    seen["status"]["phase"] = json!("Running");
    seen["spec"]["containers"][0]["image"] = json!("third");
    let through_status = api.put(&format!("{path}/status"), &seen).await.ok(200);
    assert_eq!(through_status["status"]["phase"], "Running");
    assert_eq!(through_status["spec"]["containers"][0]["image"], "other");
    let patch = json!({"spec": {"nodeName": "n"}, "status": {"podIP": "10.0.0.9"}});
    let patched = api.patch(&format!("{path}/status"), STRATEGIC, &patch).await.ok(200);
    assert_eq!(patched["spec"].get("nodeName"), None);
    assert_eq!(patched["status"]["podIPs"], json!([{"ip": "10.0.0.9"}]));
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let api = Api::new().await;
    let made = api.post(PODS, &pod("a")).await.ok(201);
    let path = format!("{PODS}/a/binding");
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    let foreign =
        json!({"metadata": {"name": "a", "uid": "other"}, "target": {"kind": "Node", "name": "n1"}});
    api.post(&path, &foreign).await.failure(409, "Conflict");
    let done = api.post(&path, &binding).await.ok(201);
    assert_eq!((&done["kind"], &done["status"]), (&json!("Status"), &json!("Success")));
    let again = api.post(&path, &binding).await.failure(409, "Conflict");
    assert_eq!(
        again["message"],
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\""
    );
    let bound = api.get(&format!("{PODS}/a")).await.ok(200);
    assert_eq!(
        (&bound["spec"]["nodeName"], &bound["metadata"]["uid"]),
        (&json!("n1"), &made["metadata"]["uid"])
    );
    api.post(PODS, &pod("b")).await.ok(201);
    let nowhere = json!({"metadata": {"name": "b"}, "target": {"kind": "Pod"}});
    api.post(&format!("{PODS}/b/binding"), &nowhere).await.failure(422, "Invalid");
}

#[tokio::test]
async fn an_eviction_asks_the_budget() {
    let api = Api::new().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    api.post(PODS, &pod("a")).await.ok(201);
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let running = json!({"status": {"phase": "Running", "conditions": ready}});
    api.patch(&format!("{PODS}/a/status"), MERGE, &running).await.ok(200);
    let budget = json!({
        "metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}},
    });
    api.post(budgets, &budget).await.ok(201);
    let status = |allowed: u32| {
        json!({"status": {
            "observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1,
            "expectedPods": 1,
        }})
    };
    api.patch(&format!("{budgets}/b/status"), MERGE, &status(0)).await.ok(200);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let held = api.post(&format!("{PODS}/a/eviction"), &eviction).await;
    let failure = held.failure(429, "TooManyRequests");
    assert_eq!(failure["details"]["causes"][0]["reason"], "DisruptionBudget");
    assert_eq!(failure["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    api.patch(&format!("{budgets}/b/status"), MERGE, &status(1)).await.ok(200);
    api.post(&format!("{PODS}/a/eviction"), &eviction).await.ok(201);
    api.get(&format!("{PODS}/a")).await.failure(404, "NotFound");
    let spent = api.get(&format!("{budgets}/b")).await.ok(200);
    assert_eq!(spent["status"]["disruptionsAllowed"], 0);
    assert!(spent["status"]["disruptedPods"]["a"].is_string());
}

#[tokio::test]
async fn no_budget_is_spent_for_who_may_not_evict_or_means_another_pod() {
    let api = Api::new().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let mut placed = pod("a");
    placed["spec"]["nodeName"] = "n1".into();
    api.post(PODS, &placed).await.ok(201);
    let running =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    api.patch(&format!("{PODS}/a/status"), MERGE, &running).await.ok(200);
    let budget = json!({
        "metadata": {"name": "b"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "x"}}},
    });
    api.post(budgets, &budget).await.ok(201);
    let status = json!({"status": {
        "observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2,
    }});
    api.patch(&format!("{budgets}/b/status"), MERGE, &status).await.ok(200);
    let evict = format!("{PODS}/a/eviction");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let mut other = eviction.clone();
    other["deleteOptions"] = json!({"preconditions": {"uid": "another"}});
    api.by_node("n2").post(&evict, &eviction).await.failure(403, "Forbidden");
    api.post(&evict, &other).await.failure(409, "Conflict");
    let held = api.get(&format!("{budgets}/b")).await.ok(200);
    assert_eq!(held["status"]["disruptionsAllowed"], 1, "{held}");
    let live = api.get(&format!("{PODS}/a")).await.ok(200);
    other["deleteOptions"]["preconditions"] =
        json!({"uid": live["metadata"]["uid"], "resourceVersion": live["metadata"]["resourceVersion"]});
    api.by_node("n1").post(&evict, &other).await.ok(201);
    let spent = api.get(&format!("{budgets}/b")).await.ok(200);
    assert_eq!(spent["status"]["disruptionsAllowed"], 0, "{spent}");
    assert!(api.get(&format!("{PODS}/a")).await.ok(200)["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test]
async fn nobody_reaches_for_secrets_by_a_mirror_pod() {
    let api = Api::new().await;
    let mut mirror = pod("a");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    mirror["spec"]["nodeName"] = "n1".into();
    let made = api.post(PODS, &mirror).await.ok(201);
    assert_eq!(made["spec"].get("serviceAccountName"), None, "{made}");
    mirror["metadata"]["name"] = "b".into();
    mirror["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
    let refused = api.post(PODS, &mirror).await.failure(403, "Forbidden");
    assert_eq!(refused["message"], "pods \"b\" is forbidden: a mirror pod may not reference secrets");
}

#[tokio::test]
async fn tokens_are_requested() {
    let api = Api::new().await;
    let pod = api.post(PODS, &pod("a")).await.ok(201);
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let body = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "spec": {
            "audiences": ["x"], "expirationSeconds": 600,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "a", "uid": pod["metadata"]["uid"]},
        },
    });
    let token = api.post(path, &body).await.ok(201);
    assert_eq!(token["kind"], "TokenRequest");
    assert_eq!(token["status"]["token"].as_str().unwrap().split('.').count(), 3);
    assert!(token["status"]["expirationTimestamp"].is_string());
    let mut short = body.clone();
    short["spec"]["expirationSeconds"] = json!(10);
    api.post(path, &short).await.failure(422, "Invalid");
    let mut foreign = body;
    foreign["spec"]["boundObjectRef"]["uid"] = json!("other");
    api.post(path, &foreign).await.failure(409, "Conflict");
    let nobody = "/api/v1/namespaces/default/serviceaccounts/nobody/token";
    api.post(nobody, &json!({"spec": {}})).await.failure(404, "NotFound");
}

#[tokio::test]
async fn generations_count_what_is_asked_for_only() {
    let api = Api::new().await;
    let made = api.post(PODS, &pod("a")).await.ok(201);
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{PODS}/a");
    let labelled = api.patch(&path, MERGE, &json!({"metadata": {"labels": {"l": "1"}}})).await.ok(200);
    assert_eq!(labelled["metadata"]["generation"], 1);
    assert_ne!(version(&labelled), version(&made));
    let running = api.patch(&format!("{path}/status"), MERGE, &json!({"status": {"phase": "Running"}})).await;
    assert_eq!(running.ok(200)["metadata"]["generation"], 1);
    let image = json!({"spec": {"containers": [{"name": "c", "image": "y"}]}});
    assert_eq!(api.patch(&path, STRATEGIC, &image).await.ok(200)["metadata"]["generation"], 2);
}
