//! Deployments: scale, status, immutable fields.

use serde_json::{Value, json};

use crate::harness::{Api, DEPLOYMENTS, MERGE, version};

fn deployment(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "x"}},
            "template": {
                "metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

#[tokio::test]
async fn a_scale_is_read_and_written() {
    let api = Api::new().await;
    let made = api.post(DEPLOYMENTS, &deployment("a")).await.ok(201);
    let path = format!("{DEPLOYMENTS}/a/scale");
    let scale = api.get(&path).await.ok(200);
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(2), &json!("app=x")));
    assert_eq!(version(&scale), version(&made));
    let mut wanted = scale.clone();
    wanted["spec"]["replicas"] = json!(5);
    assert_eq!(api.put(&path, &wanted).await.ok(200)["spec"]["replicas"], 5);
    api.put(&path, &wanted).await.failure(409, "Conflict");
    let patched = api.patch(&path, MERGE, &json!({"spec": {"replicas": 1}})).await.ok(200);
    assert_eq!(patched["spec"]["replicas"], 1);
    let now = api.get(&format!("{DEPLOYMENTS}/a")).await.ok(200);
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(1), &json!(3)));
    let negative = api.patch(&path, MERGE, &json!({"spec": {"replicas": -1}})).await.failure(422, "Invalid");
    assert_eq!(
        negative["message"],
        "Scale.autoscaling \"a\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
}

#[tokio::test]
async fn a_selector_is_for_ever() {
    let api = Api::new().await;
    api.post(DEPLOYMENTS, &deployment("a")).await.ok(201);
    let patch = json!({"spec": {
        "selector": {"matchLabels": {"app": "y"}}, "template": {"metadata": {"labels": {"app": "y"}}},
    }});
    let refused = api.patch(&format!("{DEPLOYMENTS}/a"), MERGE, &patch).await.failure(422, "Invalid");
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.selector");
}

#[tokio::test]
async fn a_status_counts_sensibly() {
    let api = Api::new().await;
    api.post(DEPLOYMENTS, &deployment("a")).await.ok(201);
    let path = format!("{DEPLOYMENTS}/a/status");
    let good = json!({"status": {"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2}});
    let written = api.patch(&path, MERGE, &good).await.ok(200);
    assert_eq!(written["status"]["readyReplicas"], 1);
    assert_eq!(written["metadata"]["generation"], 1);
    let bad = json!({"status": {"replicas": 1, "readyReplicas": 2, "updatedReplicas": 1}});
    api.patch(&path, MERGE, &bad).await.failure(422, "Invalid");
}

#[tokio::test]
async fn tables_have_upstreams_columns() {
    let api = Api::new().await;
    api.post(DEPLOYMENTS, &deployment("a")).await.ok(201);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                  application/json";
    let answer = api.request(http::Method::GET, DEPLOYMENTS, &[("accept", accept)], Vec::new()).await;
    let table = answer.ok(200);
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    let expected = ["Name", "Ready", "Up-to-date", "Available", "Age", "Containers", "Images", "Selector"];
    assert_eq!(columns, expected);
    assert_eq!(table["rows"][0]["cells"][1], "0/2");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}
