//! `cargo xtask bench dataplane`: what a service costs over a pod's address, and over veths without any program.
//!
//! In: `--quick`, `--json FILE`, `XEBEC_IPERF3`. Out: rows on stdout, exit code 0 only if no goal was missed. Client and
//! server are pods of one node, so that only this project's work differs between the cases:
//!
//! ```text
//! bare    veths of the same shape, no program attached, client outside the node's cgroup
//! direct  the pod's address, all programs attached
//! xebec   a ClusterIP, by the socket hooks
//! ```

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use xebec_datapath::lb::{FrontendKind, Protocol};
use xebec_tests::bench::{Goal, Row, print, write_json};
use xebec_tests::cluster::eventually;
use xebec_tests::fabric::{Fabric, FabricNode, Family, Netns, Service};
use xebec_tests::netns::{ip_batch, spawn_node};

const CONNECT_PORT: u16 = 8080;
const STREAM_PORT: u16 = 5201;
const BARE_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 98, 1, 1);
const BARE_SERVER: Ipv4Addr = Ipv4Addr::new(10, 98, 1, 2);

struct Options {
    rounds: usize,
    connects: usize,
    seconds: &'static str,
    json: Option<PathBuf>,
}

impl Options {
    fn read() -> Result<Self> {
        let (mut quick, mut json) = (false, None);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => quick = true,
                "--json" => json = Some(arguments.next().context("--json needs a file")?.into()),
                other => bail!("unknown argument {other:?}: --quick and --json FILE are known"),
            }
        }
        let (rounds, connects, seconds) = if quick { (15, 400, "1") } else { (31, 2000, "2") };
        Ok(Self { rounds, connects, seconds, json })
    }
}

fn main() -> ExitCode {
    match Options::read().and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<bool> {
    let rows = spawn_node(async move |node| {
        let fabric = Fabric::create(&node.dir, 1)?;
        measure(&fabric, &options)
            .and_then(|rows| options.json.iter().try_for_each(|path| write_json(&rows, path)).map(|()| rows))
    })
    .join()
    .map_err(|_| anyhow::anyhow!("the bench's thread panicked"))??;
    print(&rows);
    Ok(rows.iter().all(|row| row.goal.is_empty() || row.held == Some(true)))
}

/// Where a case's client is and what it dials.
struct Case<'a> {
    client: &'a Netns,
    target: IpAddr,
    node: Option<&'a FabricNode>,
}

fn measure(fabric: &Fabric, options: &Options) -> Result<Vec<Row>> {
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
    let mut connect: [Vec<f64>; 3] = Default::default();
    for round in 0..=options.rounds {
        for (case, values) in cases.iter().zip(&mut connect) {
            let p50 = connect_p50(case, options.connects)?;
            // The first round warms caches and neighbours.
            if round > 0 {
                values.push(p50);
            }
        }
    }
    let [bare, direct, service] = connect;
    let mut rows = vec![
        Row::new(
            "D2",
            "connect by ClusterIP over bare veths",
            "µs",
            &service,
            &bare,
            Some(Goal::AtMost(1.02)),
        ),
        Row::new("D2.direct", "connect by ClusterIP over the pod's address", "µs", &service, &direct, None),
        Row::new(
            "D3",
            "connect to a pod's address over bare veths",
            "µs",
            &direct,
            &bare,
            Some(Goal::AtMost(1.02)),
        ),
    ];
    rows.extend(streams(&cases, [&bare_server, &server.netns], options)?);
    node.ensure_no_drops()?;
    Ok(rows)
}

fn streams(cases: &[Case<'_>; 3], servers: [&Netns; 2], options: &Options) -> Result<Vec<Row>> {
    let Some(iperf3) = std::env::var_os("XEBEC_IPERF3") else {
        println!("skipped: streams: XEBEC_IPERF3 does not name iperf3");
        return Ok(Vec::new());
    };
    let _servers = [serve_streams(&iperf3, servers[0])?, serve_streams(&iperf3, servers[1])?];
    let mut rates: [Vec<f64>; 3] = Default::default();
    for round in 0..=options.rounds {
        for (case, values) in cases.iter().zip(&mut rates) {
            let rate = stream(&iperf3, case, options.seconds)?;
            if round > 0 {
                values.push(rate);
            }
        }
    }
    let [bare, direct, service] = rates;
    Ok(vec![
        Row::new(
            "D1",
            "stream by ClusterIP over the pod's address",
            "Gbit/s",
            &service,
            &direct,
            Some(Goal::AtLeast(0.995)),
        ),
        Row::new(
            "D1.bare",
            "stream by ClusterIP over bare veths",
            "Gbit/s",
            &service,
            &bare,
            Some(Goal::AtLeast(0.995)),
        ),
    ])
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

/// Median of connect, one byte each way, close; microseconds.
fn connect_p50(case: &Case<'_>, connects: usize) -> Result<f64> {
    let target = SocketAddr::new(case.target, CONNECT_PORT);
    let mut times = case.client.run(|| {
        if let Some(node) = case.node {
            node.cgroup.enter()?;
        }
        (0..connects).map(|_| once(target)).collect::<Result<Vec<f64>>>()
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
fn stream(iperf3: &std::ffi::OsStr, case: &Case<'_>, seconds: &str) -> Result<f64> {
    let output = case.client.run(|| {
        if let Some(node) = case.node {
            node.cgroup.enter()?;
        }
        Ok(Command::new(iperf3).args(["-J", "-t", seconds, "-c", &case.target.to_string()]).output()?)
    })?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).context("iperf3's report")?;
    let rate = &report["end"]["sum_received"]["bits_per_second"];
    let rate = rate.as_f64().with_context(|| format!("iperf3: {}", report["error"]))?;
    Ok(rate / 1e9)
}
