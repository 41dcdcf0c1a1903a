//! Restarts that nobody notices: the agent killed under live connections, the control plane killed under writes.
//!
//! In: a running cluster of two nodes. Out: no reset connection, no restarted container, no lost acknowledged write.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xebec_tests::cluster::{Cluster, Namespace, deploy_web, eventually};
use xebec_tests::load::{LoadClient, Report};

const SOON: Duration = Duration::from_secs(90);

/// One request on a kept-alive connection; the answer's first line.
fn request(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0_u8; 4096];
    while !answer.ends_with(b"</html>\n") {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..length]);
    }
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}

/// Echo servers and clients in pods on each node, clients of NodePorts on the host, DNS queries: everything that a restart
/// could disturb.
struct Load<'a> {
    ns: Namespace<'a>,
    clients: Vec<LoadClient>,
    /// Ended last.
    _servers: Vec<LoadClient>,
    conditions: String,
}

// === impl Load ===

impl<'a> Load<'a> {
    fn start(cluster: &'a Cluster, name: &str) -> Self {
        let ns = cluster.namespace(name);
        for (node, _) in &cluster.nodes {
            for role in ["echo", "client"] {
                ns.apply(&idle_pod(node, role));
            }
        }
        ns.apply(ECHO_SERVICE);
        ns.ok(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"]);
        let servers = cluster.nodes.iter().map(|(node, _)| {
            let pid = container(&ns, &format!("echo-{node}")).to_string();
            start(&["--join", &pid, "--serve", &ECHO_PORT.to_string()])
        });
        let servers = servers.collect();
        let service = ns.json(&["get", "service", "echo"]);
        let dns = cluster.json(&["get", "service", "kube-dns", "--namespace", "kube-system"]);
        let node_port = service["spec"]["ports"][0]["nodePort"].as_u64().expect("a node port").to_string();
        // The proxies follow within moments; the load itself is to find every address answering.
        assert!(eventually(SOON, || targets(&service, &node_port, cluster).iter().all(answers)));
        let name = format!("echo.{name}.svc.cluster.local");
        let mut clients = Vec::new();
        for (node, addresses) in &cluster.nodes {
            let pid = container(&ns, &format!("client-{node}")).to_string();
            let mut inside = vec!["--join".to_owned(), pid, "--connections".into(), CONNECTIONS.to_string()];
            for address in cluster_ips(&service) {
                inside.extend(["--connect".into(), SocketAddr::new(address, ECHO_PORT).to_string()]);
            }
            for address in cluster_ips(&dns) {
                inside.extend(["--dns".into(), SocketAddr::new(address, 53).to_string()]);
            }
            inside.extend(["--name".into(), name.clone(), "--rate".into(), RATE.to_string()]);
            let mut outside = vec!["--connections".to_owned(), CONNECTIONS.to_string()];
            for address in addresses {
                let port = node_port.parse().expect("a port");
                outside.extend(["--connect".into(), SocketAddr::new(*address, port).to_string()]);
            }
            for arguments in [inside, outside] {
                clients.push(LoadClient::start(&arguments).expect("the load starts"));
            }
        }
        let conditions = conditions(cluster, &ns);
        Self { ns, clients, _servers: servers, conditions }
    }

    /// Ends it: nothing was reset, late or lost, nothing flipped or was restarted.
    fn end_undisturbed(self, cluster: &Cluster, after: &str) {
        let mut sum = Report::default();
        for client in self.clients {
            sum.add(&client.report().expect("the load went on to its end"));
        }
        println!("{after}: {sum:?}");
        assert!(sum.requests > 1000 && sum.queries > 1000, "too little happened to prove anything");
        assert_eq!(sum.failed, 0, "{after}: {sum:?}");
        // Two nodes, their load and their builds share the cores here; a soak has the machine for itself.
        let late = |all: u64| if soaks() { 0 } else { all / 100 };
        assert!(sum.stalls <= late(sum.requests), "{after}: {sum:?}");
        assert!(sum.slow_queries <= late(sum.queries), "{after}: {sum:?}");
        assert_eq!(conditions(cluster, &self.ns), self.conditions, "{after}: a condition flipped");
    }
}

const ECHO_PORT: u16 = 7777;
const ECHO_SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {type: NodePort, ipFamilyPolicy: RequireDualStack, selector: {role: echo}, ports: [{port: 7777}]}
";
/// Per client and address: two hundred in all.
const CONNECTIONS: usize = 25;
/// DNS queries a second, per client and address: five hundred in all.
const RATE: u32 = 125;

fn soaks() -> bool {
    std::env::var_os("XEBEC_SOAK").is_some()
}

fn start(arguments: &[&str]) -> LoadClient {
    let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
    LoadClient::start(&arguments).expect("it starts")
}

fn idle_pod(node: &str, role: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {role}-{node}, labels: {{role: {role}}}}}\nspec:\n  \
         nodeSelector: {{kubernetes.io/hostname: {node}}}\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - {{name: main, image: busybox, command: [sleep, '100000']}}\n"
    )
}

/// A process of a pod's container.
fn container(ns: &Namespace<'_>, pod: &str) -> i32 {
    let uid = ns.ok(&["get", "pod", pod, "-o", "jsonpath={.metadata.uid}"]);
    *ns.cluster.pod_processes(&uid).first().expect("a process of the pod")
}

fn cluster_ips(service: &Value) -> Vec<IpAddr> {
    let addresses = service["spec"]["clusterIPs"].as_array().expect("cluster addresses");
    addresses.iter().map(|a| a.as_str().and_then(|a| a.parse().ok()).expect("an address")).collect()
}

/// Every NodePort address of the echo Service.
fn targets(service: &Value, port: &str, cluster: &Cluster) -> Vec<SocketAddr> {
    assert_eq!(cluster_ips(service).len(), 2, "the Service has both families");
    let port = port.parse().expect("a port");
    let addresses = cluster.nodes.iter().flat_map(|(_, addresses)| addresses);
    addresses.map(|address| SocketAddr::new(*address, port)).collect()
}

fn answers(target: &SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(target, Duration::from_secs(1)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && stream.write_all(b"x").is_ok()
        && stream.read_exact(&mut [0]).is_ok()
}

/// When nodes and pods last changed between ready and not, and how often containers were restarted.
fn conditions(cluster: &Cluster, ns: &Namespace<'_>) -> String {
    let ready = "{range .items[*]}{.metadata.name} {.status.conditions[?(@.type==\"Ready\")]} \
                 {.status.containerStatuses[*].restartCount}{end}";
    let since = |text: &str| {
        let word = |word: &&str| word.contains("lastTransitionTime") || word.contains("\"status\"");
        let words: Vec<&str> = text.split([',', '{', '}']).filter(word).collect();
        words.join(" ")
    };
    let nodes = cluster.ok(&["get", "nodes", "-o", &format!("jsonpath={ready}")]);
    let pods = ns.ok(&["get", "pods", "-o", &format!("jsonpath={ready}")]);
    let restarts =
        ns.ok(&["get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"]);
    format!("{} | {} | {restarts}", since(&nodes), since(&pods))
}

/// When each node last renewed its Lease.
fn heartbeats(cluster: &Cluster) -> Vec<String> {
    let leases = ["get", "leases", "--namespace", "kube-node-lease"];
    let times = cluster.ok(&[&leases[..], &["-o", "jsonpath={.items[*].spec.renewTime}"]].concat());
    times.split_whitespace().map(str::to_owned).collect()
}

/// Kills a process of every node, again and again, each time started anew, under load.
fn killed_under_load(process: &str, namespace: &str, (rounds, soak): (usize, usize)) {
    let cluster = Cluster::running();
    let load = Load::start(&cluster, namespace);
    let rounds = if soaks() { soak } else { rounds };
    for _ in 0..rounds {
        let beats = heartbeats(&cluster);
        for (node, _) in &cluster.nodes {
            kill(Pid::from_raw(cluster.pid(&format!("{node}.{process}"))), Signal::SIGKILL)
                .expect("it is alive");
        }
        assert!(cluster.up_again().wait().expect("xtask up").success(), "it is started again");
        // An agent that is never left alone long enough to say that it lives is lost, and rightly so.
        if process == "agent" {
            let all_beat = || heartbeats(&cluster).iter().zip(&beats).all(|(now, before)| now != before);
            assert!(eventually(SOON, all_beat), "an agent does not renew its lease");
        }
    }
    load.end_undisturbed(&cluster, &format!("{rounds} kills of every {process}"));
}

#[test]
fn agents_killed_ten_times_under_load_disturb_nobody() {
    killed_under_load("agent", "restart-agent", (10, 50));
}

#[test]
fn containerd_killed_under_load_disturbs_nobody() {
    killed_under_load("containerd", "restart-containerd", (4, 20));
}

#[test]
fn control_killed_under_the_cluster_comes_back_with_every_write() {
    let cluster = Cluster::running();
    let (ns, port) = deploy_web(&cluster, "restart-control");
    for round in 0..5 {
        ns.ok(&["create", "configmap", &format!("round-{round}"), "--from-literal=a=b"]);
        kill(Pid::from_raw(cluster.pid("n1.control")), Signal::SIGKILL).expect("control is alive");
        let mut stream =
            TcpStream::connect(SocketAddr::new(cluster.nodes[0].1[0], port)).expect("traffic goes on");
        assert!(request(&mut stream).expect("an answer without a control plane").contains("200 OK"));
        assert!(cluster.up_again().wait().expect("xtask up").success(), "control is started again");
        ns.ok(&["get", "configmap", &format!("round-{round}")]);
    }
    ns.ok(&["scale", "deployment/web", "--replicas=3"]);
    assert!(eventually(SOON, || {
        ns.ok(&["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"]) == "3"
    }));
}
