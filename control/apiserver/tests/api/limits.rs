//! What a namespace allows: ranges, quotas, levels of pod security.

use serde_json::{Value, json};

use crate::harness::{Api, DEPLOYMENTS, MAPS, MERGE, PODS};

const NAMESPACE: &str = "/api/v1/namespaces/default";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

fn pod(name: &str, resources: &Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "x", "resources": resources}]},
    })
}

#[tokio::test]
async fn containers_get_defaults_and_keep_to_ranges() {
    let api = Api::new().await;
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [{
        "type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "250m"}, "max": {"cpu": "1"},
        "min": {"cpu": "100m"},
    }]}});
    api.post(&format!("{NAMESPACE}/limitranges"), &range).await.ok(201);
    let made = api.post(PODS, &pod("a", &json!({}))).await.ok(201);
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "250m"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let own = api.post(PODS, &pod("b", &json!({"limits": {"cpu": "800m"}}))).await.ok(201);
    assert_eq!(
        own["spec"]["containers"][0]["resources"]["requests"]["cpu"], "800m",
        "limits are requests first"
    );
    let refused = api.post(PODS, &pod("c", &json!({"limits": {"cpu": "2"}}))).await.failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "pods \"c\" is forbidden: [maximum cpu usage per Container is 1, but limit is 2]"
            .replace("[", "")
            .replace("]", "")
    );
}

#[tokio::test]
async fn quotas_are_kept_and_told() {
    let api = Api::new().await;
    let hard = json!({"pods": "1", "requests.cpu": "1", "count/configmaps": "2"});
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    api.post(QUOTAS, &quota).await.ok(201);
    let server = api.server.clone();
    let maintained = tokio::spawn(async move { server.maintain().await });
    let half = json!({"requests": {"cpu": "500m"}});
    let refused = api.post(PODS, &pod("a", &json!({}))).await.failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "pods \"a\" is forbidden: failed quota: q: must specify requests.cpu for: c"
    );
    api.post(PODS, &pod("a", &half)).await.ok(201);
    let refused = api.post(PODS, &pod("b", &half)).await.failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    );
    // A controller makes one in every namespace of a whole cluster; here there is none.
    api.post(MAPS, &json!({"metadata": {"name": "one"}})).await.ok(201);
    api.post(MAPS, &json!({"metadata": {"name": "two"}})).await.ok(201);
    api.post(MAPS, &json!({"metadata": {"name": "three"}})).await.failure(403, "Forbidden");
    let wanted = json!({"pods": "1", "requests.cpu": "500m", "count/configmaps": "2"});
    let mut watch = api.watch(&format!("{QUOTAS}?watch=1")).await;
    loop {
        let event = watch.next().await.expect("an event");
        if event["object"]["status"]["used"] == wanted {
            assert_eq!(event["object"]["status"]["hard"], hard);
            break;
        }
    }
    api.delete(&format!("{PODS}/a"), &Value::Null).await.ok(200);
    api.post(PODS, &pod("b", &half)).await.ok(201);
    maintained.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn many_at_once_do_not_pass_a_quota() {
    let api = Api::new().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "5"}}});
    api.post(QUOTAS, &quota).await.ok(201);
    let writes = (0..200).map(|number| {
        let api = api.clone();
        tokio::spawn(async move {
            api.post(MAPS, &json!({"metadata": {"name": format!("m{number}")}})).await.code
        })
    });
    let mut made = 0;
    for write in writes.collect::<Vec<_>>() {
        match write.await.expect("no panic") {
            201 => made += 1,
            code => assert_eq!(code, 403),
        }
    }
    assert_eq!(made, 5);
}

#[tokio::test]
async fn pods_keep_to_the_level_of_their_namespace() {
    let api = Api::new().await;
    let level = |mode: &str, level: &str| json!({"metadata": {"labels": {format!("pod-security.kubernetes.io/{mode}"): level}}});
    api.patch(NAMESPACE, MERGE, &level("enforce", "baseline")).await.ok(200);
    api.patch(NAMESPACE, MERGE, &level("warn", "restricted")).await.ok(200);
    let mut root = pod("a", &json!({}));
    let allowed = api.post(PODS, &root).await;
    assert_eq!(allowed.code, 201, "{allowed:?}");
    let warned = allowed.warnings().join("\n");
    assert!(warned.contains("would violate PodSecurity \\\"restricted:latest\\\""), "{warned}");
    root["metadata"]["name"] = "b".into();
    root["spec"]["hostNetwork"] = true.into();
    root["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let refused = api.post(PODS, &root).await.failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "pods \"b\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true), \
         privileged (container \"c\" must not set securityContext.privileged=true)"
    );
    // What makes pods is warned about, not refused.
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": root["spec"]},
    }});
    let made = api.post(DEPLOYMENTS, &deployment).await;
    assert_eq!(made.code, 201);
    assert!(made.warnings().iter().any(|warning| warning.contains("would violate PodSecurity")), "{made:?}");
}

#[tokio::test]
async fn labels_of_a_namespace_say_a_policy_and_what_it_finds_is_told() {
    let api = Api::new().await;
    let level = |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let refused = api.patch(NAMESPACE, MERGE, &level("strict")).await.failure(422, "Invalid");
    assert_eq!(
        refused["details"]["causes"][0]["field"], "metadata.labels[pod-security.kubernetes.io/enforce]",
        "{refused}"
    );
    let mut made = json!({"metadata": {"name": "other"}});
    made["metadata"]["labels"] = level("strict")["metadata"]["labels"].clone();
    api.post("/api/v1/namespaces", &made).await.failure(422, "Invalid");
    for (name, host) in [("a", true), ("b", true), ("c", false)] {
        let mut pod = pod(name, &json!({}));
        pod["spec"]["hostNetwork"] = host.into();
        api.post(PODS, &pod).await.ok(201);
    }
    let stricter = api.patch(NAMESPACE, MERGE, &level("baseline")).await;
    assert_eq!(stricter.code, 200);
    let warnings = stricter.warnings().join("\n");
    assert!(
        warnings
            .contains("existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level"),
        "{warnings}"
    );
    assert!(warnings.contains("a (and 1 other pod): host namespaces"), "{warnings}");
    assert_eq!(api.patch(NAMESPACE, MERGE, &level("privileged")).await.warnings(), Vec::<String>::new());
}
