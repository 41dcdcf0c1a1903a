//! kubectl's own commands, which send built-in kinds as protobuf, against what the same manifest makes as JSON.
//!
//! In: kubectl 1.37, the built program. Out: each command once over each wire; the server must make the same object of
//! both.

use std::path::Path;

use serde_json::{Value, json};
use xebec_tests::control::Control;
use xebec_tests::kubectl::Kubectl;
use xebec_tests::skip::skipped;

const TEST: &str = "api_protobuf";
const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Commands that make one object. `create -f -` of what they print with `--dry-run=client` goes as JSON.
const COMMANDS: &[&[&str]] = &[
    &["create", "namespace", "abc"],
    &["create", "configmap", "c", "--from-literal=key=value", "--from-literal=empty=", "--from-file=BINARY"],
    &["create", "secret", "generic", "s", "--from-literal=key=value", "--from-file=BINARY"],
    &["create", "secret", "docker-registry", "d", "--docker-username=u", "--docker-password=p"],
    &["create", "deployment", "web", "--image=nginx", "--port=80", "--replicas=0", "--", "sleep", "1"],
    &["create", "service", "clusterip", "web", "--tcp=80:8080", "--tcp=443"],
    &["create", "service", "clusterip", "headless", "--clusterip=None"],
    &["create", "service", "nodeport", "web", "--tcp=80", "--node-port=30123"],
    &["create", "service", "externalname", "web", "--external-name=example.com"],
    &["create", "serviceaccount", "robot"],
    &["create", "job", "once", "--image=busybox", "--", "true"],
    &["create", "cronjob", "often", "--image=busybox", "--schedule=*/5 * * * *", "--restart=Never"],
    &["create", "role", "reader", "--verb=get,list", "--resource=pods,deployments.apps", "--resource-name=a"],
    &["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:robot", "--user=jane"],
    &["create", "clusterrole", "reader", "--verb=get", "--non-resource-url=/metrics"],
    &["create", "clusterrolebinding", "reader", "--clusterrole=reader", "--group=all"],
    &["create", "quota", "q", "--hard=pods=2", "--scopes=BestEffort"],
    &["create", "priorityclass", "p", "--value=-7", "--preemption-policy=Never", "--description=low"],
    &["create", "poddisruptionbudget", "pdb", "--selector=app=web", "--min-available=50%"],
    &["create", "ingress", "i", "--class=c", "--rule=example.com/*=web:80,tls=cert", "--annotation=a=b"],
    &[
        "run",
        "lone",
        "--image=nginx",
        "--port=80",
        "--env=A=b",
        "--restart=Never",
        "--labels=app=lone",
        "--",
        "x",
    ],
];

struct Fixture {
    kubectl: Kubectl,
    control: Control,
}

async fn fixture() -> Option<Fixture> {
    let control = Control::start(TEST).await?;
    let Some(kubectl) = Kubectl::find(&control.kubeconfig(), control.folder()) else {
        skipped(TEST, "there is no kubectl: XEBEC_KUBECTL names none and PATH holds none");
        return None;
    };
    // Pods and tokens need it; a controller makes it.
    kubectl.ok(&["wait", "--for=create", "serviceaccount/default", "--timeout=30s"]);
    Some(Fixture { kubectl, control })
}

fn binary(folder: &Path) -> String {
    let path = folder.join("binary");
    std::fs::write(&path, [0, 0xff, 0xfe, b'\n']).expect("a file is written");
    format!("--from-file=bin={}", path.display())
}

/// Takes away what differs from one object to the next.
fn scrub(object: &mut Value) {
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
            metadata.remove(field);
        }
    }
    // Belongs to controllers; kubectl writes its empty parts over one wire only.
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    for addresses in ["/spec/clusterIP", "/spec/clusterIPs"] {
        if let Some(address) =
            object.pointer_mut(addresses).filter(|address| !address.to_string().contains("None"))
        {
            *address = "allocated".into();
        }
    }
    // The name of the token's volume is random.
    let random = object.pointer("/spec/volumes/0/name").and_then(Value::as_str).map(str::to_owned);
    let uid = ["batch.kubernetes.io/controller-uid", "controller-uid"]
        .iter()
        .find_map(|label| object["spec"]["selector"]["matchLabels"][label].as_str().map(str::to_owned));
    for text in [random, uid].into_iter().flatten() {
        *object = serde_json::from_str(&object.to_string().replace(&text, "random")).expect("still JSON");
    }
}

#[tokio::test]
async fn both_wires_make_the_same_object() {
    let Some(Fixture { kubectl, control }) = fixture().await else { return };
    let file = binary(control.folder());
    for command in COMMANDS {
        let command: Vec<&str> = command
            .iter()
            .map(|word| if *word == "--from-file=BINARY" { file.as_str() } else { *word })
            .collect();
        // Flags go before what the container is to run.
        let with = |flag: &'static str| {
            let mut command = command.clone();
            let end = command.iter().position(|word| *word == "--").unwrap_or(command.len());
            command.splice(end..end, [flag, "-o", "json"]);
            command
        };
        let manifest = kubectl.ok(&with("--dry-run=client"));
        let json = kubectl.ok_with(&["create", "-f", "-", "--dry-run=server", "-o", "json"], &manifest);
        let protobuf = kubectl.ok(&with("--dry-run=server"));
        let [json, protobuf] = [json, protobuf].map(|text| {
            let mut object: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
            scrub(&mut object);
            object
        });
        assert_eq!(protobuf, json, "kubectl {}", command.join(" "));
    }
}

#[tokio::test]
async fn objects_made_by_commands_are_there() {
    let Some(Fixture { kubectl, control }) = fixture().await else { return };
    assert_eq!(kubectl.ok(&["create", "namespace", "abc"]), "namespace/abc created");
    kubectl.ok(&["create", "configmap", "c", "--from-literal=a=b", &binary(control.folder())]);
    let map = kubectl.json(&["get", "configmap", "c"]);
    assert_eq!((&map["data"], &map["binaryData"]), (&json!({"a": "b"}), &json!({"bin": "AP/+Cg=="})));

    let created = kubectl.ok(&["create", "deployment", "web", "--image=nginx", "--port=80", "--replicas=2"]);
    assert_eq!(created, "deployment.apps/web created");
    let exposed = kubectl.ok(&["expose", "deployment", "web", "--port=80", "--type=NodePort"]);
    assert_eq!(exposed, "service/web exposed");
    let service = kubectl.json(&["get", "service", "web"]);
    assert_eq!(service["spec"]["selector"], json!({"app": "web"}));
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 80);
    assert!(service["spec"]["ports"][0]["nodePort"].as_i64().is_some_and(|port| port >= 30000));
    assert_eq!(kubectl.ok(&["scale", "deployment", "web", "--replicas=0"]), "deployment.apps/web scaled");
    assert_eq!(kubectl.json(&["get", "deployment", "web"])["spec"]["replicas"], 0);
    let autoscaled = kubectl.ok(&["autoscale", "deployment", "web", "--min=1", "--max=3", "--cpu=80%"]);
    assert_eq!(autoscaled, "horizontalpodautoscaler.autoscaling/web autoscaled");
    assert_eq!(kubectl.json(&["get", "hpa", "web"])["spec"]["maxReplicas"], 3);

    let token = kubectl.ok(&["create", "token", "default", "--duration=10m"]);
    assert_eq!(token.split('.').count(), 3, "{token}");
    assert_eq!(kubectl.ok(&["auth", "can-i", "create", "pods"]), "yes");
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}).to_string();
    kubectl.ok_with(&["create", "-f", "-"], &node);
    assert_eq!(kubectl.ok(&["cordon", "n"]), "node/n cordoned");
    assert_eq!(kubectl.ok(&["taint", "nodes", "n", "a=b:NoExecute"]), "node/n tainted");
    assert_eq!(kubectl.json(&["get", "node", "n"])["spec"]["unschedulable"], true);
}

#[tokio::test]
async fn bodies_that_are_none_are_refused() {
    let Some(Fixture { control, .. }) = fixture().await else { return };
    let client = control.client().await;
    let send = |media_type: &'static str, body: &'static [u8]| {
        let request = http::Request::post("/api/v1/namespaces").header("content-type", media_type);
        let request = request.body(body.to_vec()).expect("a request");
        let client = client.clone();
        async move {
            match client.request::<Value>(request).await {
                Err(kube::Error::Api(status)) => (status.code, status.message),
                other => panic!("{other:?}"),
            }
        }
    };
    let (code, message) = send(MEDIA_TYPE, b"{}").await;
    assert_eq!(code, 400);
    assert_eq!(message, "invalid protobuf: it does not begin as one");
    let (code, message) = send(MEDIA_TYPE, b"k8s\0\x0a\xff").await;
    assert_eq!((code, &*message), (400, "invalid protobuf: it is cut short"));
    let (code, message) = send("application/cbor", b"").await;
    assert_eq!(code, 415);
    assert!(
        message.ends_with("application/json, application/yaml, application/vnd.kubernetes.protobuf"),
        "{message}"
    );
}
