//! `cargo xtask bench dataplane`: what a service costs over a pod's address, and over veths without any program.
//!
//! In: `--quick`, `--json FILE`, `XEBEC_IPERF3`. Out: rows. Client and
//! server are pods of one node, so that only this project's work differs between the cases:
//!
//! ```text
//! bare    veths of the same shape, no program attached, client outside the node's cgroup
//! direct  the pod's address, all programs attached
//! xebec   a ClusterIP, by the socket hooks
//! ```

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use xebec_datapath::lb::{FrontendKind, Protocol};

use super::{Goal, Options, Row};
use crate::cluster::eventually;
use crate::fabric::{Fabric, FabricNode, Family, Netns, Service};
use crate::netns::{ip_batch, spawn_node};

const CONNECT_PORT: u16 = 8080;
const STREAM_PORT: u16 = 5201;
const BARE_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 98, 1, 1);
const BARE_SERVER: Ipv4Addr = Ipv4Addr::new(10, 98, 1, 2);
const CONNECTS: usize = 1000;
const CONNECT_ROUNDS: usize = 300;
const STREAM_ROUNDS: usize = 120;

/// # Errors
/// When something cannot be measured.
pub fn measure(options: &Options) -> Result<Vec<Row>> {
    let options = options.clone();
    let node = spawn_node(async move |node| measure_on(&Fabric::create(&node.dir, 1)?, &options));
    node.join().map_err(|_| anyhow::anyhow!("the bench's thread panicked"))?
}

/// Where a case's client is and what it dials.
struct Case<'a> {
    client: &'a Netns,
    target: IpAddr,
    node: Option<&'a FabricNode>,
}

/// Values by round: bare, direct, by ClusterIP.
type Rounds = [Vec<f64>; 3];

fn measure_on(fabric: &Fabric, options: &Options) -> Result<Vec<Row>> {
    let node = &fabric.nodes[0];
    let (client, server) = (node.add_pod(1)?, node.add_pod(2)?);
    let (bare_client, bare_server) = bare_pods(node)?;
    let vip = Family::V4.vip(1, 0).ip();
    let backend = server.address(Family::V4);
    for port in [CONNECT_PORT, STREAM_PORT] {
        let backends = [(SocketAddr::new(backend, port), 1)];
        node.serve(&Service::new(
            SocketAddr::new(vip, port),
            Protocol::Tcp,
            FrontendKind::ClusterIp,
            &backends,
        ))?;
    }
    let cases = [
        Case { client: &bare_client, target: BARE_SERVER.into(), node: None },
        Case { client: &client.netns, target: backend, node: Some(node) },
        Case { client: &client.netns, target: vip, node: Some(node) },
    ];
    for server in [&bare_server, &server.netns] {
        serve_connects(server)?;
    }
    let mut rows = interleaved(&cases, options, CONNECT_ROUNDS, connect_rows, connect_p50)?;
    rows.extend(streams(&cases, [&bare_server, &server.netns], options)?);
    node.ensure_no_drops()?;
    Ok(rows)
}

/// Measures the cases in turn, round after round, until the rows can tell.
fn interleaved(
    cases: &[Case<'_>; 3],
    options: &Options,
    most: usize,
    rows: impl Fn(&Rounds) -> Vec<Row>,
    once: impl Fn(&Case<'_>) -> Result<f64>,
) -> Result<Vec<Row>> {
    let mut values: Rounds = Default::default();
    // The first round warms caches and neighbours.
    cases.iter().try_for_each(|case| once(case).map(drop))?;
    for round in 0.. {
        if options.rounds(most).enough(round, || rows(&values)) {
            break;
        }
        // Each case is first as often as the others.
        for place in 0..cases.len() {
            let case = (round + place) % cases.len();
            values[case].push(once(&cases[case])?);
        }
    }
    Ok(rows(&values))
}

fn connect_rows([bare, direct, service]: &Rounds) -> Vec<Row> {
    let row = |id, case, values: &[f64], base: &[f64], goal| Row::new(id, case, "µs", values, base, goal);
    vec![
        row("D2", "connect by ClusterIP over bare veths", service, bare, Some(Goal::AtMost(1.02))),
        row("D2.direct", "connect by ClusterIP over the pod's address", service, direct, None),
        row("D2@bare", "connect over bare veths", bare, bare, None),
        row("D2@direct", "connect to the pod's address over bare veths", direct, bare, None),
        row("D3", "connect without a service over bare veths", direct, bare, Some(Goal::AtMost(1.02))),
    ]
}

fn stream_rows([bare, direct, service]: &Rounds) -> Vec<Row> {
    let row = |id, case, values: &[f64], base: &[f64], goal| Row::new(id, case, "Gbit/s", values, base, goal);
    let goal = Some(Goal::AtLeast(0.995));
    vec![
        row("D1", "stream by ClusterIP over the pod's address", service, direct, goal),
        row("D1.bare", "stream by ClusterIP over bare veths", service, bare, goal),
        row("D1@bare", "stream over bare veths", bare, bare, None),
        row("D1@direct", "stream to the pod's address over bare veths", direct, bare, None),
    ]
}

fn streams(cases: &[Case<'_>; 3], servers: [&Netns; 2], options: &Options) -> Result<Vec<Row>> {
    let Some(iperf3) = std::env::var_os("XEBEC_IPERF3") else {
        println!("skipped: streams: XEBEC_IPERF3 does not name iperf3");
        return Ok(Vec::new());
    };
    let _servers = [serve_streams(&iperf3, servers[0])?, serve_streams(&iperf3, servers[1])?];
    interleaved(cases, options, STREAM_ROUNDS, stream_rows, |case| stream(&iperf3, case))
}

/// Two namespaces behind veths of the same shape as pods', without a program.
fn bare_pods(node: &FabricNode) -> Result<(Netns, Netns)> {
    let make = |number: u8, address: Ipv4Addr| {
        let netns = Netns::create()?;
        let (inside, outside) =
            (format!("02:00:00:09:01:{number:02x}"), format!("02:00:00:09:00:{number:02x}"));
        let path = netns.path();
        node.netns.run(|| {
            ip_batch(&format!(
                "link add bare{number} address {outside} type veth peer name eth0 address {inside} netns {}\n\
                 link set bare{number} addrgenmode none\n\
                 link set bare{number} up\n\
                 neigh add {address} lladdr {inside} dev bare{number} nud permanent\n\
                 route add {address}/32 dev bare{number}\n",
                path.display()
            ))
        })?;
        netns.run(|| {
            ip_batch(&format!(
                "link set eth0 addrgenmode none\n\
                 link set eth0 up\n\
                 addr add {address}/32 dev eth0\n\
                 neigh add 169.254.1.1 lladdr {outside} dev eth0 nud permanent\n\
                 route add default via 169.254.1.1 dev eth0 onlink\n"
            ))
        })?;
        Ok::<_, anyhow::Error>(netns)
    };
    Ok((make(1, BARE_CLIENT)?, make(2, BARE_SERVER)?))
}

/// Accepts, reads one byte, answers one byte, closes; ends with the process.
fn serve_connects(netns: &Netns) -> Result<()> {
    let listener = netns.run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, CONNECT_PORT))?))?;
    std::thread::spawn(move || {
        pin().ok();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_ok() {
                stream.write_all(&byte).ok();
            }
        }
    });
    Ok(())
}

/// Both ends on one CPU: what wakes up where is a lottery that would drown the difference.
fn pin() -> Result<()> {
    let mut one = CpuSet::new();
    one.set(*cpus()?.first().context("there is no CPU to run on")?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
}

/// CPUs that this process may use.
fn cpus() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect())
}

/// Median of connect, one byte each way, close; microseconds.
fn connect_p50(case: &Case<'_>) -> Result<f64> {
    let target = SocketAddr::new(case.target, CONNECT_PORT);
    let mut times = case.client.run(|| {
        if let Some(node) = case.node {
            node.cgroup.enter()?;
        }
        pin()?;
        (0..CONNECTS).map(|_| once(target)).collect::<Result<Vec<f64>>>()
    })?;
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn once(target: SocketAddr) -> Result<f64> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
    stream.write_all(b"x")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(start.elapsed().as_secs_f64() * 1e6)
}

/// A running iperf3 server.
struct Streams(Child);

impl Drop for Streams {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn serve_streams(iperf3: &std::ffi::OsStr, netns: &Netns) -> Result<Streams> {
    let child = netns.run(|| {
        Ok(Command::new(iperf3).args(["-s"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    })?;
    let streams = Streams(child);
    // Asking by a connection would begin a test.
    let listens = format!(":{STREAM_PORT:04X} ");
    let ready = eventually(Duration::from_secs(5), || {
        netns
            .run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/tcp6")?.contains(&listens)))
            .unwrap_or(false)
    });
    ensure!(ready, "iperf3 does not listen");
    Ok(streams)
}

/// What the receiver got, in Gbit/s.
fn stream(iperf3: &std::ffi::OsStr, case: &Case<'_>) -> Result<f64> {
    // Client and server each on a CPU of its own, always the same.
    let affinity = match cpus()?[..] {
        [first, second, ..] => Some(format!("{first},{second}")),
        _ => None,
    };
    let output = case.client.run(|| {
        if let Some(node) = case.node {
            node.cgroup.enter()?;
        }
        let mut client = Command::new(iperf3);
        client.args(["-J", "-t", "1", "-c", &case.target.to_string()]);
        if let Some(affinity) = &affinity {
            client.args(["-A", affinity]);
        }
        Ok(client.output()?)
    })?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).context("iperf3's report")?;
    let rate = &report["end"]["sum_received"]["bits_per_second"];
    let rate = rate.as_f64().with_context(|| format!("iperf3: {}", report["error"]))?;
    Ok(rate / 1e9)
}
