//! `kubectl delete` and `kubectl wait`: what goes with an object, what holds it, who waits for it.
//!
//! In: a control plane. Out: kubectl's words and exit codes, and what is left.

use serde_json::json;
use xebec_tests::fixture::{Api, CREATE};
use xebec_tests::kubectl::Kubectl;

const TEST: &str = "api_delete";

fn not_found(resource: &str, name: &str) -> String {
    format!("Error from server (NotFound): {resource} \"{name}\" not found")
}

/// A deployment of two pods that nobody starts.
fn deploy(kubectl: &Kubectl) {
    kubectl.ok(&["create", "deployment", "web", "--image=nginx", "--replicas=2"]);
    kubectl.ok(&["wait", "--for=jsonpath={.status.replicas}=2", "deployment/web", "--timeout=30s"]);
}

fn left(kubectl: &Kubectl, kind: &str) -> usize {
    kubectl.ok(&["get", kind, "-l", "app=web", "-o", "name"]).lines().count()
}

#[tokio::test]
async fn what_depends_goes_or_stays_as_asked() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let gone = "deployment.apps \"web\" deleted from default namespace";
    deploy(&kubectl);
    assert_eq!(kubectl.ok(&["delete", "deployment", "web"]), gone, "in the background");
    for kind in ["replicasets", "pods"] {
        kubectl.ok(&["wait", "--for=delete", kind, "-l", "app=web", "--timeout=30s"]);
    }

    deploy(&kubectl);
    assert_eq!(kubectl.ok(&["delete", "deployment", "web", "--cascade=foreground", "--timeout=30s"]), gone);
    assert_eq!((left(&kubectl, "replicasets"), left(&kubectl, "pods")), (0, 0), "the owner went last");

    deploy(&kubectl);
    assert_eq!(kubectl.ok(&["delete", "deployment", "web", "--cascade=orphan"]), gone);
    assert_eq!((left(&kubectl, "replicasets"), left(&kubectl, "pods")), (1, 2));
    let set = kubectl.json(&["get", "replicasets", "-l", "app=web"])["items"][0].clone();
    assert_eq!(set["metadata"].get("ownerReferences"), None, "nobody owns it any more");
    let name = set["metadata"]["name"].as_str().expect("a name").to_owned();
    kubectl.ok(&["delete", "replicaset", &name, "--cascade=orphan"]);
    assert_eq!(left(&kubectl, "pods"), 2);
    // A set of the same selector takes them in.
    deploy(&kubectl);
    assert_eq!(left(&kubectl, "pods"), 2);
    assert_eq!(
        kubectl.fails(&["delete", "deployment", "web", "--cascade=all"], ""),
        "error: invalid cascade value (all). Must be \"background\", \"foreground\", or \"orphan\""
    );
}

#[tokio::test]
async fn deletion_waits_for_finalizers() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let held = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "held", "finalizers": ["example.com/hold"] },
    });
    kubectl.ok_with(CREATE, &held.to_string());
    let deleted = "configmap \"held\" deleted from default namespace";
    let late = kubectl.run(&["delete", "configmap", "held", "--timeout=1s"]);
    assert_eq!((late.code, &*late.out), (Some(1), deleted));
    assert_eq!(late.error, "error: timed out waiting for the condition on configmaps/held");
    assert_eq!(kubectl.ok(&["delete", "configmap", "held", "--wait=false"]), deleted);
    let waiter = {
        let kubectl = kubectl.clone();
        std::thread::spawn(move || kubectl.run(&["wait", "--for=delete", "configmap/held", "--timeout=60s"]))
    };
    let free = r#"{"metadata":{"finalizers":null}}"#;
    kubectl.ok(&["patch", "configmap", "held", "--type=merge", "-p", free]);
    let waited = waiter.join().expect("kubectl ends");
    assert_eq!((waited.code, &*waited.error), (Some(0), ""), "{waited:?}");
    assert_eq!(kubectl.fails(&["delete", "configmap", "held"], ""), not_found("configmaps", "held"));
    let ignored = kubectl.run(&["delete", "configmap", "held", "--ignore-not-found"]);
    assert_eq!((ignored.code, &*ignored.out), (Some(0), ""));
}

#[tokio::test]
async fn many_are_deleted_at_once() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    for name in ["a", "b", "c", "d"] {
        kubectl.ok(&["create", "configmap", name]);
    }
    kubectl.ok(&["label", "configmap", "a", "b", "kind=old"]);
    let deleted = |names: &[&str]| {
        let line = |name: &&str| format!("configmap \"{name}\" deleted from default namespace");
        names.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(kubectl.ok(&["delete", "configmaps", "-l", "kind=old"]), deleted(&["a", "b"]));
    assert_eq!(kubectl.ok(&["delete", "configmap", "c", "-o", "name"]), "configmap/c");
    let partly = kubectl.run(&["delete", "configmap", "d", "z"]);
    assert_eq!((partly.code, &*partly.out), (Some(1), &*deleted(&["d"])));
    assert_eq!(partly.error, not_found("configmaps", "z"));
    assert_eq!(
        kubectl.fails(&["delete", "configmaps"], ""),
        "error: resource(s) were provided, but no name was specified"
    );
    assert_eq!(kubectl.ok(&["delete", "configmaps", "--all"]), deleted(&["kube-root-ca.crt"]));
    assert_eq!(
        kubectl.fails(&["delete", "configmaps", "-l", "a in ("], ""),
        "Error from server (BadRequest): Unable to find \"/v1, Resource=configmaps\" that match label selector \"a in \
         (\", field selector \"\": unable to parse requirement: found '', expected: ',', ')' or identifier"
    );
}

#[tokio::test]
async fn pods_are_given_their_time_or_none() {
    let Some(api) = Api::start(TEST).await else { return };
    let kubectl = &api.kubectl;
    api.node("n1", "10.0.0.1");
    let start = |name: &str| {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i" }] },
        });
        kubectl.ok_with(CREATE, &pod.to_string());
    };
    let deadline =
        |name: &str| kubectl.json(&["get", "pod", name])["metadata"]["deletionGracePeriodSeconds"].as_i64();
    start("a");
    assert_eq!(
        kubectl.ok(&["delete", "pod", "a", "--wait=false"]),
        "pod \"a\" deleted from default namespace"
    );
    assert_eq!(deadline("a"), Some(30), "the pod's own");
    assert!(kubectl.ok(&["get", "pod", "a", "--no-headers"]).contains("Terminating"));
    kubectl.ok(&["delete", "pod", "a", "--wait=false", "--grace-period=5"]);
    assert_eq!(deadline("a"), Some(5), "it may only get shorter");
    kubectl.ok(&["delete", "pod", "a", "--wait=false", "--grace-period=20"]);
    assert_eq!(deadline("a"), Some(5));
    start("b");
    kubectl.ok(&["delete", "pod", "b", "--wait=false", "--now"]);
    assert_eq!(deadline("b"), Some(1));
    let forced = kubectl.run(&["delete", "pod", "a", "b", "--force", "--grace-period=0"]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert_eq!(
        forced.out,
        "pod \"a\" force deleted from default namespace\npod \"b\" force deleted from default namespace"
    );
    assert!(
        forced.error.starts_with("Warning: Immediate deletion does not wait for confirmation"),
        "{forced:?}"
    );
    assert_eq!(kubectl.fails(&["get", "pod", "a"], ""), not_found("pods", "a"));
    assert_eq!(
        kubectl.fails(&["delete", "pod", "c", "--grace-period=7", "--force"], ""),
        "error: --force and --grace-period greater than 0 cannot be specified together"
    );
}

#[tokio::test]
async fn namespaces_go_with_all_they_hold() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    kubectl.ok(&["create", "namespace", "team"]);
    kubectl.ok(&["create", "deployment", "web", "--image=nginx", "-n", "team"]);
    let held = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "held", "namespace": "team", "finalizers": ["example.com/hold"] },
    });
    kubectl.ok_with(CREATE, &held.to_string());
    assert_eq!(kubectl.ok(&["delete", "namespace", "team", "--wait=false"]), "namespace \"team\" deleted");
    assert!(kubectl.ok(&["get", "namespace", "team", "--no-headers"]).contains("Terminating"));
    let refused = kubectl.fails(&["create", "configmap", "late", "-n", "team"], "");
    assert_eq!(
        refused,
        "error: failed to create configmap: configmaps \"late\" is forbidden: unable to create new content in namespace \
         team because it is being terminated"
    );
    let condition = "--for=condition=NamespaceFinalizersRemaining";
    kubectl.ok(&["wait", condition, "namespace/team", "--timeout=30s"]);
    let why = "jsonpath={.status.conditions[?(@.type==\"NamespaceFinalizersRemaining\")].message}";
    assert_eq!(
        kubectl.ok(&["get", "namespace", "team", "-o", why]),
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    );
    let free = r#"{"metadata":{"finalizers":null}}"#;
    kubectl.ok(&["patch", "configmap", "held", "-n", "team", "--type=merge", "-p", free]);
    kubectl.ok(&["wait", "--for=delete", "namespace/team", "--timeout=60s"]);
    assert_eq!(kubectl.fails(&["get", "namespace", "team"], ""), not_found("namespaces", "team"));
    assert_eq!(
        kubectl.fails(&["delete", "namespace", "default"], ""),
        "Error from server (Forbidden): namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
}

#[tokio::test]
async fn waiting_ends_with_what_was_waited_for_or_in_time() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let wait = |arguments: &[&str]| kubectl.run(&[&["wait", "--timeout=1s"], arguments].concat());
    let late = "error: timed out waiting for the condition on configmaps/a";
    kubectl.ok(&["create", "configmap", "a", "--from-literal=key=1"]);
    let met = wait(&["--for=jsonpath={.data.key}=1", "configmap/a"]);
    assert_eq!((met.code, &*met.out), (Some(0), "configmap/a condition met"));
    let there = wait(&["--for=jsonpath={.data.key}", "configmap/a"]);
    assert_eq!((there.code, &*there.out), (Some(0), "configmap/a condition met"), "any value");
    for condition in ["--for=jsonpath={.data.key}=2", "--for=condition=Ready", "--for=delete"] {
        let unmet = wait(&[condition, "configmap/a"]);
        assert_eq!((unmet.code, &*unmet.error), (Some(1), late), "{condition}");
    }
    let nothing = wait(&["--for=condition=Ready", "pod/nope"]);
    assert_eq!((nothing.code, &*nothing.error), (Some(1), &*not_found("pods", "nope")));
    assert_eq!(wait(&["--for=delete", "pod/nope"]).code, Some(0), "what is not there is gone");
    let creation = {
        let kubectl = kubectl.clone();
        std::thread::spawn(move || kubectl.run(&["wait", "--for=create", "configmap/b", "--timeout=30s"]))
    };
    kubectl.ok(&["create", "configmap", "b"]);
    let created = creation.join().expect("kubectl ends");
    assert_eq!((created.code, &*created.out), (Some(0), "configmap/b condition met"), "{created:?}");
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } });
    kubectl.ok_with(CREATE, &node.to_string());
    let waiter = {
        let kubectl = kubectl.clone();
        std::thread::spawn(move || {
            kubectl.run(&["wait", "--for=condition=Ready=False", "node/n1", "--timeout=30s"])
        })
    };
    let status = r#"{"status":{"conditions":[{"type":"Ready","status":"False","reason":"Test"}]}}"#;
    kubectl.ok(&["patch", "node", "n1", "--subresource=status", "--type=merge", "-p", status]);
    let waited = waiter.join().expect("kubectl ends");
    assert_eq!((waited.code, &*waited.out), (Some(0), "node/n1 condition met"));
}
