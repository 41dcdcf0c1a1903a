//! What kubectl asks and makes by itself: explain, api-resources, events, expose, run, tokens, rights, the proxy.
//!
//! In: kubectl 1.37, a control plane. Out: kubectl's words and exit codes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use xebec_tests::fixture::{APPLY, Api, CREATE};
use xebec_tests::kubectl::{shows, squeezed};

const TEST: &str = "api_commands";

#[tokio::test]
async fn fields_are_explained() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    shows(
        &kubectl.ok(&["explain", "deployment.spec.replicas"]),
        &[
            "GROUP: apps",
            "KIND: Deployment",
            "VERSION: v1",
            "FIELD: replicas <integer>",
            "DESCRIPTION:",
            "Number of desired pods…",
        ],
    );
    let pods = kubectl.ok(&["explain", "pods"]);
    shows(
        &pods,
        &[
            "KIND: Pod",
            "VERSION: v1",
            "DESCRIPTION:",
            "FIELDS:",
            "apiVersion <string>",
            "metadata <ObjectMeta>",
            "spec <PodSpec>",
        ],
    );
    assert!(!pods.lines().any(|line| line.starts_with("    containers\t")), "one level without --recursive");
    let all = kubectl.ok(&["explain", "pods", "--recursive"]);
    // By its depth a field shows what it belongs to.
    for line in [
        "  spec\t<PodSpec>",
        "    containers\t<[]Container> -required-",
        "      env\t<[]EnvVar>",
        "        valueFrom\t<EnvVarSource>",
        "          configMapKeyRef\t<ConfigMapKeySelector>",
        "            key\t<string> -required-",
        "    nodeSelector\t<map[string]string>",
        "  status\t<PodStatus>",
    ] {
        assert!(all.lines().any(|found| found == line), "{line:?}");
    }
    shows(
        &kubectl.ok(&["explain", "hpa", "--api-version=autoscaling/v1"]),
        &["GROUP: autoscaling", "VERSION: v1"],
    );
    assert!(
        kubectl
            .fails(&["explain", "pod.spec.nothing"], "")
            .ends_with("error: field \"nothing\" does not exist")
    );
    let unknown = kubectl.fails(&["explain", "nonsense"], "");
    assert_eq!(unknown, "the server doesn't have a resource type \"nonsense\"");
}

#[tokio::test]
async fn resources_versions_and_the_server_are_told() {
    let Some(Api { kubectl, control, .. }) = Api::start(TEST).await else { return };
    let all = squeezed(&kubectl.ok(&["api-resources"]));
    assert_eq!(all[0], "NAME SHORTNAMES APIVERSION NAMESPACED KIND");
    for line in [
        "configmaps cm v1 true ConfigMap",
        "nodes no v1 false Node",
        "pods po v1 true Pod",
        "services svc v1 true Service",
        "customresourcedefinitions crd,crds apiextensions.k8s.io/v1 false CustomResourceDefinition",
        "deployments deploy apps/v1 true Deployment",
        "cronjobs cj batch/v1 true CronJob",
        "endpointslices discovery.k8s.io/v1 true EndpointSlice",
        "events ev events.k8s.io/v1 true Event",
        "networkpolicies netpol networking.k8s.io/v1 true NetworkPolicy",
        "poddisruptionbudgets pdb policy/v1 true PodDisruptionBudget",
        "clusterroles rbac.authorization.k8s.io/v1 false ClusterRole",
        "priorityclasses pc scheduling.k8s.io/v1 false PriorityClass",
        "storageclasses sc storage.k8s.io/v1 false StorageClass",
    ] {
        assert!(all.iter().any(|found| found == line), "{line:?}");
    }
    let wide = squeezed(&kubectl.ok(&["api-resources", "--api-group=apps", "-o", "wide"]));
    assert!(
        wide.contains(
            &"deployments deploy apps/v1 true Deployment create,delete,deletecollection,get,list,patch,update,watch all"
                .to_owned()
        ),
        "{wide:?}"
    );
    assert_eq!(
        kubectl.ok(&["api-resources", "--categories=all", "-o", "name"]),
        "pods\nreplicationcontrollers\nservices\ndaemonsets.apps\ndeployments.apps\nreplicasets.apps\nstatefulsets.apps\n\
         horizontalpodautoscalers.autoscaling\ncronjobs.batch\njobs.batch"
    );
    let cluster_wide = kubectl.ok(&["api-resources", "--namespaced=false", "--verbs=list", "-o", "name"]);
    let has = |name: &str| cluster_wide.lines().any(|line| line == name);
    assert!(has("nodes") && has("clusterroles.rbac.authorization.k8s.io") && !has("pods"), "{cluster_wide}");
    let versions = kubectl.ok(&["api-versions"]);
    for version in
        ["v1", "apps/v1", "autoscaling/v1", "autoscaling/v2", "batch/v1", "networking.k8s.io/v1", "policy/v1"]
    {
        assert!(versions.lines().any(|line| line == version), "{version}: {versions}");
    }
    assert!(versions.lines().is_sorted(), "{versions}");
    let server = kubectl.json(&["version"])["serverVersion"].clone();
    assert_eq!((&server["major"], &server["minor"]), (&json!("1"), &json!("37")));
    let info = kubectl.ok(&["cluster-info"]);
    assert!(info.contains(&format!("Kubernetes control plane is running at {}", control.server())), "{info}");
    assert_eq!(kubectl.ok(&["get", "--raw", "/healthz"]), "ok");
    assert!(kubectl.ok(&["get", "--raw", "/readyz?verbose"]).ends_with("readyz check passed"));
    let deprecated = kubectl.run(&["get", "endpoints", "-A"]);
    assert_eq!(deprecated.code, Some(0));
    assert!(
        deprecated.error.starts_with(
            "Warning: v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
        ),
        "{deprecated:?}"
    );
}

#[tokio::test]
async fn events_are_told_by_object_and_type() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let nothing = kubectl.run(&["events"]);
    assert_eq!((nothing.code, &*nothing.error), (Some(0), "No events found in default namespace."));
    for (name, kind, object, age) in
        [("a.1", "Normal", "a", "2026-01-01T00:00:00Z"), ("b.1", "Warning", "b", "2026-01-02T00:00:00Z")]
    {
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": { "name": name, "namespace": "default" },
            "involvedObject": { "apiVersion": "v1", "kind": "Pod", "name": object, "namespace": "default" },
            "type": kind, "reason": "Tested", "message": format!("of {object}"), "source": { "component": "test" },
            "firstTimestamp": age, "lastTimestamp": age, "count": 2,
        });
        kubectl.ok_with(CREATE, &event.to_string());
    }
    let rows = |more: &[&str]| squeezed(&kubectl.ok(&[&["events", "--no-headers"], more].concat()));
    assert_eq!(squeezed(&kubectl.ok(&["events"]))[0], "LAST SEEN TYPE REASON OBJECT MESSAGE");
    let all = rows(&[]);
    assert!(
        all[0].ends_with("Normal Tested Pod/a of a") && all[1].ends_with("Warning Tested Pod/b of b"),
        "{all:?}"
    );
    assert!(all[0].contains("(x2 over "), "{all:?}");
    let of_b = rows(&["--for", "pod/b"]);
    assert!(of_b.len() == 1 && of_b[0].ends_with("Pod/b of b"), "{of_b:?}");
    let warnings = rows(&["--types=Warning"]);
    assert!(warnings.len() == 1 && warnings[0].ends_with("of b"), "{warnings:?}");
    assert_eq!(rows(&["-A"])[0].split(' ').next(), Some("default"));
    assert_eq!(kubectl.fails(&["events", "--types=Bad"], ""), "error: valid --types are Normal or Warning");
    let by_field = kubectl.ok(&[
        "get",
        "events",
        "--field-selector",
        "involvedObject.name=b,type=Warning",
        "-o",
        "name",
    ]);
    assert_eq!(by_field, "event/b.1");
    let newer = kubectl.ok(&[
        "get",
        "events.v1.events.k8s.io",
        "b.1",
        "-o",
        "jsonpath={.regarding.name} {.note} {.deprecatedCount}",
    ]);
    assert_eq!(newer, "b of b 2", "the same Event by its newer API");
}

#[tokio::test]
async fn workloads_are_exposed_and_pods_run() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    kubectl.ok(&["create", "deployment", "web", "--image=nginx", "--port=8080", "--replicas=0"]);
    assert_eq!(
        kubectl.ok(&["expose", "deployment", "web", "--port=80", "--target-port=8080"]),
        "service/web exposed"
    );
    let service = kubectl.json(&["get", "service", "web"])["spec"].clone();
    assert_eq!(service["selector"], json!({ "app": "web" }));
    assert_eq!(service["ports"], json!([{ "port": 80, "protocol": "TCP", "targetPort": 8080 }]));
    kubectl.ok(&["expose", "deployment", "web", "--name=door", "--type=NodePort"]);
    let door = kubectl.json(&["get", "service", "door"])["spec"].clone();
    assert_eq!(
        (&door["type"], &door["ports"][0]["port"]),
        (&json!("NodePort"), &json!(8080)),
        "the container's port"
    );
    assert!(
        door["ports"][0]["nodePort"].as_u64().is_some_and(|port| (30000..=32767).contains(&port)),
        "{door}"
    );
    assert_eq!(
        kubectl.fails(&["expose", "deployment", "web", "--port=80"], ""),
        "Error from server (AlreadyExists): services \"web\" already exists"
    );
    assert_eq!(
        kubectl.fails(&["expose", "deployment", "nope", "--port=80"], ""),
        "Error from server (NotFound): deployments.apps \"nope\" not found"
    );
    let run = [
        "run",
        "box",
        "--image=busybox",
        "--restart=Never",
        "--env=A=b",
        "--labels=app=box,tier=one",
        "--port=80",
        "--expose",
    ];
    assert_eq!(
        kubectl.ok(&[&run[..], &["--", "sleep", "1"]].concat()),
        "pod/box created\nservice/box created"
    );
    let pod = kubectl.json(&["get", "pod", "box"]);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        (&container["args"], &container["env"]),
        (&json!(["sleep", "1"]), &json!([{ "name": "A", "value": "b" }]))
    );
    assert_eq!(
        (&pod["spec"]["restartPolicy"], &pod["metadata"]["labels"]["tier"]),
        (&json!("Never"), &json!("one"))
    );
    assert_eq!(kubectl.json(&["get", "service", "box"])["spec"]["selector"]["app"], "box");
    assert_eq!(
        kubectl.fails(&["run", "box", "--image=busybox"], ""),
        "Error from server (AlreadyExists): pods \"box\" already exists"
    );
    let bad = kubectl.fails(&["run", "Box", "--image=busybox"], "");
    assert!(bad.starts_with("The Pod \"Box\" is invalid: "), "{bad}");
    let dry = kubectl.ok(&[
        "run",
        "late",
        "--image=busybox",
        "--dry-run=server",
        "-o",
        "jsonpath={.spec.containers[0].imagePullPolicy}",
    ]);
    assert_eq!(dry, "Always", "as the server would have it");
    assert_eq!(kubectl.run(&["get", "pod", "late"]).code, Some(1));
}

/// What a token claims.
fn claims(token: &str) -> Value {
    let middle = token.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(middle).expect("base64")).expect("JSON")
}

#[tokio::test]
async fn tokens_are_made_for_a_while_a_purpose_and_an_object() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    kubectl.ok(&["create", "serviceaccount", "robot"]);
    let token = claims(&kubectl.ok(&["create", "token", "robot", "--duration=20m", "--audience=vault"]));
    assert_eq!(
        (&token["sub"], &token["aud"]),
        (&json!("system:serviceaccount:default:robot"), &json!(["vault"]))
    );
    let life = token["exp"].as_i64().zip(token["iat"].as_i64()).map(|(end, begin)| end - begin);
    assert_eq!(life, Some(20 * 60));
    kubectl.ok(&["run", "box", "--image=busybox"]);
    let uid = kubectl.ok(&["get", "pod", "box", "-o", "jsonpath={.metadata.uid}"]);
    kubectl.ok(&["create", "secret", "generic", "tie"]);
    let bound = ["create", "token", "robot", "--bound-object-kind=Secret", "--bound-object-name=tie"];
    let bound = claims(&kubectl.ok(&bound));
    assert_eq!(bound["kubernetes.io"]["secret"]["name"], "tie");
    assert_eq!(bound["kubernetes.io"]["serviceaccount"]["name"], "robot");
    let wrong = ["create", "token", "robot", "--bound-object-kind=Pod", "--bound-object-name=box"];
    assert!(!uid.is_empty() && kubectl.run(&wrong).code == Some(1), "the pod runs as another account");
    assert_eq!(
        kubectl.fails(&["create", "token", "nope"], ""),
        "error: failed to create token: serviceaccounts \"nope\" not found"
    );
    let short = kubectl.fails(&["create", "token", "robot", "--duration=1m"], "");
    assert!(
        short.ends_with(
            "spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes"
        ),
        "{short}"
    );
}

#[tokio::test]
async fn rights_are_asked_for_and_listed() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let can = |arguments: &[&str]| {
        let said = kubectl.run(&[&["auth", "can-i"], arguments].concat());
        (said.code, said.out)
    };
    let (yes, no) = ((Some(0), "yes".to_owned()), (Some(1), "no".to_owned()));
    assert_eq!(can(&["create", "pods"]), yes);
    assert_eq!(can(&["*", "*"]), yes);
    assert_eq!(can(&["create", "pods", "--as=jane"]), no);
    assert_eq!(can(&["create", "pods", "--as=jane", "-q"]), (Some(1), String::new()));
    kubectl.ok(&[
        "create",
        "role",
        "reads",
        "--verb=get,list",
        "--resource=pods,pods/log",
        "--resource-name=box",
    ]);
    kubectl.ok(&["create", "rolebinding", "reads", "--role=reads", "--user=jane"]);
    assert_eq!(can(&["get", "pods/box", "--as=jane"]), yes);
    assert_eq!(can(&["get", "pods", "--subresource=log", "--as=jane"]), no, "only of the one pod");
    assert_eq!(can(&["get", "pods/box", "--as=jane", "-n", "kube-system"]), no);
    assert_eq!(can(&["get", "/version", "--as=jane"]), yes);
    assert_eq!(can(&["get", "/metrics", "--as=jane"]), no);
    shows(
        &kubectl.ok(&["auth", "can-i", "--list", "--as=jane"]),
        &[
            "Resources Non-Resource URLs Resource Names Verbs",
            "selfsubjectaccessreviews.authorization.k8s.io [] [] [create]",
        ],
    );
    let listed = squeezed(&kubectl.ok(&["auth", "can-i", "--list", "--as=jane", "--no-headers"]));
    for line in ["pods [] [box] [get list]", "pods/log [] [box] [get list]", "[/healthz] [] [get]"] {
        assert!(listed.iter().any(|found| found == line), "{line}: {listed:?}");
    }
    shows(&kubectl.ok(&["auth", "can-i", "--list"]), &["*.* [] [] [*]", "[*] [] [*]"]);
    shows(
        &kubectl.ok(&["auth", "whoami", "--as=jane", "--as-group=team"]),
        &["ATTRIBUTE VALUE", "Username jane", "Groups [team system:authenticated]"],
    );
    let role = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reads, namespace: default}
rules: [{apiGroups: [''], resources: [secrets], verbs: [get]}]
";
    let reconciled = kubectl.ok_with(&["auth", "reconcile", "-f", "-"], role);
    assert!(reconciled.contains("role.rbac.authorization.k8s.io/reads reconciled"), "{reconciled}");
    assert_eq!(can(&["get", "secrets", "--as=jane"]), yes, "what was missing is added");
    assert_eq!(can(&["get", "pods/box", "--as=jane"]), yes, "what was there stays");
}

/// One request without TLS and credentials; answers the status line and the rest.
fn ask(port: u16, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the proxy listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    write!(stream, "{request} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (status, rest) = answer.split_once("\r\n").expect("a status line");
    (status.to_owned(), rest.to_owned())
}

#[tokio::test]
async fn the_proxy_speaks_for_its_user() {
    let Some(Api { kubectl, control, .. }) = Api::start(TEST).await else { return };
    let mut proxy = kubectl.start(&["proxy", "--port=0"]);
    let line = proxy.line();
    let port = line.strip_prefix("Starting to serve on 127.0.0.1:").and_then(|port| port.parse().ok());
    let port: u16 = port.unwrap_or_else(|| panic!("{line}"));
    let (status, rest) = ask(port, "GET /api/v1/namespaces/default");
    assert!(status.contains("200") && rest.contains("\"kind\":\"Namespace\""), "{status} {rest}");
    let (status, rest) = ask(port, "GET /api/v1/namespaces/default/pods/nope");
    assert!(status.contains("404") && rest.contains("pods \\\"nope\\\" not found"), "{status} {rest}");
    let (status, _) = ask(port, "GET /api/v1/namespaces/default/pods/nope/exec");
    assert!(status.contains("403"), "kubectl lets no exec through: {status}");
    let socket = control.folder().join("proxy.sock");
    let mut by_socket = kubectl.start(&["proxy", "--unix-socket", socket.to_str().expect("text")]);
    assert!(by_socket.line().ends_with("proxy.sock"));
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("the socket");
    write!(stream, "GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.contains("200 OK") && answer.contains("\"minor\":\"37\""), "{answer}");
}

#[tokio::test]
async fn what_is_not_there_fails_clearly() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    for what in ["nodes", "pods"] {
        assert_eq!(kubectl.fails(&["top", what], ""), "error: Metrics API not available");
    }
    kubectl.ok(&["create", "deployment", "web", "--image=nginx", "--replicas=0"]);
    let scaled = kubectl.run(&["autoscale", "deployment", "web", "--max=3", "--cpu=80%"]);
    assert_eq!((scaled.code, &*scaled.out), (Some(0), "horizontalpodautoscaler.autoscaling/web autoscaled"));
    assert!(
        scaled
            .error
            .starts_with("Warning: HorizontalPodAutoscaler objects are stored but nothing acts on them"),
        "{scaled:?}"
    );
    let row = squeezed(&kubectl.ok(&["get", "hpa", "web", "--no-headers"])).join("");
    assert!(row.starts_with("web Deployment/web cpu: <unknown>/80% 1 3 0 "), "{row}");
    kubectl.ok_with(APPLY, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}");
    for (arguments, said) in [
        (&["get", "pods", "nope"][..], "Error from server (NotFound): pods \"nope\" not found"),
        (&["get", "nonsense"], "error: the server doesn't have a resource type \"nonsense\""),
        (
            &["get", "pods.v9.example.com"],
            "error: the server doesn't have a resource type \"pods\" in group \"v9.example.com\"",
        ),
        (
            &["scale", "configmap/a", "--replicas=1"],
            "Error from server (NotFound): the server could not find the requested resource",
        ),
        (
            &["logs", "nope"],
            "error: error from server (NotFound): pods \"nope\" not found in namespace \"default\"",
        ),
        (&["exec", "nope", "--", "true"], "Error from server (NotFound): pods \"nope\" not found"),
    ] {
        assert_eq!(kubectl.fails(arguments, ""), said, "{arguments:?}");
    }
}
