//! `kubectl cordon`, `uncordon`, `drain` and `taint` on nodes that nobody runs.
//!
//! In: a control plane; pods of a grace period of 0, which need no kubelet to go. Out: kubectl's words and exit codes.

use serde_json::json;
use xebec_tests::fixture::{APPLY, Api};

const TEST: &str = "api_nodes";
const WORKLOADS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /v}]}]
      volumes: [{name: v, emptyDir: {}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each}
spec:
  selector: {matchLabels: {app: each}}
  template: {metadata: {labels: {app: each}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: i}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: alone}
spec: {nodeName: n1, terminationGracePeriodSeconds: 0, containers: [{name: c, image: i}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
";

#[tokio::test]
async fn a_cordoned_node_gets_no_pods() {
    let Some(api) = Api::start(TEST).await else { return };
    let kubectl = &api.kubectl;
    api.node("n1", "10.0.0.1");
    assert_eq!(kubectl.ok(&["cordon", "n1"]), "node/n1 cordoned");
    assert_eq!(kubectl.ok(&["cordon", "n1"]), "node/n1 already cordoned");
    kubectl.ok(&["run", "late", "--image=i"]);
    let reason = "--for=jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].reason}=Unschedulable";
    kubectl.ok(&["wait", reason, "pod/late", "--timeout=30s"]);
    let why = "jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}";
    let why = kubectl.ok(&["get", "pod", "late", "-o", why]);
    assert!(why.starts_with("0/1 nodes are available: 1 node(s) were unschedulable."), "{why}");
    assert_eq!(kubectl.ok(&["uncordon", "n1"]), "node/n1 uncordoned");
    assert_eq!(kubectl.ok(&["uncordon", "n1"]), "node/n1 already uncordoned");
    kubectl.ok(&["wait", "--for=jsonpath={.spec.nodeName}=n1", "pod/late", "--timeout=30s"]);
    assert_eq!(kubectl.fails(&["cordon", "n9"], ""), "Error from server (NotFound): nodes \"n9\" not found");
    assert_eq!(kubectl.ok(&["cordon", "n1", "--dry-run=server"]), "node/n1 cordoned (server dry run)");
    assert_eq!(kubectl.json(&["get", "node", "n1"])["spec"].get("unschedulable"), None);
}

#[tokio::test]
async fn taints_come_and_go() {
    let Some(api) = Api::start(TEST).await else { return };
    let kubectl = &api.kubectl;
    api.node("n1", "10.0.0.1");
    assert_eq!(kubectl.ok(&["taint", "node", "n1", "dedicated=gpu:NoSchedule"]), "node/n1 tainted");
    assert_eq!(
        kubectl.fails(&["taint", "node", "n1", "dedicated=cpu:NoSchedule"], ""),
        "error: node n1 already has dedicated taint(s) with same effect(s) and --overwrite is false"
    );
    assert_eq!(
        kubectl.ok(&["taint", "node", "n1", "dedicated=cpu:NoSchedule", "--overwrite"]),
        "node/n1 modified"
    );
    assert_eq!(kubectl.ok(&["taint", "node", "n1", "dedicated-"]), "node/n1 untainted");
    assert_eq!(
        kubectl.fails(&["taint", "node", "n1", "dedicated-"], ""),
        "error: taint \"dedicated\" not found"
    );
    let refused = kubectl.fails(&["taint", "node", "n1", "a=b:Sometimes"], "");
    assert!(
        refused.starts_with("error: invalid taint effect: Sometimes, unsupported taint effect"),
        "{refused}"
    );
}

#[tokio::test]
async fn draining_asks_first_and_keeps_budgets() {
    let Some(api) = Api::start(TEST).await else { return };
    let kubectl = &api.kubectl;
    api.node("n1", "10.0.0.1");
    kubectl.ok_with(APPLY, WORKLOADS);
    kubectl.ok(&["wait", "--for=jsonpath={.status.desiredNumberScheduled}=1", "ds/each", "--timeout=30s"]);
    kubectl.ok(&["wait", "--for=jsonpath={.status.replicas}=2", "deployment/web", "--timeout=30s"]);
    for pods in ["app=web", "app=each"] {
        kubectl.ok(&["wait", "--for=jsonpath={.spec.nodeName}=n1", "pods", "-l", pods, "--timeout=30s"]);
    }
    let names = |label: &str| {
        let names = kubectl.ok(&["get", "pods", "-l", label, "-o", "jsonpath={.items[*].metadata.name}"]);
        names.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let (web, each) = (names("app=web"), names("app=each"));
    let refused = kubectl.fails(&["drain", "n1", "--timeout=5s"], "");
    for why in [
        "cannot delete Pods that declare no controller (use --force to override): default/alone".to_owned(),
        format!(
            "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): default/{}",
            each[0]
        ),
        "cannot delete Pods with local storage (use --delete-emptydir-data to override): default/web-"
            .to_owned(),
        "There are pending nodes to be drained:\n n1".to_owned(),
    ] {
        assert!(refused.contains(&why), "{why:?}: {refused}");
    }
    // Both are ready: then the budget counts.
    for pod in &web {
        api.status(
            "pod",
            pod,
            r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#,
        );
    }
    kubectl.ok(&["wait", "--for=jsonpath={.status.disruptionsAllowed}=1", "pdb/web", "--timeout=30s"]);
    let all = ["drain", "n1", "--ignore-daemonsets", "--force", "--delete-emptydir-data"];
    let held = kubectl.run(&[&all[..], &["--timeout=3s"]].concat());
    assert_eq!(held.code, Some(1), "{held:?}");
    assert!(held.out.contains("pod/alone evicted"), "{held:?}");
    let budget = "error when evicting pods/\"web-";
    let words = "(will retry after 5s): Cannot evict pod as it would violate the pod's disruption budget.";
    assert!(held.error.contains(budget) && held.error.contains(words), "{}", held.error);
    let left = names("app=web");
    assert_eq!(web.iter().filter(|pod| left.contains(pod)).count(), 1, "one may go, one must stay: {left:?}");
    kubectl.ok(&["patch", "pdb", "web", "-p", r#"{"spec":{"minAvailable":0}}"#]);
    kubectl.ok(&["wait", "--for=jsonpath={.status.disruptionsAllowed}=1", "pdb/web", "--timeout=30s"]);
    let drained = kubectl.run(&[&all[..], &["--timeout=30s"]].concat());
    assert_eq!(drained.code, Some(0), "{drained:?}");
    assert_eq!(drained.out.lines().last(), Some("node/n1 drained"));
    assert!(
        drained.error.contains(&format!("ignoring DaemonSet-managed Pods: default/{}", each[0])),
        "{drained:?}"
    );
    let on_node = kubectl.ok(&[
        "get",
        "pods",
        "--field-selector=spec.nodeName=n1",
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ]);
    assert_eq!(on_node, each[0], "only the daemon is left");
    assert_eq!(kubectl.json(&["get", "node", "n1"])["spec"]["unschedulable"], json!(true));
}
