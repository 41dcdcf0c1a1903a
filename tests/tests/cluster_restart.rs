//! Restarts that nobody notices: the agent killed under live connections, the control plane killed under writes.
//!
//! In: a running cluster of two nodes. Out: no reset connection, no restarted container, no lost acknowledged write.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xebec_tests::cluster::{Cluster, deploy_web, eventually, shell_pod};

const SOON: Duration = Duration::from_secs(90);
const KILLS: usize = 10;

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

#[test]
fn agents_killed_ten_times_break_no_connection_and_restart_no_container() {
    let cluster = Cluster::running();
    let (ns, port) = deploy_web(&cluster, "restart-agent");
    // Through the ClusterIP: one connection from a pod, a request every 200 ms, until told to stop by its end.
    let talk = "R='GET / HTTP/1.1\\r\\nHost: t\\r\\n\\r\\n'; i=0; \
                while [ $i -lt 300 ]; do printf \"$R\"; i=$((i+1)); sleep 0.2; done | nc web 80 | grep -c '200 OK'";
    for (node, _) in &cluster.nodes {
        ns.apply(&shell_pod(node, &format!("talker-{node}"), talk));
    }
    ns.ok(&["wait", "--for=jsonpath={.status.phase}=Running", "pod", "--all", "--timeout=60s"]);
    let mut connections: Vec<TcpStream> = cluster
        .nodes
        .iter()
        .flat_map(|(_, addresses)| addresses.iter().cycle().take(20))
        .map(|address| {
            let stream = TcpStream::connect(SocketAddr::new(*address, port)).expect("a connection");
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            stream
        })
        .collect();
    for round in 0..KILLS {
        for (node, _) in &cluster.nodes {
            kill(Pid::from_raw(cluster.pid(&format!("{node}.agent"))), Signal::SIGKILL)
                .expect("the agent is alive");
        }
        for (index, stream) in connections.iter_mut().enumerate() {
            let answer = request(stream).unwrap_or_else(|e| panic!("round {round}, connection {index}: {e}"));
            assert!(answer.contains("200 OK"), "{answer}");
        }
        assert!(cluster.up_again().wait().expect("xtask up").success(), "the agents are started again");
        for stream in &mut connections {
            request(stream).expect("an answer after the restart");
        }
    }
    for (node, _) in &cluster.nodes {
        let log = ns.finished(&format!("talker-{node}"));
        assert_eq!(log.trim(), "300", "answers on one connection through the ClusterIP from {node}");
    }
    let restarts =
        ns.ok(&["get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"]);
    assert!(restarts.split_whitespace().all(|r| r == "0"), "restart counts: {restarts}");
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
