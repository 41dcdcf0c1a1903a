//! A machine becomes a node by the commands of the README, serves, keeps its certificates fresh, and goes again.
//!
//! In: a running cluster, a bare machine beside it, the README's own text. Out: what `kubectl` shows of it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use xebec_tests::cluster::{Cluster, eventually};
use xebec_tests::machine::Machine;

const README: &str = include_str!("../../README.md");
const SOON: Duration = Duration::from_secs(120);
/// Where the README's control plane is.
const SERVER: &str = "192.0.2.1";
const DATA_DIR: &str = "/var/lib/xebec-control";

/// The command lines of the README's section, block by block.
fn blocks() -> Vec<Vec<&'static str>> {
    let section = README.split("\n## Joining a machine\n").nth(1).expect("the section is there");
    let section = section.split("\n## ").next().expect("a section");
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.map(|block| block.lines().collect()).collect()
}

/// A line of words with its values taken out, to compare what was printed with what was written down.
fn shape(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut words_of = line.split_whitespace().peekable();
    while let Some(word) = words_of.next() {
        words.push(word.to_owned());
        if word.starts_with("--") {
            words_of.next_if(|value| !value.starts_with("--"));
        }
    }
    words
}

/// Runs the README's commands for the control plane; returns the line that joins a machine.
fn join_line(cluster: &Cluster, lines: &[&str], folder: &Path) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut printed = String::new();
    for line in lines {
        let address = cluster.nodes[0].1[0].to_string();
        let line = line
            .replace(SERVER, &address)
            .replace(DATA_DIR, &cluster.dir.join("control").display().to_string());
        let out = Command::new("sh")
            .args(["-c", &line])
            .current_dir(folder)
            .env("PATH", format!("{}:{path}", cluster.dir.join("bin").display()))
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        printed = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    }
    printed
}

fn is_ready(cluster: &Cluster, node: &str) -> bool {
    let status = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    let out = cluster.kubectl(&["get", "node", node, "-o", status]);
    out.status.success() && out.stdout == b"True"
}

fn joined(cluster: &Cluster, name: &str) -> Machine {
    let blocks = blocks();
    let folder = tempfile::tempdir().expect("a folder");
    let line = join_line(cluster, &blocks[0], folder.path());
    assert_eq!(shape(&line), shape(blocks[1][0]), "the line that is printed is the README's");
    let mut machine = Machine::beside(cluster, name);
    machine.start("agent", &line);
    machine.start("dns", blocks[1][1]);
    let ready = eventually(SOON, || {
        machine.pid("agent");
        machine.pid("dns");
        is_ready(cluster, name)
    });
    let log = std::fs::read_to_string(machine.log("agent")).unwrap_or_default();
    assert!(ready, "{name} is not ready:\n{log}");
    machine
}

fn web_on(node: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: joined}}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  terminationGracePeriodSeconds: 1
  containers:
  - name: nginx
    image: nginx
    readinessProbe: {{httpGet: {{path: /, port: 80}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: joined}}
spec: {{selector: {{app: joined}}, ports: [{{port: 80}}]}}
"
    )
}

/// Objects of the API that tell of a node.
fn traces(cluster: &Cluster, node: &str) -> Vec<String> {
    let names = |args: &[&str], of: &dyn Fn(&Value) -> bool| {
        let all = cluster.json(args);
        let items = all["items"].as_array().cloned().unwrap_or_default();
        let found = items.iter().filter(|item| of(item));
        found.map(|item| format!("{} {}", item["kind"], item["metadata"]["name"])).collect::<Vec<_>>()
    };
    let named = |item: &Value| item["metadata"]["name"] == node;
    let slice = |item: &Value| {
        let endpoints = item["endpoints"].as_array();
        endpoints.into_iter().flatten().any(|endpoint| endpoint["nodeName"] == node)
    };
    let mut found = names(&["get", "nodes"], &named);
    found.extend(names(&["get", "leases", "-n", "kube-node-lease"], &named));
    found.extend(names(&["get", "pods", "-A"], &|item| item["spec"]["nodeName"] == node));
    found.extend(names(&["get", "endpointslices", "-A"], &slice));
    found
}

#[test]
fn a_machine_joins_by_the_readmes_commands_and_leaves_nothing() {
    let cluster = Cluster::running();
    let node = format!("n{}", cluster.nodes.len() + 1);
    let mut machine = joined(&cluster, &node);
    for file in ["kubeconfig", "pki/kubelet-server-current.pem"] {
        let path = machine.state_dir().join(file);
        assert!(eventually(SOON, || path.exists()), "{file}");
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
    assert!(!machine.state_dir().join("pki/kubelet-client.key.tmp").exists());

    let ns = cluster.namespace("join");
    ns.apply(&web_on(&node));
    ns.ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=120s"]);
    // From another node through the Service; from the new one by its name, which its own DNS answers.
    let address = ns.ok(&["get", "service", "joined", "-o", "jsonpath={.spec.clusterIP}"]);
    for (from, target) in [("n1", address), (node.as_str(), "joined".to_owned())] {
        let script =
            format!("for i in 1 2 3 4 5; do wget -q -O - http://{target}/ && exit 0; sleep 1; done; exit 1");
        let page = ns.run_on(from, &format!("client-{from}"), &script);
        assert!(!page.trim().is_empty(), "{from}");
    }
    // The API server checks the certificate that the cluster signed for the node.
    let uname = ns.ok(&["exec", "web", "--", "hostname"]);
    assert_eq!(uname.trim(), "web");
    let requests = cluster.json(&["get", "csr"]);
    let user = format!("system:node:{node}");
    let serving = requests["items"].as_array().into_iter().flatten().find(|request| {
        request["spec"]["signerName"] == "kubernetes.io/kubelet-serving"
            && request["spec"]["username"] == user.as_str()
    });
    let serving = serving.expect("the node asked for a serving certificate");
    assert_eq!(serving["status"]["conditions"][0]["reason"], "AutoApproved", "{serving}");

    cluster.ok(&[
        "drain",
        &node,
        "--ignore-daemonsets",
        "--force",
        "--delete-emptydir-data",
        "--timeout=120s",
    ]);
    machine.stop();
    let delete = blocks()[2][0].replace("worker", &node);
    let words: Vec<&str> = delete.split_whitespace().collect();
    assert_eq!(words[0], "kubectl");
    cluster.ok(&words[1..]);
    assert!(eventually(SOON, || traces(&cluster, &node).is_empty()), "{:?}", traces(&cluster, &node));
    machine.remove();
    let left: Vec<PathBuf> = std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.to_string_lossy().ends_with(&format!("-{node}"))
                && path.to_string_lossy().contains(&id(&cluster))
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The cluster's part of names.
fn id(cluster: &Cluster) -> String {
    let agent = cluster.pid("n1.agent");
    let cgroups = std::fs::read_to_string(format!("/proc/{agent}/cgroup")).expect("a process has cgroups");
    let path = cgroups.lines().find_map(|line| line.rsplit_once(":/")?.1.strip_suffix("/n1/system/agent"));
    path.expect("nodes have a cgroup").to_owned()
}

fn variable(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("`cargo xtask test` sets {name}")).into()
}

/// A cluster of one node beside the one under test, whose certificates live for seconds.
struct ShortLived(PathBuf);

impl ShortLived {
    fn up() -> Self {
        let this = Self(variable("XEBEC_CLUSTER_DIR").with_file_name("short-lived"));
        this.down();
        let mut up = Command::new(variable("XEBEC_XTASK"));
        up.args(["up", "--bare", "--nodes", "1", "--built"])
            .arg(variable("XEBEC_BIN_DIR"))
            .arg("--dir")
            .arg(&this.0);
        up.env("XEBEC_CLUSTER_SIGNING_DURATION", "40s");
        let out = up.stdin(Stdio::null()).output().expect("xtask runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        this
    }

    fn down(&self) {
        let mut down = Command::new(variable("XEBEC_XTASK"));
        down.args(["down", "--purge", "--dir"]).arg(&self.0);
        down.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("xtask runs");
    }
}

impl Drop for ShortLived {
    fn drop(&mut self) {
        self.down();
    }
}

#[test]
fn a_nodes_certificates_are_renewed_while_it_runs() {
    let beside = ShortLived::up();
    let cluster = Cluster::at(&beside.0);
    let mut machine = joined(&cluster, "n2");
    let ns = cluster.namespace("renewed");
    ns.apply(&web_on("n2"));
    ns.ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=120s"]);
    let (agent, dns) = (machine.pid("agent"), machine.pid("dns"));
    let files = ["kubeconfig", "pki/kubelet-server-current.pem"].map(|file| machine.state_dir().join(file));
    let read = || files.each_ref().map(|file| std::fs::read_to_string(file).unwrap_or_default());
    // Until its request is signed, the machine shows a certificate that nobody can check.
    let listens =
        || ns.command(&["exec", "web", "--", "true"]).output().is_ok_and(|out| out.status.success());
    assert!(eventually(SOON, listens), "the machine's serving certificate was not signed");
    let mut follow = ns
        .command(&["exec", "web", "--", "sh", "-c", "for i in $(seq 1 400); do echo $i; sleep 0.5; done"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl runs");
    // Three lives, one after the other: whoever held on to the first could do nothing any more.
    for life in 1..=3 {
        let before = read();
        let changed = || read().iter().zip(&before).all(|(now, before)| !now.is_empty() && now != before);
        assert!(eventually(SOON, changed), "life {life} did not begin");
        assert!(is_ready(&cluster, "n2"), "life {life}");
        assert_eq!(ns.ok(&["exec", "web", "--", "echo", "still", "here"]).trim(), "still here");
    }
    assert!(follow.try_wait().expect("a child").is_none(), "the stream goes on");
    follow.kill().expect("it runs");
    follow.wait().expect("a child");
    assert_eq!((machine.pid("agent"), machine.pid("dns")), (agent, dns), "nothing was started again");
    // What is new gets through, too: a pod that is deployed now, by a name that is asked for now.
    let page = ns.run_on("n2", "late", "wget -q -O - http://joined/");
    assert!(!page.trim().is_empty());
    let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
    assert_eq!(ns.ok(&["get", "pod", "web", "-o", restarts]), "0");
    let metrics = cluster.ok(&["get", "--raw", "/api/v1/nodes/n2/proxy/metrics"]);
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or_else(|| panic!("{name} is missing:\n{metrics}"))
    };
    assert!(value("kubelet_certificate_manager_client_ttl_seconds ") > 0.0);
    assert!(value("kubelet_certificate_manager_server_ttl_seconds ") > 0.0);
    drop(ns);
    machine.remove();
}
