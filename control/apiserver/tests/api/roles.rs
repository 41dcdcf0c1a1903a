//! Who may what: default roles, bindings, escalation, reviews, impersonation, requests without credentials.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Api, MAPS, PODS, names};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources})
}

fn role(name: &str, rules: &[Value]) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

fn bind(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    })
}

/// Makes a role of the cluster and binds a user to it.
async fn grant(api: &Api, user: &str, rules: &[Value]) {
    api.post(&format!("{RBAC}/clusterroles"), &role(user, rules)).await.ok(201);
    let binding = bind(user, "ClusterRole", user, user);
    api.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.ok(201);
}

#[tokio::test]
async fn every_cluster_has_upstreams_roles() {
    let api = Api::new().await;
    let roles = names(&api.get(&format!("{RBAC}/clusterroles")).await.ok(200));
    for name in
        ["admin", "cluster-admin", "edit", "view", "system:discovery", "system:node", "system:basic-user"]
    {
        assert!(roles.iter().any(|role| role == name), "{name}");
    }
    let view = api.get(&format!("{RBAC}/clusterroles/view")).await.ok(200);
    let admin = api.get(&format!("{RBAC}/clusterroles/admin")).await.ok(200);
    let count = |role: &Value| role["rules"].as_array().map_or(0, Vec::len);
    assert!(count(&view) > 5 && count(&admin) > count(&view) + 5, "{admin}");
    assert_eq!(view["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
    // A second start changes nothing, and puts back what was taken away.
    let before = api.get(&format!("{RBAC}/clusterroles")).await.ok(200);
    let again = Api::over(api.store.clone()).await;
    assert_eq!(again.get(&format!("{RBAC}/clusterroles")).await.ok(200)["items"], before["items"]);
    let path = format!("{RBAC}/clusterroles/system:discovery");
    again.patch(&path, "application/merge-patch+json", &json!({"rules": []})).await.ok(200);
    let third = Api::over(api.store.clone()).await;
    assert_eq!(count(&third.get(&path).await.ok(200)), 1);
}

#[tokio::test]
async fn who_is_not_bound_may_nothing() {
    let api = Api::new().await;
    let jane = api.by("jane", &[]);
    let refused = jane.get(PODS).await.failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    jane.get("/apis").await.ok(200);
    grant(&api, "jane", &[rule(&["list"], "", &["pods"])]).await;
    jane.get(PODS).await.ok(200);
    jane.get("/api/v1/pods").await.ok(200);
    jane.get(&format!("{PODS}/a")).await.failure(403, "Forbidden");
    api.delete(&format!("{RBAC}/clusterrolebindings/jane"), &Value::Null).await.ok(200);
    jane.get(PODS).await.failure(403, "Forbidden");
}

#[tokio::test]
async fn a_binding_in_a_namespace_ends_there() {
    let api = Api::new().await;
    let jane = api.by("jane", &[]);
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    api.post(&bindings, &bind("edits", "ClusterRole", "edit", "jane")).await.ok(201);
    jane.post(MAPS, &json!({"metadata": {"name": "a"}})).await.ok(201);
    jane.get("/api/v1/configmaps").await.failure(403, "Forbidden");
    jane.get("/api/v1/namespaces/kube-system/configmaps").await.failure(403, "Forbidden");
    jane.get("/api/v1/namespaces/default").await.ok(200);
    jane.get("/api/v1/namespaces").await.failure(403, "Forbidden");
    // `edit` does not hand out roles.
    jane.post(&bindings, &bind("more", "ClusterRole", "edit", "joe")).await.failure(403, "Forbidden");
}

#[tokio::test]
async fn nobody_hands_out_what_they_do_not_have() {
    let api = Api::new().await;
    let jane = api.by("jane", &[]);
    grant(
        &api,
        "jane",
        &[
            rule(&["create", "update", "patch", "get"], "rbac.authorization.k8s.io", &["*"]),
            rule(&["get", "list"], "", &["pods"]),
        ],
    )
    .await;
    let roles = format!("{RBAC}/clusterroles");
    jane.post(&roles, &role("same", &[rule(&["get"], "", &["pods"])])).await.ok(201);
    let more = role("more", &[rule(&["get", "delete"], "", &["pods"]), rule(&["get"], "", &["secrets"])]);
    let refused = jane.post(&roles, &more).await.failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "clusterroles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) \
         is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], \
         Verbs:[\"delete\"]}\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"
    );
    // Nor by growing what is there already, through any kind of write.
    let grown = json!({"rules": [rule(&["*"], "*", &["*"])]});
    let path = format!("{roles}/same");
    jane.patch(&path, "application/merge-patch+json", &grown).await.failure(403, "Forbidden");
    let mut whole = api.get(&path).await.ok(200);
    whole["rules"] = grown["rules"].clone();
    jane.put(&path, &whole).await.failure(403, "Forbidden");
    // Nor by binding, nor by aggregation.
    let bindings = format!("{RBAC}/clusterrolebindings");
    jane.post(&bindings, &bind("me", "ClusterRole", "cluster-admin", "jane")).await.failure(403, "Forbidden");
    jane.post(&bindings, &bind("me", "ClusterRole", "nowhere", "jane")).await.failure(404, "NotFound");
    jane.post(&bindings, &bind("same", "ClusterRole", "same", "joe")).await.ok(201);
    let mut aggregates = role("sum", &[]);
    aggregates["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    let refused = jane.post(&roles, &aggregates).await.failure(403, "Forbidden");
    let told = refused["message"].as_str().expect("a message").to_owned();
    assert!(told.ends_with("must have cluster-admin privileges to use the aggregationRule"), "{told}");
    // Who may escalate and bind may do both.
    grant(&api, "root", &[rule(&["*"], "rbac.authorization.k8s.io", &["*"])]).await;
    let root = api.by("root", &[]);
    root.post(&roles, &more).await.ok(201);
    root.post(&bindings, &bind("all", "ClusterRole", "cluster-admin", "jane")).await.ok(201);
    jane.get("/api/v1/secrets").await.ok(200);
}

#[tokio::test]
async fn who_may_only_change_makes_nothing() {
    let api = Api::new().await;
    let changes = ["get", "update", "patch"];
    let (leases, lease) = (
        "/apis/coordination.k8s.io/v1/namespaces/default/leases",
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"}, "spec": {},
        }),
    );
    let roles = format!("{RBAC}/namespaces/default/roles");
    let mut empty = role("a", &[]);
    (empty["apiVersion"], empty["kind"]) = ("rbac.authorization.k8s.io/v1".into(), "Role".into());
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    grant(
        &api,
        "jane",
        &[
            rule(&changes, "", &["configmaps"]),
            rule(&changes, "coordination.k8s.io", &["leases"]),
            rule(&changes, "rbac.authorization.k8s.io", &["roles"]),
        ],
    )
    .await;
    let jane = api.by("jane", &[]);
    const APPLY: &str = "application/apply-patch+yaml";
    for (list, object) in [(MAPS, &map), (leases, &lease), (&roles, &empty)] {
        let path = format!("{list}/a");
        let applied = jane.patch(&format!("{path}?fieldManager=m"), APPLY, object).await;
        let told = applied.failure(403, "Forbidden")["message"].as_str().expect("a message").to_owned();
        assert!(told.contains("cannot create resource"), "{told}");
        let code = jane.put(&path, object).await.code;
        assert!(matches!(code, 403 | 404), "{path}: {code}");
        api.get(&path).await.failure(404, "NotFound");
        // What is there may be changed, and with the right to make it so may the rest.
        api.post(list, object).await.ok(201);
        jane.patch(&format!("{path}?fieldManager=m"), APPLY, object).await.ok(200);
        let whole = api.get(&path).await.ok(200);
        jane.put(&path, &whole).await.ok(200);
    }
    grant(&api, "joe", &[rule(&["patch", "create"], "", &["configmaps"])]).await;
    let mut other = map.clone();
    other["metadata"]["name"] = "b".into();
    api.by("joe", &[]).patch(&format!("{MAPS}/b?fieldManager=m"), APPLY, &other).await.ok(201);
}

#[tokio::test]
async fn reviews_tell_who_may_and_why() {
    let api = Api::new().await;
    grant(&api, "jane", &[rule(&["get"], "apps", &["deployments", "deployments/scale"])]).await;
    let ask = |user: &str, verb: &str, resource: &str| {
        json!({"spec": {"user": user, "resourceAttributes": {
            "verb": verb, "group": "apps", "resource": resource, "namespace": "default",
        }}})
    };
    let path = format!("{REVIEWS}/subjectaccessreviews");
    let yes = api.post(&path, &ask("jane", "get", "deployments")).await.ok(201);
    assert_eq!(
        yes["status"],
        json!({
            "allowed": true,
            "reason": "RBAC: allowed by ClusterRoleBinding \"jane\" of ClusterRole \"jane\" to User \"jane\"",
        })
    );
    for (user, verb, resource) in [
        ("jane", "delete", "deployments"),
        ("joe", "get", "deployments"),
        ("jane", "frobnicate", "deployments"),
    ] {
        let no = api.post(&path, &ask(user, verb, resource)).await.ok(201);
        assert_eq!(no["status"], json!({"allowed": false}), "{user} {verb} {resource}");
    }
    let jane = api.by("jane", &[]);
    let own =
        json!({"spec": {"resourceAttributes": {"verb": "get", "group": "apps", "resource": "deployments"}}});
    let answer = jane.post(&format!("{REVIEWS}/selfsubjectaccessreviews"), &own).await.ok(201);
    assert_eq!(answer["status"]["allowed"], true);
    jane.post(&path, &ask("joe", "get", "deployments")).await.failure(403, "Forbidden");
    let rules = json!({"spec": {"namespace": "default"}});
    let answer = jane.post(&format!("{REVIEWS}/selfsubjectrulesreviews"), &rules).await.ok(201);
    let told = answer["status"]["resourceRules"].as_array().expect("rules").clone();
    assert!(told.contains(&rule(&["get"], "apps", &["deployments", "deployments/scale"])), "{told:?}");
    assert!(!answer["status"]["nonResourceRules"].as_array().expect("rules").is_empty());
    let local = format!("{REVIEWS}/namespaces/default/localsubjectaccessreviews");
    let mut elsewhere = ask("jane", "get", "deployments");
    assert_eq!(api.post(&local, &elsewhere).await.ok(201)["status"]["allowed"], true);
    elsewhere["spec"]["resourceAttributes"]["namespace"] = "kube-system".into();
    api.post(&local, &elsewhere).await.failure(422, "Invalid");
    let both = json!({"spec": {"user": "a", "resourceAttributes": {}, "nonResourceAttributes": {}}});
    api.post(&path, &both).await.failure(422, "Invalid");
}

#[tokio::test]
async fn impersonation_needs_the_right_to_each_part() {
    let api = Api::new().await;
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let as_jane =
        [("impersonate-user", "jane"), ("impersonate-group", "people"), ("content-type", "application/json")];
    let answer = api.request(Method::POST, who, &as_jane, b"{}".to_vec()).await.ok(201);
    assert_eq!(
        answer["status"]["userInfo"],
        json!({"username": "jane", "groups": ["people", "system:authenticated"]})
    );
    api.request(Method::GET, PODS, &as_jane, Vec::new()).await.failure(403, "Forbidden");
    let joe = api.by("joe", &[]);
    let refused = joe.request(Method::POST, who, &as_jane, b"{}".to_vec()).await.failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "users \"jane\" is forbidden: User \"joe\" cannot impersonate resource \"users\" in API group \"\" at the cluster \
         scope"
    );
    grant(&api, "joe", &[rule(&["impersonate"], "", &["users"])]).await;
    let only = [("impersonate-user", "jane"), ("content-type", "application/json")];
    joe.request(Method::POST, who, &only, b"{}".to_vec()).await.ok(201);
    joe.request(Method::POST, who, &as_jane, b"{}".to_vec()).await.failure(403, "Forbidden");
    let account = [("impersonate-user", "system:serviceaccount:default:default")];
    joe.request(Method::GET, PODS, &account, Vec::new()).await.failure(403, "Forbidden");
}

#[tokio::test]
async fn who_may_only_look_opens_no_stream() {
    let api = Api::new().await;
    let exec = format!("{PODS}/a/exec?command=sh");
    let jane = api.by("jane", &[]);
    grant(&api, "jane", &[rule(&["get"], "", &["pods", "pods/exec"])]).await;
    let refused = jane.get(&exec).await.failure(403, "Forbidden");
    let told = refused["message"].as_str().expect("a message").to_owned();
    assert!(told.contains("cannot create resource \"pods/exec\""), "{told}");
    let joe = api.by("joe", &[]);
    grant(&api, "joe", &[rule(&["get", "create"], "", &["pods/exec"])]).await;
    assert_ne!(joe.get(&exec).await.code, 403);
}

#[tokio::test]
async fn without_credentials_only_health_is_told() {
    let api = Api::new().await;
    let nobody = api.by_nobody();
    for path in ["/healthz", "/livez", "/readyz", "/readyz?verbose"] {
        assert_eq!(nobody.get(path).await.code, 200, "{path}");
    }
    for path in
        ["/", "/version", "/api", "/apis", "/openapi/v2", "/metrics", PODS, "/healthz/../api", "/livez/ping"]
    {
        nobody.get(path).await.failure(401, "Unauthorized");
    }
    let bad = [("authorization", "Bearer not-a-token")];
    nobody.request(Method::GET, "/healthz", &bad, Vec::new()).await.failure(401, "Unauthorized");
}
