//! `kubectl rollout`: status, history, undo, restart, pause and resume of everything that rolls out.
//!
//! In: a control plane; the test says of pods what a kubelet would. Out: kubectl's words and exit codes.

use serde_json::json;
use xebec_tests::fixture::{Api, CREATE};
use xebec_tests::kubectl::{Kubectl, shows, squeezed};

const TEST: &str = "api_rollout";

fn workload(kind: &str, image: &str, more: &serde_json::Value) -> String {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": "web" },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": image }] },
            },
        },
    });
    let spec = object["spec"].as_object_mut().expect("a spec");
    spec.extend(more.as_object().expect("fields").clone());
    object.to_string()
}

/// Every pod of a node becomes ready, as a kubelet would report it, until `done` says that it is enough.
fn run_pods(kubectl: &Kubectl, done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "{}", kubectl.ok(&["get", "pods", "-o", "wide"]));
        let waiting = "jsonpath={range .items[?(@.status.phase==\"Pending\")]}{.metadata.name}{\" \"}{.spec.nodeName}{\"\\n\"}{end}";
        for line in kubectl.ok(&["get", "pods", "-o", waiting]).lines() {
            let Some((name, "n1")) = line.split_once(' ') else { continue };
            let status = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True",
                "lastTransitionTime":"2026-01-01T00:00:00Z"}]}}"#;
            // It may be gone again.
            kubectl.run(&["patch", "pod", name, "--subresource=status", "--type=merge", "-p", status]);
        }
    }
}

fn history(kubectl: &Kubectl, object: &str) -> Vec<String> {
    squeezed(&kubectl.ok(&["rollout", "history", object]))
}

#[tokio::test]
async fn deployments_roll_forth_and_back() {
    let Some(api) = Api::start(TEST).await else { return };
    let kubectl = &api.kubectl;
    kubectl.ok_with(CREATE, &workload("Deployment", "one", &json!({ "replicas": 2 })));
    let stuck = kubectl.run(&["rollout", "status", "deployment/web", "--timeout=2s"]);
    assert_eq!(stuck.code, Some(1), "{stuck:?}");
    let last = stuck.out.lines().last().unwrap_or_default();
    assert_eq!(
        last,
        "Waiting for deployment \"web\" rollout to finish: 0 of 2 updated replicas are available..."
    );
    assert_eq!(stuck.error, "error: timed out waiting for the condition");
    let unwatched = kubectl.run(&["rollout", "status", "deployment/web", "--watch=false"]);
    assert_eq!((unwatched.code, &*unwatched.out), (Some(0), last));

    api.node("n1", "10.0.0.1");
    let follower = kubectl.start(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let is_done =
        || kubectl.ok(&["get", "deployment", "web", "-o", "jsonpath={.status.availableReplicas}"]) == "2";
    run_pods(kubectl, is_done);
    let mut follower = follower;
    let end = "deployment \"web\" successfully rolled out";
    let mut line = follower.line();
    while line != end {
        assert!(line.starts_with("Waiting for deployment \"web\" rollout to finish: "), "{line}");
        line = follower.line();
    }

    kubectl.ok(&["set", "image", "deployment/web", "c=two"]);
    kubectl.ok(&["annotate", "deployment/web", "kubernetes.io/change-cause=to two"]);
    let updated = || {
        let said = kubectl.ok(&["rollout", "status", "deployment/web", "--watch=false"]);
        said == end
    };
    run_pods(kubectl, updated);
    assert_eq!(
        history(kubectl, "deployment/web"),
        ["deployment.apps/web", "REVISION CHANGE-CAUSE", "1 <none>", "2 to two"]
    );
    shows(
        &kubectl.ok(&["rollout", "history", "deployment/web", "--revision=2"]),
        &["deployment.apps/web with revision #2", "Pod Template:", "Labels: app=web", "Image: two"],
    );
    assert_eq!(
        kubectl.fails(&["rollout", "history", "deployment/web", "--revision=9"], ""),
        "error: unable to find the specified revision"
    );
    assert_eq!(
        kubectl.fails(&["rollout", "undo", "deployment/web", "--to-revision=9"], ""),
        "error: unable to find specified revision 9 in history"
    );
    let undone = kubectl.run(&["rollout", "undo", "deployment/web", "--to-revision=1"]);
    assert_eq!((undone.code, &*undone.out), (Some(0), "deployment.apps/web rolled back"));
    run_pods(kubectl, updated);
    assert_eq!(
        history(kubectl, "deployment/web"),
        ["deployment.apps/web", "REVISION CHANGE-CAUSE", "2 to two", "3 <none>"]
    );
    let image = kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}"]);
    assert_eq!(image, "one one");
    let same = kubectl.run(&["rollout", "undo", "deployment/web", "--to-revision=3"]);
    assert_eq!(
        (same.code, &*same.out),
        (Some(0), "deployment.apps/web skipped rollback (current template already matches revision 3)")
    );
    assert_eq!(
        kubectl.fails(&["rollout", "status", "deployment/nope"], ""),
        "Error from server (NotFound): deployments.apps \"nope\" not found"
    );
}

#[tokio::test]
async fn a_paused_deployment_keeps_its_pods() {
    let Some(api) = Api::start(TEST).await else { return };
    let kubectl = &api.kubectl;
    kubectl.ok_with(CREATE, &workload("Deployment", "one", &json!({ "replicas": 0 })));
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=30s"]);
    kubectl.ok(&["set", "image", "deployment/web", "c=zero"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=30s"]);
    assert_eq!(kubectl.ok(&["rollout", "pause", "deployment/web"]), "deployment.apps/web paused");
    assert_eq!(
        kubectl.fails(&["rollout", "pause", "deployment/web"], ""),
        "error: deployments.apps \"web\" is already paused"
    );
    kubectl.ok(&["set", "image", "deployment/web", "c=two"]);
    let observed = || {
        kubectl.ok(&[
            "get",
            "deployment",
            "web",
            "-o",
            "jsonpath={.status.observedGeneration}={.metadata.generation}",
        ])
    };
    while observed().split_once('=').is_none_or(|(seen, there)| seen != there) {}
    assert_eq!(history(kubectl, "deployment/web").len(), 4, "no new revision while paused");
    assert_eq!(
        kubectl.fails(&["rollout", "restart", "deployment/web"], ""),
        "error: deployments.apps \"web\" can't restart paused deployment (run rollout resume first)"
    );
    assert_eq!(
        kubectl.fails(&["rollout", "undo", "deployment/web"], ""),
        "error: you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume' and try again"
    );
    let reason = "jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}";
    assert_eq!(kubectl.ok(&["get", "deployment", "web", "-o", reason]), "DeploymentPaused");
    assert_eq!(kubectl.ok(&["rollout", "resume", "deployment/web"]), "deployment.apps/web resumed");
    assert_eq!(
        kubectl.fails(&["rollout", "resume", "deployment/web"], ""),
        "error: deployments.apps \"web\" is not paused"
    );
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=30s"]);
    assert_eq!(history(kubectl, "deployment/web").len(), 5);
    assert_eq!(kubectl.ok(&["rollout", "restart", "deployment/web"]), "deployment.apps/web restarted");
    let mark = "jsonpath={.spec.template.metadata.annotations.kubectl\\.kubernetes\\.io/restartedAt}";
    let restarted = kubectl.ok(&["get", "deployment", "web", "-o", mark]);
    assert!(restarted.contains('T'), "{restarted}");
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=30s"]);
    assert_eq!(history(kubectl, "deployment/web").len(), 6);
}

#[tokio::test]
async fn daemon_sets_roll_node_by_node() {
    let Some(api) = Api::start(TEST).await else { return };
    let kubectl = &api.kubectl;
    api.node("n1", "10.0.0.1");
    kubectl.ok_with(CREATE, &workload("DaemonSet", "one", &json!({})));
    kubectl.ok(&["wait", "--for=jsonpath={.status.desiredNumberScheduled}=1", "ds/web", "--timeout=30s"]);
    let waiting = kubectl.ok(&["rollout", "status", "ds/web", "--watch=false"]);
    assert_eq!(
        waiting,
        "Waiting for daemon set \"web\" rollout to finish: 0 of 1 updated pods are available..."
    );
    let end = "daemon set \"web\" successfully rolled out";
    let is_done = || kubectl.ok(&["rollout", "status", "ds/web", "--watch=false"]) == end;
    run_pods(kubectl, is_done);
    kubectl.ok(&["set", "image", "ds/web", "c=two"]);
    run_pods(kubectl, is_done);
    assert_eq!(
        history(kubectl, "ds/web"),
        ["daemonset.apps/web", "REVISION CHANGE-CAUSE", "1 <none>", "2 <none>"]
    );
    shows(
        &kubectl.ok(&["rollout", "history", "ds/web", "--revision=1"]),
        &["daemonset.apps/web with revision #1", "Image: one"],
    );
    assert_eq!(kubectl.ok(&["rollout", "undo", "ds/web"]), "daemonset.apps/web rolled back");
    run_pods(kubectl, is_done);
    assert_eq!(history(kubectl, "ds/web")[2..], ["2 <none>", "3 <none>"]);
    assert_eq!(kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}"]), "one");
    assert_eq!(kubectl.ok(&["rollout", "restart", "ds/web"]), "daemonset.apps/web restarted");
    run_pods(kubectl, is_done);
    assert_eq!(
        kubectl.fails(&["rollout", "pause", "ds/web"], ""),
        "error: daemonsets.apps \"web\" pausing is not supported"
    );
    kubectl.ok(&[
        "patch",
        "ds",
        "web",
        "--type=merge",
        "-p",
        r#"{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}"#,
    ]);
    assert_eq!(
        kubectl.fails(&["rollout", "status", "ds/web"], ""),
        "error: rollout status is only available for RollingUpdate strategy type"
    );
}

#[tokio::test]
async fn stateful_sets_roll_one_after_the_other() {
    let Some(api) = Api::start(TEST).await else { return };
    let kubectl = &api.kubectl;
    api.node("n1", "10.0.0.1");
    kubectl.ok_with(CREATE, &workload("StatefulSet", "one", &json!({ "replicas": 2, "serviceName": "web" })));
    let waiting = kubectl.run(&["rollout", "status", "sts/web", "--timeout=1s"]);
    assert_eq!((waiting.code, &*waiting.error), (Some(1), "error: timed out waiting for the condition"));
    assert_eq!(waiting.out.lines().last(), Some("Waiting for 2 pods to be ready..."));
    let is_done = || {
        let said = kubectl.ok(&["rollout", "status", "sts/web", "--watch=false"]);
        said.starts_with("statefulset rolling update complete 2 pods at revision web-")
            || said.starts_with("partitioned roll out complete: 2 new pods have been updated")
    };
    run_pods(kubectl, is_done);
    assert_eq!(kubectl.ok(&["get", "pods", "-o", "name"]), "pod/web-0\npod/web-1");
    kubectl.ok(&["set", "image", "sts/web", "c=two"]);
    run_pods(kubectl, is_done);
    assert_eq!(
        history(kubectl, "sts/web"),
        ["statefulset.apps/web", "REVISION CHANGE-CAUSE", "1 <none>", "2 <none>"]
    );
    assert_eq!(kubectl.ok(&["rollout", "undo", "sts/web"]), "statefulset.apps/web rolled back");
    run_pods(kubectl, is_done);
    assert_eq!(
        kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}"]),
        "one one"
    );
    assert_eq!(kubectl.ok(&["rollout", "restart", "sts/web"]), "statefulset.apps/web restarted");
    run_pods(kubectl, is_done);
    assert_eq!(history(kubectl, "sts/web")[2..], ["2 <none>", "3 <none>", "4 <none>"]);
}
