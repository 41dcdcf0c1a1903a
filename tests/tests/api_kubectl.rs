//! Real kubectl against a real control plane: what it prints and how it exits.
//!
//! In: kubectl 1.37, the built program. Out: one test per thing a user does. Expected texts are upstream's.

use serde_json::{Value, json};
use xebec_tests::control::Control;
use xebec_tests::kubectl::Kubectl;
use xebec_tests::skip::skipped;

/// A control plane of the test's own, and kubectl for it.
struct Fixture {
    kubectl: Kubectl,
    control: Control,
}

async fn fixture(test: &str) -> Option<Fixture> {
    let control = Control::start(test).await?;
    let Some(kubectl) = Kubectl::find(&control.kubeconfig(), control.folder()) else {
        skipped(test, "there is no kubectl: XEBEC_KUBECTL names none and PATH holds none");
        return None;
    };
    Some(Fixture { kubectl, control })
}

macro_rules! kubectl {
    ($test:literal) => {
        match fixture($test).await {
            Some(fixture) => fixture,
            None => return,
        }
    };
}

fn config_map(name: &str, value: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name, "labels": { "app": name } },
        "data": { "key": value },
    })
    .to_string()
}

fn deployment(replicas: i64) -> String {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [
                    { "name": "web", "image": "nginx", "ports": [{ "containerPort": 80 }] },
                    { "name": "log", "image": "busybox" },
                ] },
            },
        },
    })
    .to_string()
}

const APPLY: &[&str] = &["apply", "-f", "-"];
const CREATE: &[&str] = &["create", "-f", "-"];

#[tokio::test]
async fn apply_creates_then_leaves_alone_then_changes() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    assert_eq!(kubectl.ok_with(APPLY, &config_map("a", "1")), "configmap/a created");
    let before = kubectl.json(&["get", "configmap", "a"]);
    assert_eq!(kubectl.ok_with(APPLY, &config_map("a", "1")), "configmap/a unchanged");
    assert_eq!(
        kubectl.json(&["get", "configmap", "a"]),
        before,
        "an apply that changes nothing writes nothing"
    );
    assert_eq!(kubectl.ok_with(APPLY, &config_map("a", "2")), "configmap/a configured");
    assert_eq!(kubectl.ok(&["get", "configmap", "a", "-o", "jsonpath={.data.key}"]), "2");
    let after = kubectl.json(&["get", "configmap", "a"]);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_ne!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn create_by_flags_makes_what_it_says() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    // These send Protocol Buffers.
    assert_eq!(kubectl.ok(&["create", "namespace", "team"]), "namespace/team created");
    assert_eq!(
        kubectl.ok(&["create", "deployment", "web", "--image=nginx", "--replicas=2", "--port=80"]),
        "deployment.apps/web created"
    );
    let web = kubectl.json(&["get", "deployment", "web"]);
    let container = &web["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&web["spec"]["replicas"], &web["spec"]["paused"]), (&json!(2), &Value::Null));
    assert_eq!(
        container["ports"],
        json!([{ "containerPort": 80, "protocol": "TCP" }]),
        "defaults come as with JSON"
    );
    assert_eq!((&container["image"], &container["workingDir"]), (&json!("nginx"), &Value::Null));
    kubectl.ok(&["create", "configmap", "settings", "--from-literal=colour=blue"]);
    assert_eq!(kubectl.json(&["get", "configmap", "settings"])["data"], json!({ "colour": "blue" }));
    kubectl.ok(&["create", "secret", "generic", "keys", "--from-literal=token=s3cret"]);
    assert_eq!(kubectl.json(&["get", "secret", "keys"])["data"], json!({ "token": "czNjcmV0" }));
    kubectl.ok(&["create", "service", "nodeport", "door", "--tcp=80:8080"]);
    let ports = kubectl.json(&["get", "service", "door"])["spec"]["ports"].clone();
    assert_eq!((&ports[0]["port"], &ports[0]["targetPort"]), (&json!(80), &json!(8080)));
    kubectl.ok(&["create", "job", "once", "--image=busybox", "--", "true"]);
    kubectl.ok(&["create", "role", "reader", "--verb=get", "--resource=pods"]);
    kubectl.ok(&["create", "quota", "small", "--hard=cpu=1,pods=2"]);
    assert_eq!(
        kubectl.json(&["get", "resourcequota", "small"])["spec"]["hard"],
        json!({ "cpu": "1", "pods": "2" })
    );
    kubectl.ok(&["create", "poddisruptionbudget", "pdb", "--selector=app=web", "--min-available=50%"]);
    assert_eq!(kubectl.json(&["get", "pdb", "pdb"])["spec"]["minAvailable"], json!("50%"));
    assert_eq!(kubectl.ok(&["auth", "can-i", "create", "pods"]), "yes");
    assert_eq!(
        kubectl.fails(&["create", "namespace", "team"], ""),
        "Error from server (AlreadyExists): namespaces \"team\" already exists"
    );
}

#[tokio::test]
async fn get_prints_upstreams_columns() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    kubectl.ok_with(APPLY, &config_map("a", "1"));
    kubectl.ok_with(APPLY, &deployment(0));
    let header = |arguments: &[&str]| -> Vec<String> {
        let table = kubectl.ok(arguments);
        table.lines().next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(header(&["get", "configmaps"]), ["NAME", "DATA", "AGE"]);
    assert_eq!(header(&["get", "deployments"]), ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
    assert_eq!(
        header(&["get", "deployments", "-o", "wide"]),
        ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    );
    assert_eq!(header(&["get", "namespaces"]), ["NAME", "STATUS", "AGE"]);
    assert_eq!(header(&["get", "services"]), ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    assert_eq!(header(&["get", "configmaps", "-A"])[0], "NAMESPACE");
    let services = kubectl.ok(&["get", "service", "kubernetes", "--no-headers"]);
    let row: Vec<&str> = services.split_whitespace().take(5).collect();
    assert_eq!(row, ["kubernetes", "ClusterIP", "10.96.0.1", "<none>", "443/TCP"]);
}

#[tokio::test]
async fn objects_are_found_by_label_and_field_and_in_pages() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    kubectl.ok_with(
        CREATE,
        &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "many" } }).to_string(),
    );
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        kubectl.ok_with(&["apply", "-n", "many", "-f", "-"], &config_map(name, "1"));
    }
    let get = |more: &[&str]| {
        let mut found: Vec<String> = kubectl
            .ok(&[&["get", "configmaps", "-n", "many", "-o", "name"], more].concat())
            .lines()
            .filter_map(|line| line.strip_prefix("configmap/"))
            .filter(|name| *name != "kube-root-ca.crt")
            .map(str::to_owned)
            .collect();
        found.sort();
        found
    };
    assert_eq!(get(&["--chunk-size=2"]), names);
    assert_eq!(get(&["-l", "app in (a,b)"]), ["a", "b"]);
    assert_eq!(get(&["-l", "app,app!=a"]), ["b", "c", "d", "e"]);
    assert_eq!(get(&["--field-selector", "metadata.name=c"]), ["c"]);
    let none = kubectl.run(&["get", "configmaps", "-n", "many", "-l", "app=none"]);
    assert_eq!((none.ok, &*none.error), (true, "No resources found in many namespace."));
}

#[tokio::test]
async fn three_kinds_of_patch_change_what_they_say() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    kubectl.ok_with(APPLY, &deployment(0));
    let patch =
        |kind: &str, patch: &str| kubectl.ok(&["patch", "deployment", "web", "--type", kind, "-p", patch]);
    let images = || {
        kubectl.ok(&["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[*].image}"])
    };
    let strategic = r#"{"spec":{"template":{"spec":{"containers":[{"name":"log","image":"busybox:2"}]}}}}"#;
    assert_eq!(patch("strategic", strategic), "deployment.apps/web patched");
    assert_eq!(images(), "nginx busybox:2", "containers are merged by name");
    assert_eq!(patch("strategic", strategic), "deployment.apps/web patched (no change)");
    let json = r#"[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"nginx:3"}]"#;
    assert_eq!(patch("json", json), "deployment.apps/web patched");
    assert_eq!(images(), "nginx:3 busybox:2");
    let merge = r#"{"spec":{"template":{"spec":{"containers":[{"name":"only","image":"one"}]}}}}"#;
    assert_eq!(patch("merge", merge), "deployment.apps/web patched");
    assert_eq!(images(), "one", "a merge patch replaces lists");
    assert_eq!(
        kubectl.ok(&["set", "image", "deployment/web", "only=two"]),
        "deployment.apps/web image updated"
    );
    assert_eq!(images(), "two");
}

#[tokio::test]
async fn scale_changes_replicas_and_generation() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    kubectl.ok_with(APPLY, &deployment(0));
    let generation = || kubectl.json(&["get", "deployment", "web"])["metadata"]["generation"].as_i64();
    // The controller's annotation counts as well; the rollout's end is past it.
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=30s"]);
    let before = generation();
    assert_eq!(kubectl.ok(&["scale", "deployment", "web", "--replicas=3"]), "deployment.apps/web scaled");
    assert_eq!(kubectl.ok(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"]), "3");
    assert_eq!(generation(), before.map(|before| before + 1));
    let refused = kubectl.fails(&["scale", "deployment", "web", "--replicas=1", "--current-replicas=7"], "");
    assert_eq!(refused, "error: Expected replicas to be 7, was 3");
}

#[tokio::test]
async fn rollout_moves_between_replica_sets_and_back() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    let status = || kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=30s"]);
    let image = || {
        kubectl.ok(&["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"])
    };
    let sets = || {
        let list = kubectl.json(&["get", "replicasets"]);
        let of = |set: &Value| {
            let revision = &set["metadata"]["annotations"]["deployment.kubernetes.io/revision"];
            let image = &set["spec"]["template"]["spec"]["containers"][0]["image"];
            format!("{} {} {}", revision, image, set["spec"]["replicas"]).replace('"', "")
        };
        let mut sets: Vec<String> = list["items"].as_array().expect("a list").iter().map(of).collect();
        sets.sort();
        sets
    };
    kubectl.ok_with(CREATE, &deployment(0));
    assert!(status().ends_with("deployment \"web\" successfully rolled out"));
    assert_eq!(sets(), ["1 nginx 0"]);
    kubectl.ok(&["set", "image", "deployment/web", "web=nginx:2"]);
    assert!(status().ends_with("successfully rolled out"));
    assert_eq!(sets(), ["1 nginx 0", "2 nginx:2 0"]);
    let history = kubectl.ok(&["rollout", "history", "deployment/web"]);
    let lines: Vec<&str> = history.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        ["deployment.apps/web", "REVISION  CHANGE-CAUSE", "1         <none>", "2         <none>"]
    );

    assert_eq!(kubectl.ok(&["rollout", "undo", "deployment/web"]), "deployment.apps/web rolled back");
    assert!(status().ends_with("successfully rolled out"));
    assert_eq!(image(), "nginx");
    assert_eq!(sets(), ["2 nginx:2 0", "3 nginx 0"], "the old set is the new one");

    kubectl.ok(&["scale", "deployment", "web", "--replicas=2"]);
    kubectl.ok(&["wait", "--for=jsonpath={.status.replicas}=2", "deployment/web", "--timeout=30s"]);
    let pods = kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].status.phase}"]);
    assert_eq!(pods, "Pending Pending");
    assert_eq!(kubectl.ok(&["rollout", "pause", "deployment/web"]), "deployment.apps/web paused");
    assert_eq!(kubectl.ok(&["rollout", "resume", "deployment/web"]), "deployment.apps/web resumed");
    assert_eq!(kubectl.ok(&["rollout", "restart", "deployment/web"]), "deployment.apps/web restarted");
    let stuck = kubectl.fails(&["rollout", "status", "deployment/web", "--timeout=1s"], "");
    assert_eq!(stuck, "error: timed out waiting for the condition");
}

#[tokio::test]
async fn labels_and_annotations_come_and_go() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    kubectl.ok_with(CREATE, &config_map("a", "1"));
    assert_eq!(kubectl.ok(&["label", "configmap", "a", "tier=front"]), "configmap/a labeled");
    assert_eq!(
        kubectl.fails(&["label", "configmap", "a", "tier=back"], ""),
        "error: 'tier' already has a value (front), and --overwrite is false"
    );
    kubectl.ok(&["label", "configmap", "a", "tier=back", "--overwrite"]);
    assert_eq!(kubectl.ok(&["get", "configmaps", "-l", "tier=back", "-o", "name"]), "configmap/a");
    assert_eq!(kubectl.ok(&["label", "configmap", "a", "tier-"]), "configmap/a unlabeled");
    assert_eq!(kubectl.ok(&["annotate", "configmap", "a", "note=hi"]), "configmap/a annotated");
    assert_eq!(kubectl.ok(&["get", "configmap", "a", "-o", "jsonpath={.metadata.annotations.note}"]), "hi");
}

#[tokio::test]
async fn describe_and_yaml_say_what_there_is() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    kubectl.ok_with(APPLY, &deployment(1));
    kubectl.ok(&["wait", "--for=jsonpath={.status.replicas}=1", "deployment/web", "--timeout=30s"]);
    let yaml = kubectl.ok(&["get", "deployment", "web", "-o", "yaml"]);
    for line in
        ["apiVersion: apps/v1", "kind: Deployment", "  progressDeadlineSeconds: 600", "      maxSurge: 25%"]
    {
        assert!(yaml.lines().any(|found| found == line), "{line:?} is missing:\n{yaml}");
    }
    let has = |described: &str, wanted: &[&str]| {
        let lines: Vec<String> =
            described.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for line in wanted {
            assert!(lines.iter().any(|found| found.contains(line)), "{line:?} is missing:\n{described}");
        }
    };
    has(
        &kubectl.ok(&["describe", "deployment", "web"]),
        &[
            "Replicas: 1 desired | 1 updated | 1 total | 0 available | 1 unavailable",
            "StrategyType: RollingUpdate",
            "RollingUpdateStrategy: 25% max unavailable, 25% max surge",
            "Available False MinimumReplicasUnavailable",
            "(1/1 replicas created)",
        ],
    );
    let set = kubectl.ok(&["get", "replicasets", "-o", "name"]).replace("replicaset.apps/", "ReplicaSet/");
    has(
        &kubectl.ok(&["describe", "pods"]),
        &[
            "Status: Pending",
            "QoS Class: BestEffort",
            "Service Account: default",
            &format!("Controlled By: {set}"),
        ],
    );
    // Where there is no node the scheduler says so; its Event comes a moment after.
    kubectl.ok(&[
        "wait",
        "--for=jsonpath={.status.conditions[0].reason}=Unschedulable",
        "pods",
        "--all",
        "--timeout=30s",
    ]);
    has(&kubectl.ok(&["describe", "service", "kubernetes"]), &["IP: 10.96.0.1", "Port: https 443/TCP"]);
    has(&kubectl.ok(&["describe", "namespace", "default"]), &["Status: Active", "No resource quota."]);
}

#[tokio::test]
async fn get_watch_prints_every_change() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    kubectl.ok_with(CREATE, &config_map("a", "1"));
    let args = [
        "get",
        "configmap",
        "a",
        "--watch",
        "--output-watch-events",
        "-o",
        "jsonpath={.type} {.object.data.key}{\"\\n\"}",
    ];
    let mut watch = kubectl.start(&args);
    assert_eq!(watch.line(), "ADDED 1");
    kubectl.ok_with(APPLY, &config_map("a", "2"));
    assert_eq!(watch.line(), "MODIFIED 2");
    kubectl.ok(&["delete", "configmap", "a"]);
    assert_eq!(watch.line(), "DELETED 2");
}

#[tokio::test]
async fn delete_waits_and_finalizers_hold() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    kubectl.ok_with(APPLY, &config_map("a", "1"));
    let deleted = kubectl.ok(&["delete", "configmap", "a"]);
    assert!(deleted.starts_with("configmap \"a\" deleted"), "{deleted}");
    assert_eq!(kubectl.fails(&["get", "configmap", "a"], ""), not_found("a"));

    kubectl.ok_with(APPLY, &config_map("held", "1"));
    let finalizers = |list: &str| format!(r#"{{"metadata":{{"finalizers":{list}}}}}"#);
    let patch =
        |list: &str| kubectl.ok(&["patch", "configmap", "held", "--type=merge", "-p", &finalizers(list)]);
    patch(r#"["example.com/hold"]"#);
    kubectl.ok(&["delete", "configmap", "held", "--wait=false"]);
    assert!(kubectl.json(&["get", "configmap", "held"])["metadata"]["deletionTimestamp"].is_string());
    patch("null");
    assert_eq!(kubectl.fails(&["get", "configmap", "held"], ""), not_found("held"));

    for name in ["b", "c"] {
        kubectl.ok_with(APPLY, &config_map(name, "1"));
    }
    kubectl.ok(&["delete", "configmaps", "-l", "app in (b,c)"]);
    let left = kubectl.ok(&["get", "configmaps", "-l", "app", "-o", "name"]);
    assert_eq!(left, "");
}

fn not_found(name: &str) -> String {
    format!("Error from server (NotFound): configmaps \"{name}\" not found")
}

#[tokio::test]
async fn mistakes_get_upstreams_words() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    kubectl.ok_with(CREATE, &config_map("a", "1"));
    assert_eq!(
        kubectl.fails(CREATE, &config_map("a", "1")),
        "Error from server (AlreadyExists): error when creating \"STDIN\": configmaps \"a\" already exists"
    );
    let bad_name = kubectl.fails(CREATE, &config_map("Bad_Name", "1"));
    assert!(
        bad_name.starts_with(
            "The ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": \
             a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters"
        ),
        "{bad_name}"
    );
    let negative = kubectl.fails(CREATE, &deployment(-1));
    assert_eq!(
        negative,
        "The Deployment \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
    let missing = kubectl.fails(&["create", "-n", "nope", "-f", "-"], &config_map("a", "1"));
    assert_eq!(
        missing,
        "Error from server (NotFound): error when creating \"STDIN\": namespaces \"nope\" not found"
    );
    assert_eq!(
        kubectl.fails(&["get", "nonsense"], ""),
        "error: the server doesn't have a resource type \"nonsense\""
    );
    let wrong_type = deployment(1).replace("\"replicas\":1", "\"replicas\":\"many\"");
    let refused = kubectl.fails(CREATE, &wrong_type);
    assert!(refused.contains("Deployment") && refused.contains("replicas"), "{refused}");
}

#[tokio::test]
async fn manifests_that_are_none_are_refused() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    let unknown = deployment(1).replace("\"replicas\"", "\"nonsense\":1,\"replicas\"");
    assert_eq!(
        kubectl.fails(APPLY, &unknown),
        "Error from server (BadRequest): error when creating \"STDIN\": Deployment in version \"v1\" cannot be \
         handled as a Deployment: strict decoding error: unknown field \"spec.nonsense\""
    );
    let wrong_type = deployment(1).replace("\"replicas\":1", "\"replicas\":\"two\"");
    assert_eq!(
        kubectl.fails(APPLY, &wrong_type),
        "Error from server (BadRequest): error when creating \"STDIN\": Deployment in version \"v1\" cannot be \
         handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of \
         type int32"
    );
    for (manifest, complaint) in [
        ("{\"kind\":\"ConfigMap\"}", "apiVersion not set"),
        ("{\"apiVersion\":\"example.com/v1\",\"kind\":\"Foo\",\"metadata\":{\"name\":\"x\"}}", "error"),
        ("a: b: c", "mapping values are not allowed in this context"),
    ] {
        let refused = kubectl.fails(APPLY, manifest);
        assert!(refused.contains(complaint), "{manifest}: {refused}");
    }
    let warned = kubectl.run_with(&["apply", "--validate=warn", "-f", "-"], &unknown);
    assert_eq!((warned.ok, &*warned.error), (true, "Warning: unknown field \"spec.nonsense\""));
    let ignored = kubectl.run_with(&["apply", "--validate=ignore", "-f", "-"], &unknown);
    assert_eq!((ignored.ok, &*ignored.error), (true, ""));
}

#[tokio::test]
async fn writer_with_an_old_version_is_told() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    kubectl.ok_with(CREATE, &config_map("a", "1"));
    let mut stale = kubectl.json(&["get", "configmap", "a"]);
    kubectl.ok_with(APPLY, &config_map("a", "2"));
    stale["data"]["key"] = json!("3");
    assert_eq!(
        kubectl.fails(&["replace", "-f", "-"], &stale.to_string()),
        "Error from server (Conflict): error when replacing \"STDIN\": Operation cannot be fulfilled on \
         configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    assert_eq!(kubectl.ok(&["get", "configmap", "a", "-o", "jsonpath={.data.key}"]), "2");
}

#[tokio::test]
async fn wait_follows_a_watch() {
    let Fixture { kubectl, control: _control } = kubectl!("api_kubectl");
    kubectl.ok_with(CREATE, &config_map("a", "1"));
    let waiter = {
        let kubectl = kubectl.clone();
        std::thread::spawn(move || {
            kubectl.ok(&["wait", "--for=jsonpath={.data.key}=2", "configmap/a", "--timeout=30s"])
        })
    };
    kubectl.ok_with(APPLY, &config_map("a", "2"));
    assert_eq!(waiter.join().expect("kubectl wait succeeds"), "configmap/a condition met");
}

#[tokio::test]
async fn strangers_are_refused() {
    let Fixture { kubectl: _, control } = kubectl!("api_kubectl");
    let stranger = control.folder().join("stranger");
    std::fs::write(&stranger, "{}").expect("a file");
    let kubectl = Kubectl::find(&stranger, control.folder()).expect("kubectl was found before");
    let server = control.server();
    let base = ["--server", &server, "--insecure-skip-tls-verify", "--token=rubbish"];
    let said = kubectl.fails(&[&base[..], &["get", "configmaps"]].concat(), "");
    let end = "error: You must be logged in to the server (the server has asked for the client to provide credentials)";
    assert!(said.ends_with(end), "{said}");
    let unknown = kubectl.fails(&["--server", &server, "--token=rubbish", "get", "configmaps"], "");
    assert!(unknown.contains("certificate signed by unknown authority"), "{unknown}");

    // Without credentials one may only ask whether the server is well.
    let anonymous = control.anonymous();
    let ask = |path: &str| {
        let request = http::Request::get(path).body(Vec::new()).expect("a request");
        let anonymous = anonymous.clone();
        async move { anonymous.request_text(request).await }
    };
    assert_eq!(ask("/readyz").await.expect("health is public"), "ok");
    match ask("/api/v1/namespaces").await {
        Err(kube::Error::Api(status)) => assert_eq!((status.code, &*status.message), (401, "Unauthorized")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn service_account_token_opens_the_door() {
    let Fixture { kubectl, control } = kubectl!("api_kubectl");
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "robot" } });
    kubectl.ok_with(CREATE, &account.to_string());
    let token = kubectl.ok(&["create", "token", "robot"]);
    assert_eq!(token.split('.').count(), 3, "{token}");
    let config = control.folder().join("robot");
    std::fs::write(&config, "{}").expect("a file");
    let robot = Kubectl::find(&config, control.folder()).expect("kubectl was found before");
    let server = control.server();
    let base = ["--server", &server, "--insecure-skip-tls-verify", "--token", &token];
    let said = robot.run(&[&base[..], &["get", "--raw", "/api"]].concat());
    assert!(!said.error.contains("Unauthorized"), "{}", said.error);
    kubectl.ok(&["delete", "serviceaccount", "robot"]);
    let said = robot.fails(&[&base[..], &["get", "--raw", "/api"]].concat(), "");
    assert!(said.contains("Unauthorized"), "{said}");
}
