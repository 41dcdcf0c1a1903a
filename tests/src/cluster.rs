//! A running development cluster as a user sees it: kubectl, node addresses, pods that report through their logs.
//!
//! In: the folder that `cargo xtask test` names in `XEBEC_CLUSTER_DIR`. Out: helpers of the `cluster_*` suites.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The cluster under test.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub dir: PathBuf,
    kubectl: PathBuf,
    /// Addresses of each node, IPv4 first.
    pub nodes: Vec<(String, [IpAddr; 2])>,
}

/// A namespace of one test, deleted at its end.
pub struct Namespace<'a> {
    pub cluster: &'a Cluster,
    pub name: String,
}

// === impl Cluster ===

impl Cluster {
    /// The cluster that was started for this run.
    ///
    /// # Panics
    /// When the suite is run without one: `cargo xtask test cluster` starts it.
    pub fn running() -> Self {
        let dir = std::env::var_os("XEBEC_CLUSTER_DIR")
            .expect("run by `cargo xtask test cluster`, which starts a cluster");
        Self::at(Path::new(&dir))
    }

    /// The cluster with this folder.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn at(dir: &Path) -> Self {
        let kubectl = std::env::var_os("XEBEC_KUBECTL").expect("XEBEC_KUBECTL names kubectl");
        let mut cluster = Self { dir: dir.to_owned(), kubectl: kubectl.into(), nodes: Vec::new() };
        let nodes = cluster.json(&["get", "nodes"]);
        for node in nodes["items"].as_array().expect("a list of nodes") {
            let addresses: Vec<IpAddr> = node["status"]["addresses"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|a| a["type"] == "InternalIP")
                .filter_map(|a| a["address"].as_str()?.parse().ok())
                .collect();
            let addresses = addresses.try_into().expect("every node has an IPv4 and an IPv6 address");
            cluster.nodes.push((node["metadata"]["name"].as_str().unwrap_or_default().to_owned(), addresses));
        }
        cluster
    }

    /// A fresh namespace for one test.
    pub fn namespace(&self, name: &str) -> Namespace<'_> {
        self.ok(&["create", "namespace", name]);
        Namespace { cluster: self, name: name.to_owned() }
    }

    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("kubectl runs")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.dir.join("kubeconfig")).args(args).stdin(Stdio::null());
        command
    }

    /// Standard output of a kubectl call that must succeed.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, args: &[&str]) -> String {
        let out = self.kubectl(args);
        assert!(out.status.success(), "kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let mut with_output = args.to_vec();
        with_output.extend(["-o", "json"]);
        serde_json::from_str(&self.ok(&with_output)).expect("kubectl prints JSON")
    }

    pub fn apply(&self, manifest: &str) -> String {
        let mut child = self
            .command(&["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        child.stdin.take().expect("piped").write_all(manifest.as_bytes()).expect("kubectl reads");
        let out = child.wait_with_output().expect("kubectl ends");
        assert!(out.status.success(), "kubectl apply: {}\n{manifest}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Pid of one of the cluster's processes, from the record that `up` keeps.
    pub fn pid(&self, process: &str) -> i32 {
        let record = std::fs::read(self.dir.join("processes").join(format!("{process}.json")))
            .expect("a process record");
        let record: Value = serde_json::from_slice(&record).expect("a JSON record");
        i32::try_from(record["pid"].as_i64().expect("a pid")).expect("a pid")
    }

    /// Starts what is missing, as a user would: `cargo xtask up`'s own program, without building.
    pub fn up_again(&self) -> Child {
        let xtask = std::env::var_os("XEBEC_XTASK").expect("XEBEC_XTASK names xtask");
        let mut command = Command::new(xtask);
        command
            .args(["up", "--bare", "--built"])
            .arg(std::env::var_os("XEBEC_BIN_DIR").expect("XEBEC_BIN_DIR"));
        command.arg("--dir").arg(&self.dir).arg("--nodes").arg(self.nodes.len().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("xtask runs")
    }

    /// Processes of a pod, by its uid, from the cgroup tree (which names pods by uid).
    pub fn pod_processes(&self, uid: &str) -> Vec<i32> {
        let mut found = Vec::new();
        collect_processes(Path::new("/sys/fs/cgroup"), uid, false, 0, &mut found);
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn collect_processes(dir: &Path, uid: &str, inside: bool, depth: u32, found: &mut Vec<i32>) {
    if inside {
        let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        found.extend(procs.lines().filter_map(|l| l.parse::<i32>().ok()));
    }
    if depth > 8 {
        return;
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            // The cgroup's name may spell the uid with underscores, as the systemd driver does.
            let here = inside || name.contains(uid) || name.contains(&uid.replace('-', "_"));
            collect_processes(&entry.path(), uid, here, depth + 1, found);
        }
    }
}

// === impl Namespace ===

impl Namespace<'_> {
    pub fn ok(&self, args: &[&str]) -> String {
        self.cluster.ok(&self.with(args))
    }

    pub fn json(&self, args: &[&str]) -> Value {
        self.cluster.json(&self.with(args))
    }

    pub fn command(&self, args: &[&str]) -> Command {
        self.cluster.command(&self.with(args))
    }

    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.cluster.kubectl(&self.with(args))
    }

    /// Applies a manifest whose objects name no namespace.
    pub fn apply(&self, manifest: &str) {
        let mut child = self
            .command(&["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        child.stdin.take().expect("piped").write_all(manifest.as_bytes()).expect("kubectl reads");
        let out = child.wait_with_output().expect("kubectl ends");
        assert!(out.status.success(), "kubectl apply: {}\n{manifest}", String::from_utf8_lossy(&out.stderr));
    }

    pub fn rolled_out(&self, deployment: &str) {
        self.ok(&["rollout", "status", &format!("deployment/{deployment}"), "--timeout=120s"]);
    }

    /// Runs a shell line in a pod of its own on a node and returns what it printed.
    ///
    /// # Panics
    /// When it does not succeed; with what the pod said.
    pub fn run_on(&self, node: &str, pod: &str, script: &str) -> String {
        self.apply(&shell_pod(node, pod, script));
        self.finished(pod)
    }

    /// Waits for a pod to end well and returns its log.
    pub fn finished(&self, pod: &str) -> String {
        let mut phase = String::new();
        let ended = eventually(Duration::from_secs(90), || {
            phase = self.ok(&["get", "pod", pod, "-o", "jsonpath={.status.phase}"]);
            phase == "Succeeded" || phase == "Failed"
        });
        let log = String::from_utf8_lossy(&self.kubectl(&["logs", pod]).stdout).into_owned();
        if !ended || phase != "Succeeded" {
            let described =
                String::from_utf8_lossy(&self.kubectl(&["describe", "pod", pod]).stdout).into_owned();
            panic!("pod {pod} is {phase}; its log:\n{log}\n{described}");
        }
        log
    }

    fn with<'b>(&'b self, args: &[&'b str]) -> Vec<&'b str> {
        let mut all = vec!["--namespace", self.name.as_str()];
        all.extend(args);
        all
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // A failing test keeps its namespace for the logs; the whole cluster goes away anyway.
        if !std::thread::panicking() {
            self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
        }
    }
}

/// A busybox pod that runs one shell line and ends.
pub fn shell_pod(node: &str, pod: &str, script: &str) -> String {
    let script = serde_json::to_string(script).expect("a string");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}, labels: {{app: {pod}}}}}\nspec:\n  restartPolicy: Never\n  \
         nodeSelector: {{kubernetes.io/hostname: {node}}}\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - {{name: main, image: busybox, command: [sh, -c, {script}]}}\n"
    )
}

/// Asks again until true or the time is over. For what happens in other programs and has no event to wait for.
pub fn eventually(limit: Duration, mut check: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if check() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// One HTTP/1.0 request; the body, or why there is none.
///
/// # Errors
/// What the socket says.
pub fn http_get(address: IpAddr, port: u16, timeout: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(format!("answer: {:?}", answer.lines().next()))),
    }
}

/// Two nginx pods behind a dual-stack NodePort Service.
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: nginx
        image: nginx
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80}]
";

/// Deploys [`WEB`] into a fresh namespace; also returns its node port.
///
/// # Panics
/// When it does not come up.
pub fn deploy_web<'a>(cluster: &'a Cluster, namespace: &str) -> (Namespace<'a>, u16) {
    let ns = cluster.namespace(namespace);
    ns.apply(WEB);
    ns.rolled_out("web");
    let port = ns.ok(&["get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
    (ns, port.parse().expect("a node port"))
}
