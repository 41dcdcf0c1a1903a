//! Custom resources, Helm, roles and certificates as their users meet them: real kubectl and Helm, a real control plane.
//!
//! In: kubectl 1.37, Helm 4, the built program. Out: what they print. Expected texts are upstream's.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use xebec_tests::control::Control;
use xebec_tests::kubectl::Kubectl;
use xebec_tests::skip::skipped;

const TEST: &str = "api_extension";
/// Of `CN=system:node:n1, O=system:nodes`.
const REQUEST: &str = include_str!("../../control/apiserver/tests/api/request.pem");
const DEFINITION: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: ships, singular: ship, kind: Ship, shortNames: [sh]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.masts, statusReplicasPath: .status.masts}}
    additionalPrinterColumns:
    - {name: Flag, type: string, jsonPath: .spec.flag}
    - {name: Masts, type: integer, jsonPath: .spec.masts}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [flag]
            properties:
              flag: {type: string, description: Whose ship it is., enum: [red, blue]}
              masts: {type: integer, default: 2, minimum: 1}
";

async fn fixture() -> Option<(Kubectl, Control)> {
    let control = Control::start(TEST).await?;
    let Some(kubectl) = Kubectl::find(&control.kubeconfig(), control.folder()) else {
        skipped(TEST, "there is no kubectl: XEBEC_KUBECTL names none and PATH holds none");
        return None;
    };
    Some((kubectl, control))
}

fn ship(spec: &Value) -> String {
    json!({"apiVersion": "example.com/v1", "kind": "Ship", "metadata": {"name": "a"}, "spec": spec})
        .to_string()
}

#[tokio::test]
async fn custom_resources_are_resources() {
    let Some((kubectl, _control)) = fixture().await else { return };
    let created = kubectl.ok_with(&["apply", "-f", "-"], DEFINITION);
    assert_eq!(created, "customresourcedefinition.apiextensions.k8s.io/ships.example.com created");
    let waited =
        kubectl.ok(&["wait", "--for=condition=established", "crd/ships.example.com", "--timeout=30s"]);
    assert_eq!(waited, "customresourcedefinition.apiextensions.k8s.io/ships.example.com condition met");
    let red = ship(&json!({"flag": "red"}));
    assert_eq!(kubectl.ok_with(&["apply", "-f", "-"], &red), "ship.example.com/a created");
    assert_eq!(kubectl.ok_with(&["apply", "-f", "-"], &red), "ship.example.com/a unchanged");
    assert_eq!(kubectl.ok(&["get", "sh"]), "NAME   FLAG   MASTS\na      red    2");
    let explained = kubectl.ok(&["explain", "ships.spec.flag"]);
    for part in ["GROUP:      example.com", "KIND:       Ship", "FIELD: flag <string>", "Whose ship it is."] {
        assert!(explained.contains(part), "{explained}");
    }
    assert_eq!(kubectl.ok(&["scale", "ship/a", "--replicas=4"]), "ship.example.com/a scaled");
    assert_eq!(kubectl.ok(&["get", "ship", "a", "-o", "jsonpath={.spec.masts}"]), "4");
    let green = ship(&json!({"flag": "green"}));
    let refused = kubectl.fails(&["apply", "-f", "-"], &green);
    assert!(
        refused.contains("spec.flag: Unsupported value: \"green\": supported values: \"red\", \"blue\""),
        "{refused}"
    );
    let unknown = ship(&json!({"flag": "blue", "oars": 3}));
    assert!(kubectl.fails(&["apply", "-f", "-"], &unknown).contains("unknown field \"spec.oars\""));
    let warned = kubectl.run_with(&["apply", "--validate=warn", "-f", "-"], &unknown);
    assert_eq!(
        (&*warned.out, &*warned.error),
        ("ship.example.com/a configured", "Warning: unknown field \"spec.oars\"")
    );
    let deleted = kubectl.ok(&["delete", "crd", "ships.example.com"]);
    assert!(deleted.contains("\"ships.example.com\" deleted"), "{deleted}");
    assert!(!kubectl.run(&["get", "ships"]).ok);
}

/// Helm is delivered beside kubectl.
fn helm() -> Option<PathBuf> {
    let beside = std::env::var_os("XEBEC_KUBECTL").map(|kubectl| Path::new(&kubectl).with_file_name("helm"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("helm"));
    beside.into_iter().chain(on_path).find(|program| program.exists())
}

fn write_chart(folder: &Path) {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    write("Chart.yaml", "apiVersion: v2\nname: fleet\nversion: 0.1.0\n");
    write("values.yaml", "flag: red\n");
    write("crds/ships.yaml", DEFINITION);
    write(
        "templates/ship.yaml",
        "apiVersion: example.com/v1\nkind: Ship\nmetadata: {name: \"{{ .Release.Name }}\"}\n\
         spec: {flag: {{ .Values.flag }}}\n",
    );
    write(
        "templates/hook.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: \"{{ .Release.Name }}-hook\"\n  annotations:\n    \
         helm.sh/hook: pre-install,pre-upgrade\n    helm.sh/hook-delete-policy: before-hook-creation\n\
         data: {flag: \"{{ .Values.flag }}\"}\n",
    );
    // A test that nobody runs: who judges it plays the kubelet.
    write(
        "templates/test.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: \"{{ .Release.Name }}-test\"\n  annotations: {helm.sh/hook: test}\n\
         spec: {restartPolicy: Never, containers: [{name: t, image: busybox, command: [\"true\"]}]}\n",
    );
    write(
        "templates/end.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: \"{{ .Release.Name }}-end\"\n  annotations: \
         {helm.sh/hook: post-delete}\ndata: {flag: \"{{ .Values.flag }}\"}\n",
    );
}

#[tokio::test]
async fn charts_with_definitions_and_hooks_come_and_go() {
    let Some((kubectl, control)) = fixture().await else { return };
    let Some(program) = helm() else { return skipped(TEST, "there is no helm beside kubectl or in PATH") };
    let chart = control.folder().join("chart");
    write_chart(&chart);
    let chart = chart.to_str().expect("text").to_owned();
    let run = |arguments: &[&str]| {
        let output = Command::new(&program)
            .args(arguments)
            .env("KUBECONFIG", control.kubeconfig())
            .env("HOME", control.folder())
            .output()
            .expect("helm starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let helm = |arguments: &[&str]| {
        let (code, out, error) = run(arguments);
        assert_eq!(code, Some(0), "helm {}: {error}", arguments.join(" "));
        out
    };
    let flag = || kubectl.ok(&["get", "ship", "one", "-o", "jsonpath={.spec.flag}"]);
    let hook = || kubectl.ok(&["get", "configmap", "one-hook", "-o", "jsonpath={.data.flag}"]);
    helm(&["install", "one", &chart, "--wait", "--timeout", "60s"]);
    assert_eq!((flag(), hook()), ("red".into(), "red".into()));
    assert!(helm(&["status", "one"]).contains("STATUS: deployed"));
    assert_eq!(kubectl.run(&["get", "pod", "one-test"]).code, Some(1), "tests are run when asked for");
    for (phase, code) in [("Succeeded", 0), ("Failed", 1)] {
        let judge = {
            let kubectl = kubectl.clone();
            std::thread::spawn(move || {
                let waits = ["wait", "--for=create", "pod/one-test", "--timeout=60s"];
                kubectl.ok(&waits);
                let status = format!("{{\"status\":{{\"phase\":\"{phase}\"}}}}");
                kubectl.ok(&[
                    "patch",
                    "pod",
                    "one-test",
                    "--subresource=status",
                    "--type=merge",
                    "-p",
                    &status,
                ]);
            })
        };
        let (ended, out, error) = run(&["test", "one", "--timeout", "60s"]);
        judge.join().expect("judged");
        assert_eq!(ended, Some(code), "{out} {error}");
        assert!(out.contains(&format!("Phase:          {phase}")), "{out}");
        kubectl.ok(&["delete", "pod", "one-test", "--ignore-not-found"]);
    }
    helm(&["upgrade", "one", &chart, "--set", "flag=blue", "--wait", "--timeout", "60s"]);
    assert_eq!((flag(), hook()), ("blue".into(), "blue".into()));
    helm(&["rollback", "one", "1", "--wait", "--timeout", "60s"]);
    assert_eq!(flag(), "red");
    let history = helm(&["history", "one"]);
    assert!(history.lines().count() == 4 && history.contains("Rollback to 1"), "{history}");
    let bad = ["upgrade", "one", &chart, "--set", "flag=green", "--wait", "--timeout", "60s"];
    let (code, _, error) = run(&bad);
    assert_eq!(code, Some(1));
    assert!(error.contains("spec.flag: Unsupported value: \"green\""), "{error}");
    assert_eq!(flag(), "red", "what is refused changes nothing");
    assert!(helm(&["status", "one"]).contains("STATUS: failed"));
    helm(&["rollback", "one", "3", "--wait", "--timeout", "60s"]);
    assert!(helm(&["status", "one"]).contains("STATUS: deployed"));
    helm(&["uninstall", "one", "--wait", "--timeout", "60s"]);
    assert_eq!(kubectl.run(&["get", "ships"]).error, "No resources found in default namespace.");
    assert_eq!(
        kubectl.ok(&["get", "configmap", "one-end", "-o", "jsonpath={.data.flag}"]),
        "red",
        "after the end"
    );
    assert!(kubectl.ok(&["get", "crd", "-o", "name"]).contains("ships.example.com"), "definitions stay");
}

#[tokio::test]
async fn roles_say_who_may() {
    let Some((kubectl, _control)) = fixture().await else { return };
    kubectl.ok(&["create", "role", "reads", "--verb=get,list", "--resource=pods"]);
    kubectl.ok(&["create", "rolebinding", "reads", "--role=reads", "--user=jane"]);
    assert_eq!(kubectl.ok(&["auth", "can-i", "list", "pods", "--as=jane"]), "yes");
    assert_eq!(kubectl.run(&["auth", "can-i", "delete", "pods", "--as=jane"]).out, "no");
    assert_eq!(
        kubectl.fails(&["get", "secrets", "--as=jane"], ""),
        "Error from server (Forbidden): secrets is forbidden: User \"jane\" cannot list resource \"secrets\" in API group \
         \"\" in the namespace \"default\""
    );
    let who = kubectl.ok(&["auth", "whoami", "--as=jane", "--as-group=team", "-o", "json"]);
    let who: Value = serde_json::from_str(&who).expect("JSON");
    assert_eq!(
        who["status"]["userInfo"],
        json!({"username": "jane", "groups": ["team", "system:authenticated"]})
    );
    // An administrator of a namespace hands out what it has, and no more.
    kubectl.ok(&["create", "rolebinding", "admins", "--clusterrole=admin", "--user=joe"]);
    kubectl.ok(&["create", "rolebinding", "edits", "--clusterrole=edit", "--user=jane", "--as=joe"]);
    let refused = kubectl.fails(
        &["create", "rolebinding", "all", "--clusterrole=cluster-admin", "--user=joe", "--as=joe"],
        "",
    );
    assert!(refused.contains("is attempting to grant RBAC permissions not currently held"), "{refused}");
}

#[tokio::test]
async fn a_machine_with_a_token_becomes_a_node() {
    let Some((kubectl, control)) = fixture().await else { return };
    let token = [
        "create",
        "secret",
        "generic",
        "bootstrap-token-abcdef",
        "--namespace=kube-system",
        "--type=bootstrap.kubernetes.io/token",
        "--from-literal=token-id=abcdef",
        "--from-literal=token-secret=0123456789abcdef",
        "--from-literal=usage-bootstrap-authentication=true",
    ];
    kubectl.ok(&token);
    let config = control.folder().join("machine");
    std::fs::write(&config, "{}").expect("a file");
    let machine = Kubectl::find(&config, control.folder()).expect("kubectl was found before");
    let server = control.server();
    let base = ["--server", &server, "--insecure-skip-tls-verify", "--token", "abcdef.0123456789abcdef"];
    let request = |name: &str, usages: &[&str]| {
        json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
            "spec": {
                "request": STANDARD.encode(REQUEST), "usages": usages,
                "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            },
        })
        .to_string()
    };
    let create = [&base[..], &["create", "-f", "-"]].concat();
    machine.ok_with(&create, &request("n1", &["digital signature", "client auth"]));
    kubectl.ok(&["wait", "--for=jsonpath={.status.certificate}", "csr/n1", "--timeout=30s"]);
    let issued = kubectl.json(&["get", "csr", "n1"]);
    assert_eq!(issued["status"]["conditions"][0]["reason"], "AutoApproved");
    assert_eq!(issued["spec"]["username"], "system:bootstrap:abcdef");
    // More than a node's certificate waits for somebody who looks.
    machine.ok_with(&create, &request("greedy", &["digital signature", "client auth", "server auth"]));
    kubectl.ok(&["certificate", "deny", "greedy"]);
    let denied = kubectl.json(&["get", "csr", "greedy"]);
    assert_eq!(denied["status"]["conditions"][0]["type"], "Denied");
    assert_eq!(denied["status"].get("certificate"), None);
    let refused = machine.run(&[&base[..], &["get", "secrets", "-n", "kube-system"]].concat());
    assert!(
        refused.error.contains("User \"system:bootstrap:abcdef\" cannot list resource \"secrets\""),
        "{refused:?}"
    );
    kubectl.ok(&["delete", "secret", "bootstrap-token-abcdef", "--namespace=kube-system"]);
    let late = machine.run(&[&base[..], &["get", "csr"]].concat());
    assert!(late.error.contains("Unauthorized"), "{late:?}");
}
