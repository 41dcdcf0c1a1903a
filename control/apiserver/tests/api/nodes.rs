//! Nodes: what an agent may read and write, and what it may not say of itself.

use serde_json::{Value, json};

use crate::harness::{Api, JSON_PATCH, MERGE, PODS};

const NODES: &str = "/api/v1/nodes";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/default/token";

async fn secret(api: &Api, name: &str) {
    api.post(SECRETS, &json!({"metadata": {"name": name}})).await.ok(201);
}

/// A pod that mounts a secret of its own name, on a node.
async fn pod(api: &Api, name: &str, node: &str) -> Value {
    let pod = json!({"metadata": {"name": name}, "spec": {
        "nodeName": node, "containers": [{"name": "c", "image": "x"}],
        "volumes": [{"name": "v", "secret": {"secretName": name}}],
    }});
    api.post(PODS, &pod).await.ok(201)
}

#[tokio::test]
async fn a_node_reads_what_its_pods_need() {
    let api = Api::new().await;
    let (n1, n2) = (api.by_node("n1"), api.by_node("n2"));
    secret(&api, "a").await;
    let path = format!("{SECRETS}/a");
    n1.get(&path).await.failure(403, "Forbidden");
    pod(&api, "a", "n1").await;
    n1.get(&path).await.ok(200);
    n2.get(&path).await.failure(403, "Forbidden");
    n1.get(&format!("{SECRETS}?fieldSelector=metadata.name%3Da")).await.ok(200);
    n1.get(SECRETS).await.failure(403, "Forbidden");
    n1.get("/api/v1/secrets").await.failure(403, "Forbidden");
    n2.get(&format!("{PODS}/a")).await.failure(403, "Forbidden");
    n1.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.ok(200);
    n1.get("/api/v1/pods").await.failure(403, "Forbidden");
    api.delete(&format!("{PODS}/a"), &json!({"gracePeriodSeconds": 0})).await.ok(200);
    n1.get(&path).await.failure(403, "Forbidden");
}

#[tokio::test]
async fn a_node_reads_the_volumes_of_its_pods_claims() {
    let api = Api::new().await;
    let claim = json!({"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    }});
    api.post("/api/v1/namespaces/default/persistentvolumeclaims", &claim).await.ok(201);
    let volume = json!({"metadata": {"name": "v"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/v"},
        "claimRef": {"namespace": "default", "name": "data"},
    }});
    api.post("/api/v1/persistentvolumes", &volume).await.ok(201);
    let pod = json!({"metadata": {"name": "a"}, "spec": {
        "nodeName": "n1", "containers": [{"name": "c", "image": "x"}],
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
    }});
    api.post(PODS, &pod).await.ok(201);
    let path = "/api/v1/persistentvolumes/v";
    api.by_node("n1").get(path).await.ok(200);
    api.by_node("n2").get(path).await.failure(403, "Forbidden");
    let claim = "/api/v1/namespaces/default/persistentvolumeclaims/data";
    api.by_node("n1").get(claim).await.ok(200);
    api.by_node("n2").get(claim).await.failure(403, "Forbidden");
}

#[tokio::test]
async fn tokens_are_for_the_nodes_own_pods() {
    let api = Api::new().await;
    let (n1, n2) = (api.by_node("n1"), api.by_node("n2"));
    let made = pod(&api, "a", "n1").await;
    let wanted = |name: &str, uid: &Value| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}});
    let bound = wanted("a", &made["metadata"]["uid"]);
    n1.post(TOKEN, &bound).await.ok(201);
    n2.post(TOKEN, &bound).await.failure(403, "Forbidden");
    n1.post(TOKEN, &json!({"spec": {}})).await.failure(403, "Forbidden");
    let stale = wanted("a", &json!("other"));
    n1.post(TOKEN, &stale).await.failure(409, "Conflict");
}

#[tokio::test]
async fn a_node_writes_of_itself_only() {
    let api = Api::new().await;
    let (n1, n2) = (api.by_node("n1"), api.by_node("n2"));
    let node = |name: &str| json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
    n1.post(NODES, &node("n2")).await.failure(403, "Forbidden");
    let made = n1.post(NODES, &node("n1")).await.ok(201);
    assert_eq!(
        made["spec"]["taints"],
        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]),
        "new nodes are not ready"
    );
    n2.post(NODES, &node("n2")).await.ok(201);
    let status = json!({"status": {"capacity": {"cpu": "1"}}});
    n1.patch(&format!("{NODES}/n1/status"), MERGE, &status).await.ok(200);
    n1.patch(&format!("{NODES}/n2/status"), MERGE, &status).await.failure(403, "Forbidden");
    let own = format!("{NODES}/n1");
    let labels = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    n1.patch(&own, MERGE, &labels("example.com/rack")).await.ok(200);
    for key in ["node-restriction.kubernetes.io/team", "node-role.kubernetes.io/control-plane"] {
        let refused = n1.patch(&own, MERGE, &labels(key)).await.failure(403, "Forbidden");
        let told = refused["message"].as_str().expect("a message").to_owned();
        assert!(told.ends_with(&format!("is not allowed to modify labels: {key}")), "{told}");
        api.patch(&own, MERGE, &labels(key)).await.ok(200);
    }
    n1.patch(&own, MERGE, &json!({"spec": {"taints": []}})).await.failure(403, "Forbidden");
    let owners = json!([{"op": "add", "path": "/metadata/ownerReferences", "value": [
        {"apiVersion": "v1", "kind": "Node", "name": "n2", "uid": "u"},
    ]}]);
    n1.patch(&own, JSON_PATCH, &owners).await.failure(403, "Forbidden");
    n1.delete(&own, &Value::Null).await.failure(403, "Forbidden");
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}});
    n1.post(leases, &lease("n1")).await.ok(201);
    n1.post(leases, &lease("n2")).await.failure(403, "Forbidden");
}

#[tokio::test]
async fn a_node_touches_its_own_pods_only() {
    let api = Api::new().await;
    let (n1, n2) = (api.by_node("n1"), api.by_node("n2"));
    pod(&api, "a", "n1").await;
    let path = format!("{PODS}/a");
    let status = json!({"status": {"phase": "Running"}});
    n2.patch(&format!("{path}/status"), MERGE, &status).await.failure(403, "Forbidden");
    n1.patch(&format!("{path}/status"), MERGE, &status).await.ok(200);
    let labels = json!({"metadata": {"labels": {"app": "other"}}});
    n1.patch(&format!("{path}/status"), MERGE, &labels).await.failure(403, "Forbidden");
    let plain = json!({"metadata": {"name": "b"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "x"}]}});
    let refused = n1.post(PODS, &plain).await.failure(403, "Forbidden");
    assert!(
        refused["message"].as_str().expect("a message").ends_with("can only create mirror pods"),
        "{refused}"
    );
    let now = json!({"gracePeriodSeconds": 0});
    n2.delete(&path, &now).await.failure(403, "Forbidden");
    n1.delete(&path, &now).await.ok(200);
}
