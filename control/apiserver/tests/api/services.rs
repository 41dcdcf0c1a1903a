//! Services: addresses and ports that are given once, across restarts and races.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::harness::{Api, MERGE, SERVICES};

fn service(name: &str, spec: &Value) -> Value {
    let mut all = json!({"ports": [{"port": 80}], "selector": {"a": "b"}});
    for (key, value) in spec.as_object().expect("a map") {
        all[key] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": all})
}

fn address(service: &Value) -> String {
    service["spec"]["clusterIP"].as_str().expect("an address").to_owned()
}

fn node_port(service: &Value) -> u64 {
    service["spec"]["ports"][0]["nodePort"].as_u64().expect("a port")
}

#[tokio::test]
async fn addresses_and_ports_belong_to_one_service() {
    let api = Api::new().await;
    let a = api.post(SERVICES, &service("a", &json!({"type": "NodePort"}))).await.ok(201);
    let same = service("b", &json!({"clusterIP": address(&a)}));
    let refused = api.post(SERVICES, &same).await.failure(422, "Invalid");
    assert_eq!(
        refused["message"],
        format!(
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"{0}\"]: failed to allocate IP {0}: provided IP is \
             already allocated",
            address(&a)
        )
    );
    let same = service("b", &json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": node_port(&a)}]}));
    let refused = api.post(SERVICES, &same).await.failure(422, "Invalid");
    assert_eq!(
        refused["message"],
        format!(
            "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: {}: provided port is already allocated",
            node_port(&a)
        )
    );
    let outside = service("b", &json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}));
    let refused = api.post(SERVICES, &outside).await.failure(422, "Invalid");
    let sentence = "provided port is not in the valid range. The range of valid ports is 30000-32767";
    assert!(refused["message"].as_str().unwrap().ends_with(sentence), "{refused}");
    let outside = service("b", &json!({"clusterIP": "10.97.0.1"}));
    api.post(SERVICES, &outside).await.failure(422, "Invalid");
}

#[tokio::test]
async fn what_is_given_up_can_be_had_again() {
    let api = Api::new().await;
    let a = api.post(SERVICES, &service("a", &json!({"type": "NodePort"}))).await.ok(201);
    let (ip, port) = (address(&a), node_port(&a));
    let plain =
        api.patch(&format!("{SERVICES}/a"), MERGE, &json!({"spec": {"type": "ClusterIP"}})).await.ok(200);
    assert_eq!((address(&plain), plain["spec"]["ports"][0].get("nodePort")), (ip.clone(), None));
    let taken = service("b", &json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}));
    api.post(SERVICES, &taken).await.ok(201);
    api.delete(&format!("{SERVICES}/a"), &json!(null)).await.ok(200);
    assert_eq!(address(&api.post(SERVICES, &service("c", &json!({"clusterIP": ip}))).await.ok(201)), ip);
}

#[tokio::test]
async fn a_write_that_fails_takes_nothing() {
    let api = Api::new().await;
    let wanted = service("a", &json!({"clusterIP": "10.96.5.5"}));
    for query in ["?dryRun=All", "?dryRun=All"] {
        api.post(&format!("{SERVICES}{query}"), &wanted).await.ok(201);
    }
    // The port is refused after the address was taken.
    let half = service(
        "b",
        &json!({
            "type": "NodePort", "clusterIP": "10.96.5.5", "ports": [{"port": 80, "nodePort": 1}],
        }),
    );
    api.post(SERVICES, &half).await.failure(422, "Invalid");
    api.post(SERVICES, &wanted).await.ok(201);
    // The name is taken after the address was.
    let taken = service("a", &json!({"clusterIP": "10.96.5.6"}));
    api.post(SERVICES, &taken).await.failure(409, "AlreadyExists");
    api.post(SERVICES, &service("c", &json!({"clusterIP": "10.96.5.6"}))).await.ok(201);
}

#[tokio::test]
async fn nobody_takes_over_an_address() {
    let api = Api::new().await;
    let taken = service("a", &json!({"externalIPs": ["198.51.100.7"]}));
    let refused = api.post(SERVICES, &taken).await.failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "services \"a\" is forbidden: Use of external IPs is denied by admission control."
    );
    api.post(SERVICES, &service("a", &json!({}))).await.ok(201);
    let change = json!({"spec": {"externalIPs": ["198.51.100.7"]}});
    api.patch(&format!("{SERVICES}/a"), MERGE, &change).await.failure(403, "Forbidden");
}

#[tokio::test]
async fn a_restart_remembers_what_is_taken() {
    let api = Api::new().await;
    let a = api.post(SERVICES, &service("a", &json!({"type": "NodePort"}))).await.ok(201);
    let again = Api::over(api.store.clone()).await;
    let same = service("b", &json!({"clusterIP": address(&a)}));
    again.post(SERVICES, &same).await.failure(422, "Invalid");
    let same = service("b", &json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": node_port(&a)}]}));
    again.post(SERVICES, &same).await.failure(422, "Invalid");
    // What the first server made for itself is there once.
    let kubernetes = again.get(&format!("{SERVICES}/kubernetes")).await.ok(200);
    assert_eq!(address(&kubernetes), "10.96.0.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_services_at_once_share_nothing() {
    let api = Api::new().await;
    let many = (0..1000).map(|index| {
        let api = api.clone();
        tokio::spawn(async move {
            let spec = json!({"type": "NodePort", "ipFamilyPolicy": "RequireDualStack"});
            api.post(SERVICES, &service(&format!("s{index}"), &spec)).await
        })
    });
    let (mut addresses, mut ports, mut busy) = (HashSet::new(), HashSet::new(), 0);
    for made in futures::future::join_all(many).await {
        let made = made.expect("no panic");
        // The server says so when it has too many at work at once.
        if made.code == 429 {
            busy += 1;
            continue;
        }
        let made = made.ok(201);
        for address in made["spec"]["clusterIPs"].as_array().expect("addresses") {
            assert!(addresses.insert(address.clone()), "{address} twice");
        }
        assert!(ports.insert(node_port(&made)), "{} twice", node_port(&made));
    }
    assert_eq!((addresses.len(), ports.len()), (2 * (1000 - busy), 1000 - busy));
    assert!(busy < 1000);
}

#[tokio::test]
async fn families_come_and_go_with_the_policy() {
    let api = Api::new().await;
    let single = api.post(SERVICES, &service("a", &json!({}))).await.ok(201);
    let path = format!("{SERVICES}/a");
    let up = json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}});
    let dual = api.patch(&path, MERGE, &up).await.ok(200);
    assert_eq!(dual["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(dual["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
    assert_eq!(address(&dual), address(&single));
    let down = json!({"spec": {"ipFamilyPolicy": "SingleStack"}});
    let single = api.patch(&path, MERGE, &down).await.ok(200);
    assert_eq!(single["spec"]["clusterIPs"], json!([address(&single)]));
    let moved = json!({"spec": {"clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9"]}});
    api.patch(&path, MERGE, &moved).await.failure(422, "Invalid");
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let external = api.patch(&path, MERGE, &external).await.ok(200);
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert_eq!(external["spec"].get(field), None, "{field}");
    }
    let back = json!({"spec": {"type": "ClusterIP", "externalName": null}});
    address(&api.patch(&path, MERGE, &back).await.ok(200));
}
