//! Bootstrap tokens, signing requests, what is counted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::harness::{Api, MAPS, MERGE};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
/// Of `CN=system:node:n1, O=system:nodes`, made with an elliptic key.
const REQUEST: &str = include_str!("request.pem");

fn request(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "request": STANDARD.encode(REQUEST), "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
        "usages": ["digital signature", "client auth"], "username": "root", "groups": ["system:masters"],
    }})
}

#[tokio::test]
async fn a_bootstrap_token_may_ask_for_a_certificate() {
    let api = Api::new().await;
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
        },
    });
    let nobody = api.by_nobody();
    let token = [("authorization", "Bearer abcdef.0123456789abcdef"), ("content-type", "application/json")];
    let ask = |name: &str| request(name).to_string().into_bytes();
    nobody.request(Method::POST, REQUESTS, &token, ask("a")).await.failure(401, "Unauthorized");
    api.post(SECRETS, &secret).await.ok(201);
    let made = nobody.request(Method::POST, REQUESTS, &token, ask("a")).await.ok(201);
    assert_eq!(made["spec"]["username"], "system:bootstrap:abcdef", "the server says who asks");
    assert_eq!(made["spec"]["groups"], json!(["system:bootstrappers", "system:authenticated"]));
    nobody.request(Method::GET, MAPS, &token, Vec::new()).await.failure(403, "Forbidden");
    let wrong = [("authorization", "Bearer abcdef.0123456789abcdee")];
    nobody.request(Method::GET, "/api", &wrong, Vec::new()).await.failure(401, "Unauthorized");
    api.delete(&format!("{SECRETS}/bootstrap-token-abcdef"), &Value::Null).await.ok(200);
    nobody.request(Method::GET, "/api", &token, Vec::new()).await.failure(401, "Unauthorized");
}

#[tokio::test]
async fn a_token_dies_with_its_pod() {
    let api = Api::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let made = api.post(pods, &pod).await.ok(201);
    let bound = json!({"spec": {"boundObjectRef": {
        "apiVersion": "v1", "kind": "Pod", "name": "a", "uid": made["metadata"]["uid"],
    }}});
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = api.post(path, &bound).await.ok(201)["status"]["token"].as_str().expect("a token").to_owned();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    let nobody = api.by_nobody();
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = nobody.request(Method::POST, who, &headers, b"{}".to_vec()).await.ok(201);
    assert_eq!(me["status"]["userInfo"]["username"], "system:serviceaccount:default:default");
    assert_eq!(me["status"]["userInfo"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["a"]));
    let review = |audiences: Value| json!({"spec": {"token": token, "audiences": audiences}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let known = api.post(reviews, &review(json!([]))).await.ok(201);
    assert_eq!(known["status"]["authenticated"], true);
    let elsewhere = api.post(reviews, &review(json!(["vault"]))).await.ok(201);
    assert_eq!(elsewhere["status"].get("authenticated"), None, "it is for another audience");
    api.delete(&format!("{pods}/a"), &json!({"gracePeriodSeconds": 0})).await.ok(200);
    nobody.request(Method::POST, who, &headers, b"{}".to_vec()).await.failure(401, "Unauthorized");
    let gone = api.post(reviews, &review(json!([]))).await.ok(201);
    assert_eq!(gone["status"].get("authenticated"), None);
}

#[tokio::test]
async fn approving_and_signing_need_the_right_to_the_signer() {
    let api = Api::new().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rules = json!([
        {"verbs": ["*"], "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests", "certificatesigningrequests/*"]},
        {"verbs": ["*"], "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"]},
    ]);
    api.post(&format!("{rbac}/clusterroles"), &json!({"metadata": {"name": "asks"}, "rules": rules}))
        .await
        .ok(201);
    let binding = json!({
        "metadata": {"name": "asks"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "asks"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    api.post(&format!("{rbac}/clusterrolebindings"), &binding).await.ok(201);
    let jane = api.by("jane", &[]);
    jane.post(REQUESTS, &request("a")).await.ok(201);
    let path = format!("{REQUESTS}/a");
    let approve = json!({"status": {
        "conditions": [{"type": "Approved", "status": "True", "reason": "R"}], "certificate": STANDARD.encode("stolen"),
    }});
    let refused = jane.patch(&format!("{path}/approval"), MERGE, &approve).await.failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: user not permitted to approve requests with \
         signerName \"kubernetes.io/kube-apiserver-client-kubelet\""
    );
    let signed = json!({"status": {"certificate": STANDARD.encode("x")}});
    jane.patch(&format!("{path}/status"), MERGE, &signed).await.failure(403, "Forbidden");
    let approved = api.patch(&format!("{path}/approval"), MERGE, &approve).await.ok(200);
    assert_eq!(approved["status"].get("certificate"), None, "who approves does not sign");
    let changed = json!({"spec": {"usages": ["server auth"]}});
    let kept = jane.patch(&path, MERGE, &changed).await.ok(200);
    assert_eq!(kept["spec"]["usages"], json!(["digital signature", "client auth"]));
    let dropped = json!({"status": {"conditions": []}});
    let still = api.patch(&format!("{path}/status"), MERGE, &dropped).await.ok(200);
    assert_eq!(still["status"]["conditions"][0]["type"], "Approved", "a verdict stands");
    for conditions in [
        json!([]),
        json!([{"type": "Denied", "status": "True", "reason": "R"}]),
        json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]),
    ] {
        let changed = json!({"status": {"conditions": conditions}});
        api.patch(&format!("{path}/approval"), MERGE, &changed).await.failure(422, "Invalid");
    }
    for (field, value) in [
        ("request", json!(STANDARD.encode("rubbish"))),
        ("signerName", json!("nobody")),
        ("usages", json!([])),
        ("expirationSeconds", json!(60)),
    ] {
        let mut wrong = request("b");
        wrong["spec"][field] = value;
        jane.post(REQUESTS, &wrong).await.failure(422, "Invalid");
    }
}

#[tokio::test]
async fn requests_are_counted_by_what_they_are() {
    let api = Api::new().await;
    api.make_map("a").await;
    api.get(&format!("{MAPS}/nothing")).await.failure(404, "NotFound");
    for number in 0..20 {
        api.get(&format!("/invented-{number}")).await;
        api.get(&format!("/apis/invented-{number}/v1/things")).await;
    }
    let metrics = api.get("/metrics").await;
    assert_eq!(metrics.code, 200);
    let has = |line: &str| metrics.text.lines().any(|other| other == line);
    let made = "apiserver_request_total{verb=\"CREATE\",dry_run=\"\",group=\"\",version=\"v1\",resource=\"configmaps\",\
                subresource=\"\",scope=\"namespace\",component=\"apiserver\",code=\"201\"} 1";
    assert!(has(made), "{}", metrics.text);
    assert!(has("apiserver_resource_objects{group=\"\",resource=\"configmaps\"} 1"), "{}", metrics.text);
    assert!(!metrics.text.contains("invented"), "clients invent no series");
    assert!(metrics.text.contains("apiserver_request_duration_seconds_bucket"));
    assert!(metrics.text.contains("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1"));
    api.by("jane", &[]).get("/metrics").await.failure(403, "Forbidden");
    assert_eq!(api.by("prometheus", &["system:monitoring"]).get("/metrics").await.code, 200);
}

#[tokio::test]
async fn what_says_nothing_is_not_kept() {
    let api = Api::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "paused": false, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}},
    }});
    let made = api.post(deployments, &deployment).await.ok(201);
    assert_eq!(made["spec"].get("paused"), None);
    let status = json!({"status": {"replicas": 1, "readyReplicas": 0, "availableReplicas": 0}});
    let told = api.patch(&format!("{deployments}/d/status"), MERGE, &status).await.ok(200);
    assert_eq!(told["status"], json!({"replicas": 1}));
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": {"service": {
        "name": "s", "port": {"number": 80},
    }}}});
    let path = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    assert_eq!(api.post(path, &ingress).await.ok(201)["status"], json!({"loadBalancer": {}}));
}
