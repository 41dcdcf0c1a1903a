//! The classic story, told with real kubectl against real containerd: deploy, serve, replace, roll, scale, configure.
//!
//! In: a running cluster of two nodes. Out: one test per promise; each in a namespace of its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xebec_tests::cluster::{Cluster, Namespace, deploy_web, eventually, http_get, shell_pod};

const SOON: Duration = Duration::from_secs(60);
const REQUEST: Duration = Duration::from_secs(5);

fn serves(address: IpAddr, port: u16) -> bool {
    http_get(address, port, REQUEST).is_ok_and(|page| page.contains("Welcome to nginx!"))
}

#[test]
fn service_is_reached_by_cluster_ip_and_name_from_a_pod_on_each_node() {
    let cluster = Cluster::running();
    let (ns, _) = deploy_web(&cluster, "story-clusterip");
    let service = ns.json(&["get", "service", "web"]);
    let addresses: Vec<&str> =
        service["spec"]["clusterIPs"].as_array().into_iter().flatten().filter_map(|a| a.as_str()).collect();
    assert_eq!(addresses.len(), 2, "dual stack: {addresses:?}");
    let mut urls: Vec<String> = addresses
        .iter()
        .map(|a| if a.contains(':') { format!("http://[{a}]/") } else { format!("http://{a}/") })
        .collect();
    urls.extend(["http://web/".to_owned(), format!("http://web.{}.svc.cluster.local/", ns.name)]);
    let script: String =
        urls.iter().map(|url| format!("timeout 10 wget -q -O - '{url}' | grep -c h1 || exit 1; ")).collect();
    for (node, _) in &cluster.nodes {
        let log = ns.run_on(node, &format!("client-{node}"), &script);
        assert_eq!(log.lines().filter(|l| *l == "1").count(), urls.len(), "from {node}: {log}");
    }
}

#[test]
fn service_is_reached_by_node_port_from_the_host_on_either_node_and_family() {
    let cluster = Cluster::running();
    let (_ns, port) = deploy_web(&cluster, "story-nodeport");
    for (node, addresses) in &cluster.nodes {
        for address in addresses {
            assert!(eventually(SOON, || serves(*address, port)), "{node} {address}:{port}");
        }
    }
}

#[test]
fn a_deleted_pod_is_replaced() {
    let cluster = Cluster::running();
    let (ns, port) = deploy_web(&cluster, "story-delete");
    let before = pod_names(&ns);
    ns.ok(&["delete", "pod", &before[0]]);
    assert!(!pod_names(&ns).contains(&before[0]), "kubectl delete waits until the pod is gone");
    ns.rolled_out("web");
    assert_eq!(pod_names(&ns).len(), 2);
    assert!(serves(cluster.nodes[0].1[0], port));
}

fn pod_names(ns: &Namespace<'_>) -> Vec<String> {
    let names = ns.ok(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"]);
    names.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_killed_container_is_restarted_in_place() {
    let cluster = Cluster::running();
    let (ns, port) = deploy_web(&cluster, "story-kill");
    let pod = ns.json(&["get", "pods", "-l", "app=web"])["items"][0].clone();
    let (name, uid) = (pod["metadata"]["name"].as_str().unwrap(), pod["metadata"]["uid"].as_str().unwrap());
    let processes = cluster.pod_processes(uid);
    assert!(!processes.is_empty(), "the pod's cgroup holds its processes");
    for pid in processes {
        // Workers end with their master.
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
    let restarts =
        || ns.ok(&["get", "pod", name, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]);
    assert!(eventually(SOON, || restarts() == "1"), "restart count {}", restarts());
    ns.ok(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    let last = "jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}";
    assert_eq!(ns.ok(&["get", "pod", name, "-o", last]), "137");
    assert!(serves(cluster.nodes[1].1[0], port));
}

#[test]
fn set_image_rolls_without_a_failed_request_and_undo_returns() {
    let cluster = Cluster::running();
    let (ns, port) = deploy_web(&cluster, "story-roll");
    let stop = Arc::new(AtomicBool::new(false));
    let (asked, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..10)
        .map(|client| {
            let (stop, asked, failed) = (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&failed));
            let address = cluster.nodes[client % cluster.nodes.len()].1[client / 2 % 2];
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Err(error) = http_get(address, port, REQUEST) {
                        eprintln!("client {client} at {address}: {error}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                    // Ten clients, some hundred requests a second: load, not a flood.
                    std::thread::park_timeout(Duration::from_millis(20));
                }
            })
        })
        .collect();
    ns.ok(&["set", "image", "deployment/web", "nginx=nginx:next"]);
    ns.rolled_out("web");
    let first = cluster.nodes[0].1[0];
    let next =
        eventually(SOON, || http_get(first, port, REQUEST).is_ok_and(|p| p.contains("the next nginx")));
    ns.ok(&["rollout", "undo", "deployment/web"]);
    ns.rolled_out("web");
    let back = eventually(SOON, || serves(first, port));
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("a client");
    }
    let (asked, failed) = (asked.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    println!("{asked} requests, {failed} failed");
    assert!(next && back, "next page seen: {next}, old page back: {back}");
    assert_eq!(failed, 0, "of {asked}");
    let history = ns.ok(&["rollout", "history", "deployment/web"]);
    assert!(history.lines().any(|l| l.starts_with('3')), "two roll-outs after the first: {history}");
}

#[test]
fn scale_to_ten_spreads_over_both_nodes() {
    let cluster = Cluster::running();
    let (ns, _) = deploy_web(&cluster, "story-scale");
    ns.ok(&["scale", "deployment/web", "--replicas=10"]);
    ns.rolled_out("web");
    let nodes = ns.ok(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}"]);
    for (node, _) in &cluster.nodes {
        let here = nodes.split_whitespace().filter(|n| n == node).count();
        assert!((4..=6).contains(&here), "{node} has {here} of 10: {nodes}");
    }
}

#[test]
fn a_config_map_and_a_secret_arrive_as_files_and_environment() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("story-config");
    ns.ok(&["create", "configmap", "settings", "--from-literal=colour=blue"]);
    ns.ok(&["create", "secret", "generic", "keys", "--from-literal=token=s3cret"]);
    ns.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'echo $COLOUR $TOKEN $(cat /settings/colour) $(cat /keys/token) $(stat -L -c %a /keys/token) $MY_NODE']
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}
    - {name: MY_NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: keys, mountPath: /keys}
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: keys, secret: {secretName: keys, defaultMode: 0400}}
",
    );
    let log = ns.finished("reader");
    let node = ns.ok(&["get", "pod", "reader", "-o", "jsonpath={.spec.nodeName}"]);
    assert_eq!(log.trim(), format!("blue s3cret blue s3cret 400 {node}"));
}

#[test]
fn a_pod_that_cannot_fit_says_so_in_describe() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("story-unfit");
    ns.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: huge}
spec:
  containers: [{name: main, image: busybox, resources: {requests: {cpu: '1000'}}}]
",
    );
    let described = || ns.ok(&["describe", "pod", "huge"]);
    let wanted = "0/2 nodes are available: 2 Insufficient cpu.";
    assert!(eventually(SOON, || described().contains(wanted)), "{}", described());
    assert!(described().contains("FailedScheduling"));
}

#[test]
fn logs_follow_to_the_end() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("story-logs");
    let script = "i=0; while [ $i -lt 20 ]; do echo line $i; i=$((i+1)); sleep 0.1; done; echo end";
    ns.apply(&shell_pod(&cluster.nodes[1].0, "talker", script));
    ns.ok(&[
        "wait",
        "--for=jsonpath={.status.containerStatuses[0].started}=true",
        "pod/talker",
        "--timeout=60s",
    ]);
    let log = ns.ok(&["logs", "-f", "talker"]);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 21, "{log}");
    assert_eq!((lines[0], lines[19], lines[20]), ("line 0", "line 19", "end"));
    assert_eq!(ns.ok(&["logs", "--tail=1", "talker"]).trim(), "end");
}
