//! Into running containers with real kubectl: exec, attach, cp, port-forward, logs, and the proxies.
//!
//! In: a running cluster of two nodes. Out: one test per promise, judged by kubectl's output and exit code; each in a
//! namespace of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use xebec_tests::cluster::{Cluster, Namespace, deploy_web, eventually, http_get};
use xebec_tests::pty::Terminal;

const SOON: Duration = Duration::from_secs(60);
const REQUEST: Duration = Duration::from_secs(10);

/// A busybox pod; `more` goes into its container.
fn start_pod(ns: &Namespace<'_>, name: &str, script: &str, more: &str) {
    let script = serde_json::to_string(script).expect("kubectl goes along");
    ns.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - {{name: main, image: busybox, command: [sh, -c, {script}]{more}}}\n"
    ));
    ns.ok(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
}

/// A pod to run commands in.
fn box_pod(ns: &Namespace<'_>) {
    start_pod(ns, "box", "sleep 3600", "");
}

/// Runs kubectl with bytes on its stdin.
fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl goes along");
    let mut stdin = child.stdin.take().expect("kubectl goes along");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // The command may end before it has read all.
        stdin.write_all(&input).ok();
    });
    let output = child.wait_with_output().expect("kubectl goes along");
    writer.join().expect("kubectl goes along");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn exec_keeps_streams_apart_and_returns_the_exit_code() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-exec");
    box_pod(&ns);
    let out = ns.kubectl(&["exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(out.status.code(), Some(7), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "out\n");
    assert_eq!(text(&out.stderr), "err\ncommand terminated with exit code 7\n");
    assert_eq!(ns.ok(&["exec", "box", "--", "echo", "a b", "$HOME"]), "a b $HOME\n", "no shell in between");
    let missing = ns.kubectl(&["exec", "box", "--", "no-such-program"]);
    assert!(!missing.status.success());
    assert!(text(&missing.stderr).contains("no-such-program"), "{}", text(&missing.stderr));
    let no_container = ns.kubectl(&["exec", "box", "-c", "nobody", "--", "true"]);
    assert!(text(&no_container.stderr).contains("container nobody is not valid for pod box"));
    let no_pod = ns.kubectl(&["exec", "nobody", "--", "true"]);
    assert_eq!(text(&no_pod.stderr), "Error from server (NotFound): pods \"nobody\" not found\n");
}

#[test]
fn stdin_ends_by_half_and_nothing_is_lost_either_way() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-stdin");
    box_pod(&ns);
    let sorted = with_input(&mut ns.command(&["exec", "-i", "box", "--", "sort"]), b"b\na\n");
    assert_eq!(text(&sorted.stdout), "a\nb\n", "sort answers only after the end: {}", text(&sorted.stderr));
    let empty = with_input(&mut ns.command(&["exec", "-i", "box", "--", "cat"]), b"");
    assert!(empty.status.success() && empty.stdout.is_empty());
    let large: Vec<u8> = (0..8_000_000_u32).map(|i| (i % 251) as u8).collect();
    let echoed = with_input(&mut ns.command(&["exec", "-i", "box", "--", "cat"]), &large);
    assert!(echoed.stdout == large, "{} of {} bytes came back", echoed.stdout.len(), large.len());
    let ignored = with_input(&mut ns.command(&["exec", "-i", "box", "--", "true"]), &large);
    assert!(ignored.status.success(), "input that nobody reads: {}", text(&ignored.stderr));
}

#[test]
fn a_command_ends_with_its_client() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-orphan");
    box_pod(&ns);
    let mut client = ns
        .command(&["exec", "box", "--", "sh", "-c", "echo there; exec sleep 4321"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "there\n");
    client.kill().unwrap();
    client.wait().unwrap();
    let left = || ns.ok(&["exec", "box", "--", "ps"]).contains("sleep 4321");
    assert!(eventually(SOON, || !left()), "the command goes on without its client");
}

#[test]
fn a_background_child_does_not_hold_exec_up() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-background");
    box_pod(&ns);
    let begun = std::time::Instant::now();
    assert_eq!(ns.ok(&["exec", "box", "--", "sh", "-c", "sleep 60 & echo done"]), "done\n");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn exec_at_a_terminal_follows_its_size() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-tty");
    box_pod(&ns);
    let mut terminal = Terminal::start(&mut ns.command(&["exec", "-it", "box", "--", "sh"]), 101, 37);
    // As everywhere, the terminal is there a moment before its size is.
    let sized = eventually(SOON, || {
        terminal.types("stty size | tr ' ' x; echo asked\n");
        terminal.shows("asked\r\n").contains("37x101")
    });
    assert!(sized, "the first size arrives");
    terminal.types("echo $TERM; tty && echo is-a-$((40 + 2))\n");
    terminal.shows("is-a-42");
    terminal.resize(77, 22);
    let resized = eventually(SOON, || {
        terminal.types("stty size | tr ' ' x; echo asked\n");
        let shown = terminal.shows("asked\r\n");
        shown.contains("22x77")
    });
    assert!(resized, "the new size arrives");
    terminal.types("\u{4}");
    let (status, shown) = terminal.ends();
    assert!(status.success(), "end of file ends the shell: {shown}");
    let mut terminal =
        Terminal::start(&mut ns.command(&["exec", "-it", "box", "--", "sh", "-c", "sleep 600"]), 80, 24);
    std::thread::park_timeout(Duration::from_secs(1));
    terminal.types("\u{3}");
    let (status, shown) = terminal.ends();
    assert_eq!(status.code(), Some(130), "interrupted by a key: {shown}");
}

#[test]
fn files_are_copied_both_ways() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-cp");
    box_pod(&ns);
    let folder = std::env::temp_dir().join(format!("xebec-cp-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("in/sub")).unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| (i * 7 % 253) as u8).collect();
    std::fs::write(folder.join("in/large"), &large).unwrap();
    std::fs::write(folder.join("in/sub/small"), "x").unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    ns.ok(&["cp", &path("in"), "box:/tmp/copied"]);
    let counted = ns.ok(&["exec", "box", "--", "wc", "-c", "/tmp/copied/large", "/tmp/copied/sub/small"]);
    assert!(
        counted.contains("3000000 /tmp/copied/large") && counted.contains("1 /tmp/copied/sub/small"),
        "{counted}"
    );
    ns.ok(&["cp", "box:/tmp/copied/large", &path("back")]);
    assert!(std::fs::read(folder.join("back")).unwrap() == large, "the copy of the copy differs");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A call that goes on; ends with the test.
struct Background(Child);

impl Background {
    fn start(command: &mut Command) -> (Self, BufReader<ChildStdout>) {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("kubectl goes along");
        let stdout = BufReader::new(child.stdout.take().expect("kubectl goes along"));
        (Self(child), stdout)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts `kubectl port-forward`; answers the local port.
fn forward(ns: &Namespace<'_>, target: &str, port: &str) -> (Background, u16) {
    let (process, mut stdout) = Background::start(&mut ns.command(&["port-forward", target, port]));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("kubectl goes along");
    let local = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
    let local = local.unwrap_or_else(|| panic!("kubectl says {line:?}")).parse().expect("kubectl goes along");
    // Its further lines must not fill the pipe.
    std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    (process, local)
}

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn ports_are_forwarded_under_load() {
    let cluster = Cluster::running();
    let (ns, _) = deploy_web(&cluster, "streams-forward");
    for target in ["deployment/web", "service/web"] {
        let (_process, port) = forward(&ns, target, ":80");
        let failed: usize = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..10)
                .map(|_| {
                    scope.spawn(|| {
                        let page = |_| http_get(LOCALHOST, port, REQUEST);
                        (0..30)
                            .map(page)
                            .filter(|page| !page.as_ref().is_ok_and(|p| p.contains("nginx")))
                            .count()
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        assert_eq!(failed, 0, "of 300 requests through {target}");
    }
}

#[test]
fn forwarded_connections_carry_megabytes_and_close_by_halves() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-bulk");
    start_pod(&ns, "echo", "while true; do nc -l -p 7 -e cat; done", "");
    let (_process, port) = forward(&ns, "pod/echo", ":7");
    let address = SocketAddr::new(LOCALHOST, port);
    let sent: Vec<u8> = (0..4_000_000_u32).map(|i| (i % 249) as u8).collect();
    let mut stream = TcpStream::connect_timeout(&address, REQUEST).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let to_send = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&to_send).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == sent, "{} of {} bytes came back", got.len(), sent.len());
}

#[test]
fn a_finished_pod_is_not_a_way_into_the_nodes_loopback() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-finished");
    ns.ok(&["run", "done", "--image=busybox", "--restart=Never", "--", "true"]);
    let phase = |pod: &str| ns.ok(&["get", "pod", pod, "-o", "jsonpath={.status.phase}"]);
    assert!(eventually(SOON, || phase("done") == "Succeeded"), "{}", phase("done"));
    let node = ns.ok(&["get", "pod", "done", "-o", "jsonpath={.spec.nodeName}"]);
    // The node's own proxy listens on this port of the node's loopback. What kubelets answer is shown at this verbosity.
    let path = format!("/api/v1/nodes/{node}/proxy/portForward/{}/done?port=10249", ns.name);
    let refused = || text(&cluster.kubectl(&["get", "--raw", &path, "-v=8"]).stderr);
    assert!(eventually(SOON, || refused().contains("is not running")), "{}", refused());
}

#[test]
fn a_port_nobody_listens_on_is_told() {
    let cluster = Cluster::running();
    let (ns, _) = deploy_web(&cluster, "streams-refused");
    let mut command = ns.command(&["port-forward", "deployment/web", ":81"]);
    let (mut process, mut stdout) = Background::start(command.stderr(Stdio::piped()));
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let local = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
    let port = local.unwrap_or_else(|| panic!("kubectl says {line:?}")).parse().unwrap();
    assert!(http_get(LOCALHOST, port, REQUEST).is_err(), "nobody listens there");
    // kubectl gives up after such an error.
    drop(stdout);
    let mut said = String::new();
    process.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("error forwarding port 81") && said.contains("Connection refused"), "{said}");
}

#[test]
fn attach_shows_what_a_container_says_and_lets_it_hear() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-attach");
    start_pod(&ns, "talker", "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.2; done", "");
    let (_process, mut stdout) = Background::start(&mut ns.command(&["attach", "talker"]));
    let mut lines = Vec::new();
    while lines.len() < 5 {
        let mut line = String::new();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "attach ended after {lines:?}");
        lines.extend(line.trim().strip_prefix("line ").map(|number| number.parse::<u32>().unwrap()));
    }
    assert!(lines.windows(2).all(|pair| pair[1] == pair[0] + 1), "{lines:?}");

    start_pod(
        &ns,
        "listener",
        "while read word; do echo heard $word; echo to stderr >&2; done; echo over",
        ", stdin: true",
    );
    let mut command = ns.command(&["attach", "-i", "listener"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut line = String::new();
    for word in ["one", "two"] {
        writeln!(stdin, "{word}").unwrap();
        line.clear();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, format!("heard {word}\n"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Without stdinOnce the next client finds the container still listening.
    let mut again = ns.command(&["attach", "-i", "listener"]);
    let mut child = again.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.as_ref().unwrap(), "three").unwrap();
    line.clear();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "heard three\n");
    child.kill().unwrap();
    child.wait().unwrap();
    let log = ns.ok(&["logs", "listener"]);
    assert!(["heard one", "heard two", "heard three", "to stderr"].iter().all(|l| log.contains(l)), "{log}");
}

#[test]
fn run_attached_gives_its_input_and_takes_its_exit_code() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-run");
    let run = ["run", "one", "-i", "--rm", "--quiet", "--restart=Never", "--image=busybox", "--"];
    let script = "cat > /tmp/in; sort /tmp/in; exit 3";
    let out = with_input(&mut ns.command(&[&run[..], &["sh", "-c", script]].concat()), b"b\na\n");
    assert!(text(&out.stdout).contains("a\nb\n"), "{} {}", text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(3), "{}", text(&out.stderr));
    let gone = || text(&ns.kubectl(&["get", "pod", "one"]).stderr).contains("NotFound");
    assert!(eventually(SOON, gone), "--rm removes the pod");
}

#[test]
fn attach_at_a_terminal_is_the_containers_own() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-attach-tty");
    start_pod(&ns, "shell", "exec sh", ", stdin: true, tty: true");
    let mut terminal = Terminal::start(&mut ns.command(&["attach", "-it", "shell"]), 90, 30);
    let sized = eventually(SOON, || {
        terminal.types("stty size | tr ' ' x; echo asked\n");
        terminal.shows("asked\r\n").contains("30x90")
    });
    assert!(sized, "the container's terminal has the client's size");
    terminal.types("exit 0\n");
    let (status, shown) = terminal.ends();
    assert!(status.success(), "{shown}");
}

#[test]
fn logs_obey_every_option() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-logs");
    let script = "if [ -e /keep/second ]; then echo second run; else touch /keep/second; echo first run; exit 1; fi; \
                  for i in 1 2 3 4 5; do echo out $i; done; sleep 1; echo problem >&2; sleep 3; echo late; sleep 3600";
    ns.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: talker}}\nspec:\n  terminationGracePeriodSeconds: 0\n  volumes: \
         [{{name: keep, emptyDir: {{}}}}]\n  containers:\n  - name: main\n    image: busybox\n    command: [sh, -c, {}]\n    \
         volumeMounts: [{{name: keep, mountPath: /keep}}]\n",
        serde_json::to_string(script).unwrap()
    ));
    assert!(eventually(SOON, || text(&ns.kubectl(&["logs", "talker"]).stdout).contains("out 5")));
    let (_process, mut followed) = Background::start(&mut ns.command(&["logs", "-f", "talker", "--tail=1"]));
    let mut line = String::new();
    while line.trim() != "late" {
        line.clear();
        assert!(followed.read_line(&mut line).unwrap() > 0, "the log ends before its last line");
    }
    assert_eq!(ns.ok(&["logs", "talker", "--previous"]), "first run\n");
    assert_eq!(ns.ok(&["logs", "talker", "--tail=2"]), "problem\nlate\n");
    assert_eq!(ns.ok(&["logs", "talker", "--limit-bytes=10"]), "second run");
    let whole = ns.ok(&["logs", "talker", "--timestamps"]);
    let (time, rest) = whole.lines().last().unwrap().split_once(' ').unwrap();
    assert_eq!(rest, "late");
    assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    assert_eq!(ns.ok(&["logs", "talker", &format!("--since-time={time}")]), "late\n");
    assert!(ns.ok(&["logs", "talker", "--since=1h"]).contains("out 1"));
    let path = format!("/api/v1/namespaces/{}/pods/talker/log", ns.name);
    assert_eq!(cluster.ok(&["get", "--raw", &format!("{path}?stream=Stderr")]), "problem\n");
    let stdout = cluster.ok(&["get", "--raw", &format!("{path}?stream=Stdout")]);
    assert!(stdout.contains("late") && !stdout.contains("problem"), "{stdout}");
    for (query, said) in [
        ("tailLines=-1", "must be greater than or equal to 0"),
        ("limitBytes=0", "must be greater than 0"),
        ("stream=Stdout&tailLines=1", "mutually exclusive"),
        ("stream=Both", "supported values"),
    ] {
        let refused = cluster.kubectl(&["get", "--raw", &format!("{path}?{query}")]);
        assert!(
            !refused.status.success() && text(&refused.stderr).contains(said),
            "{query}: {}",
            text(&refused.stderr)
        );
    }
}

#[test]
fn nodes_pods_and_services_are_reached_through_the_api_server() {
    let cluster = Cluster::running();
    let (ns, _) = deploy_web(&cluster, "streams-proxy");
    let pod = ns.ok(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]);
    let raw = |path: &str| cluster.ok(&["get", "--raw", path]);
    let base = format!("/api/v1/namespaces/{}", ns.name);
    for path in ["pods/{}/proxy/", "pods/{}:80/proxy/", "services/web/proxy/", "services/web:80/proxy/"] {
        let path = format!("{base}/{}", path.replace("{}", &pod));
        assert!(raw(&path).contains("Welcome to nginx!"), "{path}");
    }
    let missing = cluster.kubectl(&["get", "--raw", &format!("{base}/services/web:81/proxy/")]);
    assert!(text(&missing.stderr).contains("no endpoints available"), "{}", text(&missing.stderr));
    for (node, _) in &cluster.nodes {
        let node = format!("/api/v1/nodes/{node}/proxy");
        assert_eq!(raw(&format!("{node}/healthz")).trim(), "ok");
        assert!(raw(&format!("{node}/pods")).contains("\"PodList\""));
        let metrics = raw(&format!("{node}/metrics"));
        assert!(metrics.contains("kubelet_running_pods") && metrics.contains("kubelet_http_requests_total"));
    }
    let node = ns.ok(&["get", "pod", &pod, "-o", "jsonpath={.spec.nodeName}"]);
    let resource = raw(&format!("/api/v1/nodes/{node}/proxy/metrics/resource"));
    for family in ["node_cpu_usage_seconds_total ", "node_memory_working_set_bytes "] {
        assert!(resource.lines().any(|line| line.starts_with(family)), "{family}: {resource}");
    }
    let sample = format!(
        "container_memory_working_set_bytes{{container=\"nginx\",namespace=\"{}\",pod=\"{pod}\"}} ",
        ns.name
    );
    let bytes =
        resource.lines().find_map(|line| line.strip_prefix(&sample)?.split(' ').next()?.parse::<f64>().ok());
    assert!(bytes.is_some_and(|bytes| bytes > 100_000.0), "{resource}");
    let summary: serde_json::Value =
        serde_json::from_str(&raw(&format!("/api/v1/nodes/{node}/proxy/stats/summary"))).unwrap();
    let pods = summary["pods"].as_array().unwrap();
    let ours = pods.iter().find(|p| p["podRef"]["name"] == pod.as_str()).unwrap();
    assert!(
        ours["containers"][0]["cpu"]["usageCoreNanoSeconds"].as_u64().is_some_and(|nanos| nanos > 0),
        "{ours}"
    );
    assert!(
        summary["node"]["memory"]["workingSetBytes"].is_u64()
            && summary["node"]["fs"]["capacityBytes"].is_u64()
    );
}

#[test]
fn silent_strangers_take_nobodys_place_at_the_kubelet() {
    /// More than the kubelet serves at a time.
    const STRANGERS: usize = 600;
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-strangers");
    let (node, addresses) = &cluster.nodes[1];
    ns.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: box}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 0\n  containers: [{{name: main, image: busybox, command: [sleep, '3600']}}]\n"
    ));
    ns.ok(&["wait", "--for=condition=Ready", "pod/box", "--timeout=60s"]);
    let address = SocketAddr::new(addresses[0], 10250);
    let connections: Vec<TcpStream> =
        (0..STRANGERS).map(|_| TcpStream::connect_timeout(&address, REQUEST).unwrap()).collect();
    // Each is a connection of its own from the API server.
    for _ in 0..5 {
        assert_eq!(ns.ok(&["exec", "box", "--", "echo", "served"]), "served\n");
    }
    drop(connections);
}

#[test]
fn the_kubelet_answers_nobody_it_does_not_know() {
    let cluster = Cluster::running();
    let ns = cluster.namespace("streams-auth");
    box_pod(&ns);
    let token = ns.ok(&["create", "token", "default"]);
    let server = format!("https://{}:10250", cluster.nodes[0].1[0]);
    let routes = [
        "/healthz",
        "/pods",
        "/runningpods/",
        "/metrics",
        "/metrics/resource",
        "/stats/summary",
        "/logs/",
        "/debug/x",
        "/configz",
        "/containerLogs/a/b/c",
        "/exec/a/b/c",
        "/attach/a/b/c",
        "/portForward/a/b",
        "/run/a/b/c",
        "/checkpoint/a/b/c",
        "/nothing",
    ];
    let kubeconfig = std::env::temp_dir().join(format!("xebec-nobody-{}", std::process::id()));
    std::fs::write(&kubeconfig, "apiVersion: v1\nkind: Config\n").unwrap();
    let ask = |path: &str, credentials: &[&str]| {
        let mut command =
            cluster.command(&["get", "--raw", path, "--insecure-skip-tls-verify", "--server", &server]);
        command.env("KUBECONFIG", &kubeconfig);
        command.arg("--kubeconfig").arg(&kubeconfig).args(credentials);
        let out = command.output().unwrap();
        assert!(!out.status.success(), "{path} answers {}", text(&out.stdout));
        text(&out.stderr)
    };
    for route in routes {
        // A name and a password are nothing to the kubelet; without them kubectl would ask for some.
        let said = ask(route, &["--username", "somebody", "--password", "something"]);
        assert!(said.contains("Unauthorized") || said.contains("provide credentials"), "{route}: {said}");
        let said = ask(route, &["--token", "not-a-token"]);
        assert!(said.contains("Unauthorized") || said.contains("provide credentials"), "{route}: {said}");
        let said = ask(route, &["--token", token.trim()]);
        assert!(said.contains("Forbidden"), "{route}: {said}");
    }
    // A reader of nodes looks, and gets no shell by a method that looks like looking.
    let role = format!("looker-{}", ns.name);
    cluster.ok(&["create", "clusterrole", &role, "--verb=get", "--resource=nodes/proxy,pods/exec,pods"]);
    let account = format!("--serviceaccount={}:looker", ns.name);
    cluster.ok(&["create", "clusterrolebinding", &role, &format!("--clusterrole={role}"), &account]);
    ns.ok(&["create", "serviceaccount", "looker"]);
    let token = ns.ok(&["create", "token", "looker"]);
    let looker = ["--token", token.trim()];
    let mut command =
        cluster.command(&["get", "--raw", "/pods", "--insecure-skip-tls-verify", "--server", &server]);
    let pods = command.arg("--kubeconfig").arg(&kubeconfig).args(looker).output().unwrap();
    assert!(text(&pods.stdout).contains("PodList"), "{}", text(&pods.stderr));
    for route in
        [format!("/exec/{}/box/main?command=id&output=1", ns.name), format!("/run/{}/box/main", ns.name)]
    {
        let said = ask(&route, &looker);
        assert!(said.contains("Forbidden") && said.contains("verb=create"), "{route}: {said}");
    }
    let user = format!("--as=system:serviceaccount:{}:looker", ns.name);
    let refused = ns.kubectl(&["exec", "box", &user, "--", "id"]);
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("cannot create resource"),
        "{}",
        text(&refused.stderr)
    );
    cluster.ok(&["delete", "clusterrole,clusterrolebinding", &role]);
    std::fs::remove_file(&kubeconfig).unwrap();
}
