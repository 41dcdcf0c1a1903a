//! Nodes that are emptied, lost and found again, and workloads that end, all with real kubectl and real containers.
//!
//! In: a running cluster of two nodes. Out: one test per promise; each in a namespace of its own, one after the other,
//! since what they do to nodes concerns all pods.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xebec_tests::cluster::{Cluster, Namespace, deploy_web, eventually, http_get};

const SOON: Duration = Duration::from_secs(90);
/// 40 s until a silent node is noticed, the toleration, and the time to start pods elsewhere.
const LOSS: Duration = Duration::from_secs(120);
const REQUEST: Duration = Duration::from_secs(5);

fn alone() -> MutexGuard<'static, ()> {
    static NODES: Mutex<()> = Mutex::new(());
    NODES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Clients that ask again and again through every node's port.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(cluster: &Cluster, port: u16) -> Self {
        let (stop, asked, failed) = (Arc::default(), Arc::default(), Arc::default());
        let addresses = cluster.nodes.iter().flat_map(|(_, addresses)| *addresses);
        let clients = addresses.cycle().take(8).map(|address| {
            let (stop, asked, failed): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>) =
                (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&failed));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Err(error) = http_get(address, port, REQUEST) {
                        eprintln!("{address}: {error}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                    // Some hundred requests a second: load, not a flood.
                    std::thread::park_timeout(Duration::from_millis(20));
                }
            })
        });
        let clients = clients.collect();
        Self { stop, asked, failed, clients }
    }

    /// Requests made, and how many of them failed.
    fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client");
        }
        (self.asked.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

/// Name, uid and node of every web pod that is not being deleted and is ready.
fn ready_pods(ns: &Namespace<'_>) -> Vec<(String, String, String)> {
    let pods = ns.json(&["get", "pods", "-l", "app=web"]);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let ready = |pod: &&serde_json::Value| {
        let conditions = pod["status"]["conditions"].as_array();
        pod["metadata"]["deletionTimestamp"].is_null()
            && conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let pods = pods["items"].as_array().into_iter().flatten().filter(ready);
    pods.map(|pod| {
        let meta = &pod["metadata"];
        (text(&meta["name"]), text(&meta["uid"]), text(&pod["spec"]["nodeName"]))
    })
    .collect()
}

#[test]
fn drain_minds_the_budget_and_no_request_fails() {
    let _alone = alone();
    let cluster = Cluster::running();
    let (ns, port) = deploy_web(&cluster, "nodes-drain");
    ns.ok(&["scale", "deployment/web", "--replicas=4"]);
    ns.rolled_out("web");
    ns.ok(&["create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=3"]);
    let allowed = || ns.ok(&["get", "pdb", "web", "-o", "jsonpath={.status.disruptionsAllowed}"]);
    assert!(eventually(SOON, || allowed() == "1"), "{}", allowed());
    let node = cluster.nodes[1].0.as_str();
    let here = |ns: &Namespace<'_>| ready_pods(ns).iter().filter(|(_, _, at)| at == node).count();
    assert!(here(&ns) >= 1, "the node has pods to lose");
    let load = Load::on(&cluster, port);
    let said =
        cluster.ok(&["drain", node, "--ignore-daemonsets", "--pod-selector=app=web", "--timeout=120s"]);
    ns.rolled_out("web");
    let (asked, failed) = load.end();
    cluster.ok(&["uncordon", node]);
    println!("{asked} requests, {failed} failed");
    assert!(said.contains(&format!("node/{node} drained")), "{said}");
    assert_eq!(here(&ns), 0, "the node is empty");
    assert_eq!((ready_pods(&ns).len(), failed), (4, 0), "of {asked} requests");
}

#[test]
fn pods_of_a_lost_node_move_and_none_runs_twice_when_it_returns() {
    let _alone = alone();
    let cluster = Cluster::running();
    let (ns, _) = deploy_web(&cluster, "nodes-lost");
    let tolerations: Vec<String> = ["not-ready", "unreachable"]
        .map(|key| {
            format!(
                "{{\"key\":\"node.kubernetes.io/{key}\",\"operator\":\"Exists\",\"effect\":\"NoExecute\",\
                 \"tolerationSeconds\":2}}"
            )
        })
        .to_vec();
    // Every start of a pod leaves a line in a folder that all nodes of the cluster see.
    let starts = cluster.dir.join("starts");
    std::fs::create_dir_all(&starts).expect("a folder");
    std::fs::remove_file(starts.join("all")).ok();
    let recorder = "{\"name\":\"recorder\",\"image\":\"busybox\",\"command\":[\"sh\",\"-c\",\"echo $POD_UID $NODE >>/starts/all\"],\
         \"volumeMounts\":[{\"name\":\"starts\",\"mountPath\":\"/starts\"}],\"env\":[\
         {\"name\":\"POD_UID\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"metadata.uid\"}}},\
         {\"name\":\"NODE\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"spec.nodeName\"}}}]}";
    let patch = format!(
        "{{\"spec\":{{\"replicas\":4,\"template\":{{\"spec\":{{\"tolerations\":[{}],\"initContainers\":[{recorder}],\
         \"volumes\":[{{\"name\":\"starts\",\"hostPath\":{{\"path\":\"{}\"}}}}]}}}}}}}}",
        tolerations.join(","),
        starts.display()
    );
    ns.ok(&["patch", "deployment", "web", "-p", &patch]);
    ns.rolled_out("web");
    let started = || -> Vec<(String, String)> {
        let text = std::fs::read_to_string(starts.join("all")).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(uid, node)| (uid.into(), node.into()))
            .collect()
    };
    let node = cluster.nodes[1].0.clone();
    let lost: Vec<_> = ready_pods(&ns).into_iter().filter(|(_, _, at)| *at == node).collect();
    assert!(!lost.is_empty(), "the node has pods to lose");

    // The machine is gone: first who could tell, then what ran.
    for part in ["agent", "containerd"] {
        kill(Pid::from_raw(cluster.pid(&format!("{node}.{part}"))), Signal::SIGKILL).expect("it is alive");
    }
    for pid in lost.iter().flat_map(|(_, uid, _)| cluster.pod_processes(uid)) {
        // A worker may end with its master.
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
    let elsewhere = || ready_pods(&ns).iter().filter(|(_, _, at)| *at != node).count();
    assert!(eventually(LOSS, || elsewhere() == 4), "{:?}", ready_pods(&ns));
    let status = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    assert_eq!(cluster.ok(&["get", "node", &node, "-o", status]), "Unknown");
    let before: Vec<_> = ready_pods(&ns);

    assert!(cluster.up_again().wait().expect("xtask up").success(), "the node is started again");
    assert!(eventually(SOON, || cluster.ok(&["get", "node", &node, "-o", status]) == "True"));
    let gone = || {
        let names = ns.ok(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]);
        lost.iter().all(|(name, _, _)| !names.split_whitespace().any(|known| known == name))
    };
    assert!(eventually(SOON, gone), "the pods it lost are let go of");
    for (name, uid, _) in &lost {
        assert!(cluster.pod_processes(uid).is_empty(), "{name} runs on the node that came back");
    }
    let sorted = |mut pods: Vec<(String, String, String)>| {
        pods.sort();
        pods
    };
    assert_eq!(sorted(ready_pods(&ns)), sorted(before.clone()), "those that took their place stay");
    // What each node did is on record: every pod, lost ones and those in their place, was started once, on one node.
    let all = started();
    for (name, uid, at) in lost.iter().chain(&before) {
        let nodes: Vec<&str> =
            all.iter().filter(|(of, _)| of == uid).map(|(_, node)| node.as_str()).collect();
        assert_eq!(nodes, [at.as_str()], "starts of {name}");
    }
    let mut uids: Vec<&str> = all.iter().map(|(uid, _)| uid.as_str()).collect();
    uids.sort_unstable();
    assert!(uids.windows(2).all(|pair| pair[0] != pair[1]), "a pod ran twice: {all:?}");
}

#[test]
fn jobs_end_and_cron_jobs_start_them() {
    let _alone = alone();
    let cluster = Cluster::running();
    let ns = cluster.namespace("nodes-jobs");
    ns.ok(&["create", "job", "pi", "--image=busybox", "--", "sh", "-c", "echo 3.14"]);
    ns.ok(&["wait", "--for=condition=complete", "job/pi", "--timeout=90s"]);
    assert_eq!(ns.ok(&["logs", "job/pi"]).trim(), "3.14");
    assert_eq!(ns.ok(&["get", "job", "pi", "-o", "jsonpath={.status.succeeded}"]), "1");

    ns.apply(
        "
apiVersion: batch/v1
kind: Job
metadata: {name: shares}
spec:
  completions: 3
  parallelism: 3
  completionMode: Indexed
  backoffLimit: 0
  ttlSecondsAfterFinished: 600
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: c, image: busybox, command: [sh, -c, 'echo share $JOB_COMPLETION_INDEX on $(hostname)']}
",
    );
    ns.ok(&["wait", "--for=condition=complete", "job/shares", "--timeout=90s"]);
    assert_eq!(ns.ok(&["get", "job", "shares", "-o", "jsonpath={.status.completedIndexes}"]), "0-2");
    let log = ns.ok(&["logs", "-l", "batch.kubernetes.io/job-name=shares"]);
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["share 0 on shares-0", "share 1 on shares-1", "share 2 on shares-2"]);

    ns.ok(&["create", "job", "fails", "--image=busybox", "--", "sh", "-c", "exit 3"]);
    ns.ok(&["patch", "job", "fails", "-p", "{\"spec\":{\"backoffLimit\":0}}"]);
    ns.ok(&["wait", "--for=condition=failed", "job/fails", "--timeout=90s"]);

    ns.ok(&["create", "cronjob", "tick", "--image=busybox", "--schedule=* * * * *", "--", "true"]);
    ns.ok(&["create", "job", "by-hand", "--from=cronjob/tick"]);
    ns.ok(&["wait", "--for=condition=complete", "job/by-hand", "--timeout=90s"]);
    let ran = || ns.ok(&["get", "cronjob", "tick", "-o", "jsonpath={.status.lastSuccessfulTime}"]);
    assert!(eventually(SOON, || !ran().is_empty()), "it ran within the minute");
}

#[test]
fn daemons_and_sets_are_rolled_out_and_back() {
    let _alone = alone();
    let cluster = Cluster::running();
    let ns = cluster.namespace("nodes-rollouts");
    for (kind, extra) in [("DaemonSet", ""), ("StatefulSet", "serviceName: w, replicas: 2, ")] {
        let workload = kind.to_lowercase();
        let name = format!("{workload}/w");
        ns.apply(&format!(
            "
apiVersion: apps/v1
kind: {kind}
metadata: {{name: w}}
spec: {{{extra}selector: {{matchLabels: {{app: {workload}}}}}, template: {{
  metadata: {{labels: {{app: {workload}}}}},
  spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: nginx, image: nginx}}]}}}}}}
"
        ));
        ns.ok(&["rollout", "status", &name, "--timeout=120s"]);
        ns.ok(&["set", "image", &name, "nginx=nginx:next"]);
        ns.ok(&["rollout", "status", &name, "--timeout=120s"]);
        let history = ns.ok(&["rollout", "history", &name]);
        assert!(history.lines().any(|line| line.starts_with('2')), "{history}");
        ns.ok(&["rollout", "undo", &name]);
        ns.ok(&["rollout", "status", &name, "--timeout=120s"]);
        let images = ns.ok(&[
            "get",
            "pods",
            "-l",
            &format!("app={workload}"),
            "-o",
            "jsonpath={.items[*].spec.containers[0].image}",
        ]);
        assert_eq!(images, "nginx nginx", "{name}");
        ns.ok(&["rollout", "restart", &name]);
        ns.ok(&["rollout", "status", &name, "--timeout=120s"]);
        ns.ok(&["delete", &name]);
    }
}
