//! What is served: discovery in both forms, OpenAPI, versions.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Api, names};

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

#[tokio::test]
async fn both_forms_say_the_same() {
    let api = Api::new().await;
    let whole = api.request(Method::GET, "/apis", &[("accept", AGGREGATED)], Vec::new()).await;
    assert_eq!(
        whole.headers["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let whole = whole.ok(200);
    let plain = api.get("/apis").await.ok(200);
    let groups: Vec<&str> = plain["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .filter_map(|group| group["name"].as_str())
        .collect();
    assert_eq!(names(&whole), groups);
    for (index, group) in groups.iter().enumerate() {
        let document = api.get(&format!("/apis/{group}")).await.ok(200);
        assert_eq!(document["preferredVersion"], document["versions"][0], "{group}");
        for version in whole["items"][index]["versions"].as_array().expect("versions") {
            let list =
                api.get(&format!("/apis/{group}/{}", version["version"].as_str().expect("a name"))).await;
            let list = list.ok(200);
            let listed: Vec<&str> = list["resources"]
                .as_array()
                .expect("resources")
                .iter()
                .filter_map(|resource| resource["name"].as_str())
                .filter(|name| !name.contains('/'))
                .collect();
            let aggregated: Vec<&str> = version["resources"]
                .as_array()
                .expect("resources")
                .iter()
                .filter_map(|resource| resource["resource"].as_str())
                .collect();
            assert_eq!(listed, aggregated, "{group}");
        }
    }
    let core = api.request(Method::GET, "/api", &[("accept", AGGREGATED)], Vec::new()).await.ok(200);
    let pods = core["items"][0]["versions"][0]["resources"]
        .as_array()
        .expect("resources")
        .iter()
        .find(|resource| resource["resource"] == "pods")
        .expect("pods")
        .clone();
    assert_eq!(
        (&pods["scope"], &pods["responseKind"], &pods["shortNames"]),
        (&json!("Namespaced"), &json!({"group": "", "version": "v1", "kind": "Pod"}), &json!(["po"]))
    );
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let api = Api::new().await;
    let first = api.request(Method::GET, "/apis", &[("accept", AGGREGATED)], Vec::new()).await;
    let etag = first.headers["etag"].to_str().expect("text").to_owned();
    let known = [("accept", AGGREGATED), ("if-none-match", &*etag)];
    let second = api.request(Method::GET, "/apis", &known, Vec::new()).await;
    assert_eq!((second.code, second.text.as_str()), (304, ""));
    let other = [("accept", AGGREGATED), ("if-none-match", "\"other\"")];
    assert_eq!(api.request(Method::GET, "/apis", &other, Vec::new()).await.code, 200);
}

#[tokio::test]
async fn every_group_and_version_is_described() {
    let api = Api::new().await;
    let index = api.get("/openapi/v3").await.ok(200);
    for (root, place) in index["paths"].as_object().expect("paths") {
        let url = place["serverRelativeURL"].as_str().expect("a place");
        assert!(url.starts_with(&format!("/openapi/v3/{root}?hash=")), "{url}");
    }
    let apps = api.get("/openapi/v3/apis/apps/v1").await.ok(200);
    let deployment = &apps["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["properties"]["spec"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"
    );
    assert!(apps["components"]["schemas"].get("io.k8s.api.batch.v1.Job").is_none(), "only what is needed");
    assert_eq!(api.get("/openapi/v3/apis/nothing/v1").await.code, 404);
    let version: Value = api.get("/version").await.ok(200);
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("37")));
}
