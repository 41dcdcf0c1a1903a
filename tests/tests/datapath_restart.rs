//! An agent ends and another begins: what is pinned goes on, and nobody notices.
//!
//! In: a node whose datapath is opened by processes that are killed. Out: live connections, adopted tables and links.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xebec_datapath::lb::{FrontendKind, LbSnapshot, Protocol};
use xebec_datapath::{Datapath, DatapathConfig};
use xebec_tests::cgroup::Cgroup;
use xebec_tests::fabric::{
    Fabric, FabricNode, Family, Netns, PATIENCE, PORT, Pod, Service, TcpClient, UdpClient, node_config,
    serve_tcp, serve_udp,
};
use xebec_tests::netns::{ip, on_node};

/// Set for the process that plays the agent: number, bpffs and cgroup of its node.
const HOLD: &str = "XEBEC_TEST_HOLD";
/// Deaths of the agent.
const ROUNDS: u64 = 10;

/// An agent as a process of its own.
struct Agent {
    child: Child,
    ready: Receiver<()>,
}

impl Agent {
    /// Runs this test binary again, as the test `name`, which must begin with [`play_agent`].
    fn start(name: &str, node: &FabricNode) -> Result<Self> {
        let hold =
            format!("{}\n{}\n{}", node.number, node.config.bpffs.display(), node.config.cgroup.display());
        let mut child = node.netns.run(|| {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--exact", name, "--nocapture"]).env(HOLD, &hold);
            Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
        })?;
        let output = BufReader::new(child.stdout.take().context("its output is piped")?);
        let (sender, ready) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if line == "ready" {
                    sender.send(()).ok();
                }
            }
        });
        Ok(Self { child, ready })
    }

    fn await_ready(&self) -> Result<()> {
        self.ready.recv_timeout(Duration::from_secs(30)).context("the agent does not start")
    }

    /// Kills it with no chance to say goodbye.
    fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

/// In a process started by [`Agent::start`]: opens the datapath as an agent would, and waits to be killed.
fn play_agent() {
    let Ok(hold) = std::env::var(HOLD) else { return };
    let fields: Vec<&str> = hold.lines().collect();
    let number = fields[0].parse().expect("a node's number");
    let datapath = open_as_agent(&node_config(number, Path::new(fields[1]), Path::new(fields[2])))
        .expect("the agent opens its datapath");
    println!("\nready");
    // Longer than the test; its parent kills it.
    std::thread::park_timeout(Duration::from_secs(120));
    drop(datapath);
    std::process::exit(1);
}

/// Opens the datapath and adopts every pod.
fn open_as_agent(config: &DatapathConfig) -> Result<Datapath> {
    let datapath = Datapath::open(config)?;
    let interfaces: BTreeSet<u32> = datapath.pods().list()?.iter().map(|pod| pod.ifindex).collect();
    for index in interfaces {
        let name = nix::net::if_::if_indextoname(index)?;
        datapath.attach_pod(name.to_str()?)?;
    }
    datapath.discard_other_versions();
    Ok(datapath)
}

fn sorted(mut snapshot: LbSnapshot) -> String {
    snapshot.services.sort_by_key(|(frontend, _)| *frontend);
    snapshot.backends.sort_by_key(|(id, _)| *id);
    format!("{snapshot:?}")
}

fn version_folder(node: &FabricNode) -> Result<PathBuf> {
    let folders = fs::read_dir(node.config.bpffs.join("xebec"))?;
    let paths = folders.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    ensure!(paths.len() == 1, "{paths:?}");
    paths.into_iter().next().context("one version is pinned")
}

/// A service by every way in, served by one far pod: cluster address for pods, NodePort of the first node.
struct Ways {
    cluster_ip: SocketAddr,
    node_port: SocketAddr,
}

fn serve_ways(fabric: &Fabric, far: &Pod, family: Family, protocol: Protocol, last: u8) -> Result<Ways> {
    let backends = [(SocketAddr::new(far.address(family), PORT), far.node)];
    let ways = Ways {
        cluster_ip: family.vip(last, 80),
        node_port: SocketAddr::new(fabric.nodes[0].address(family), 30_080),
    };
    fabric.nodes[0].serve(&Service::new(ways.cluster_ip, protocol, FrontendKind::ClusterIp, &backends))?;
    fabric.nodes[0].serve(&Service::new(ways.node_port, protocol, FrontendKind::NodePort, &backends))?;
    Ok(ways)
}

#[test]
fn an_agent_killed_ten_times_breaks_no_connection_and_loses_no_packet() {
    play_agent();
    on_node(async |node| {
        let mut fabric = Fabric::create(&node.dir, 2)?;
        let near = fabric.nodes[0].add_pod(1)?;
        let hooked = fabric.nodes[0].add_pod(2)?;
        let far = fabric.nodes[1].add_pod(1)?;
        let _servers = (serve_tcp(&far.netns)?, serve_udp(&far.netns)?);
        let mut ways = Vec::new();
        for (last, family) in (1..).zip(Family::BOTH) {
            let tcp = serve_ways(&fabric, &far, family, Protocol::Tcp, last)?;
            ways.push((tcp, serve_ways(&fabric, &far, family, Protocol::Udp, last)?));
        }
        let before = sorted(fabric.nodes[0].datapath().lb().snapshot()?);
        let pods = fabric.nodes[0].datapath().pods().list()?.len();
        // Nobody but the agents to come holds the first node's datapath.
        fabric.nodes[0].close();
        let first = &fabric.nodes[0];
        let clients = Clients { hub: &fabric.hub, pod: &near, hooked: &hooked, cgroup: &first.cgroup };
        under_traffic(&clients, &ways, |counts| kill_agents(first, counts))?;

        let datapath = first.netns.run(|| open_as_agent(&first.config))?;
        ensure!(sorted(datapath.lb().snapshot()?) == before, "the tables are not those of before");
        ensure!(datapath.pods().list()?.len() == pods, "pods were lost");
        let drops: Vec<_> = datapath.drops()?.into_iter().filter(|drop| drop.packets > 0).collect();
        ensure!(drops.is_empty(), "{drops:?}");
        Ok(())
    });
}

/// Where clients are: outside, in a pod that no socket hook sees, in one that is in the node's cgroup.
struct Clients<'a> {
    hub: &'a Netns,
    pod: &'a Pod,
    hooked: &'a Pod,
    cgroup: &'a Cgroup,
}

/// Runs `work` while every kind of client speaks to its service without a pause.
fn under_traffic(
    clients: &Clients<'_>,
    ways: &[(Ways, Ways)],
    work: impl FnOnce(&[AtomicU64]) -> Result<()>,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let counts: Vec<AtomicU64> = (0..6 * ways.len()).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for ((tcp, udp), counts) in ways.iter().zip(counts.chunks(6)) {
            let (hub, pod, cgroup, stop) = (clients.hub, &clients.pod.netns, clients.cgroup, &stop);
            let [kept_out, kept_in, asked_out, asked_in, new, new_by_socket] = counts else { continue };
            for (from, to, count) in [(hub, tcp.node_port, kept_out), (pod, tcp.cluster_ip, kept_in)] {
                threads.push(scope.spawn(move || from.run(|| keep_connection(to, stop, count))));
            }
            for (from, to, count) in [(hub, udp.node_port, asked_out), (pod, udp.cluster_ip, asked_in)] {
                threads.push(scope.spawn(move || from.run(|| keep_asking(to, stop, count))));
            }
            for (pod, cgroup, count) in
                [(pod, None, new), (&clients.hooked.netns, Some(cgroup), new_by_socket)]
            {
                let connect = move || {
                    cgroup.map_or(Ok(()), Cgroup::enter)?;
                    repeat(stop, count, || TcpClient::connect(tcp.cluster_ip)?.echo(b"a new one"))
                };
                threads.push(scope.spawn(move || pod.run(connect)));
            }
        }
        let worked = work(&counts);
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("no client panics")?;
        }
        worked
    })
}

fn keep_connection(to: SocketAddr, stop: &AtomicBool, count: &AtomicU64) -> Result<()> {
    let mut client = TcpClient::connect(to)?;
    repeat(stop, count, || client.echo(b"a live connection"))
}

fn keep_asking(to: SocketAddr, stop: &AtomicBool, count: &AtomicU64) -> Result<()> {
    let client = UdpClient::open(to)?;
    let seen = client.ask("first")?;
    repeat(stop, count, || {
        ensure!(client.ask("next")? == seen, "the flow to {to} began anew");
        Ok(())
    })
}

/// Repeats an exchange until told to stop; the first that fails ends it.
fn repeat(stop: &AtomicBool, done: &AtomicU64, mut exchange: impl FnMut() -> Result<()>) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        exchange()?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Starts and kills agents, every other one while it still loads and attaches; traffic goes on after each.
fn kill_agents(node: &FabricNode, counts: &[AtomicU64]) -> Result<()> {
    let name = "an_agent_killed_ten_times_breaks_no_connection_and_loses_no_packet";
    await_progress(counts)?;
    for round in 0..ROUNDS {
        let agent = Agent::start(name, node)?;
        if round % 2 == 0 {
            agent.await_ready()?;
        } else {
            // Whatever it is doing by then.
            agent.ready.recv_timeout(Duration::from_millis(40 * round)).ok();
        }
        agent.kill()?;
        await_progress(counts)?;
    }
    Ok(())
}

/// Waits until every client had some more exchanges.
fn await_progress(counts: &[AtomicU64]) -> Result<()> {
    let goals: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed) + 3).collect();
    let deadline = Instant::now() + 2 * PATIENCE;
    while !counts.iter().zip(&goals).all(|(count, goal)| count.load(Ordering::Relaxed) >= *goal) {
        ensure!(Instant::now() < deadline, "clients do not get on: {counts:?}, wanted {goals:?}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(())
}

#[test]
fn links_of_interfaces_that_are_gone_are_collected() {
    on_node(async |node| {
        let mut fabric = Fabric::create(&node.dir, 1)?;
        let gone = fabric.nodes[0].add_pod(1)?;
        let kept = fabric.nodes[0].add_pod(2)?;
        fabric.nodes[0].close();
        let first = &fabric.nodes[0];
        first.netns.run(|| ip(&format!("link del {}", gone.interface)))?;
        let datapath = first.netns.run(|| Ok(Datapath::open(&first.config)?))?;
        let links = links(first)?;
        ensure!(!links.iter().any(|link| link.ends_with(&gone.interface)), "{links:?}");
        ensure!(links.iter().filter(|link| link.ends_with(&kept.interface)).count() == 2, "{links:?}");
        datapath.detach_pod(&kept.interface)?;
        datapath.detach_pod(&kept.interface)?;
        ensure!(links.len() == self::links(first)?.len() + 2, "{:?}", self::links(first)?);
        Ok(())
    });
}

#[test]
fn links_of_another_version_are_taken_over() {
    on_node(async |node| {
        let mut fabric = Fabric::create(&node.dir, 1)?;
        let pod = fabric.nodes[0].add_pod(1)?;
        let _server = serve_tcp(&pod.netns)?;
        let entries = fabric.nodes[0].datapath().pods().list()?;
        fabric.nodes[0].close();
        let first = &fabric.nodes[0];
        let own = version_folder(first)?;
        let old = own.with_file_name("v0");
        fs::rename(&own, &old)?;

        let datapath = first.netns.run(|| Ok(Datapath::open(&first.config)?))?;
        ensure!(datapath.pods().list()?.is_empty(), "tables of another version were adopted");
        first.netns.run(|| Ok(datapath.attach_pod(&pod.interface)?))?;
        for entry in &entries {
            datapath.pods().put(entry)?;
        }
        datapath.discard_other_versions();
        ensure!(!old.exists(), "the old version is still pinned");
        for family in Family::BOTH {
            let vip = family.vip(1, 80);
            let backend = (SocketAddr::new(pod.address(family), PORT), 1);
            let service = Service::new(vip, Protocol::Tcp, FrontendKind::ClusterIp, &[backend]);
            datapath.lb().apply(&service.ops(1, 1))?;
            pod.netns.run(|| TcpClient::connect(vip)?.echo(b"by the new version"))?;
            first.netns.run(|| {
                first.cgroup.enter()?;
                TcpClient::connect(vip)?.echo(b"by the new version")
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_pin_that_is_not_what_it_should_be_is_made_anew() {
    on_node(async |node| {
        let mut fabric = Fabric::create(&node.dir, 1)?;
        fabric.nodes[0].close();
        let first = &fabric.nodes[0];
        let maps = version_folder(first)?.join("maps");
        // Keys of another size: read as they stand they would be nonsense.
        fs::remove_file(maps.join("SERVICES4"))?;
        fs::rename(maps.join("SERVICES6"), maps.join("SERVICES4"))?;
        let datapath = first.netns.run(|| Ok(Datapath::open(&first.config)?))?;
        let vip = Family::V4.vip(1, 80);
        let service = Service::new(vip, Protocol::Tcp, FrontendKind::ClusterIp, &[]);
        datapath.lb().apply(&service.ops(1, 1))?;
        let snapshot = datapath.lb().snapshot()?;
        ensure!(snapshot.services.len() == 1 && snapshot.services[0].0.address == vip.ip(), "{snapshot:?}");
        Ok(())
    });
}

#[test]
fn counters_of_a_node_are_read_by_those_who_do_not_own_it() {
    on_node(async |node| {
        let mut fabric = Fabric::create(&node.dir, 1)?;
        let pod = fabric.nodes[0].add_pod(1)?;
        let vip = Family::V4.vip(1, 80);
        fabric.nodes[0].serve(&Service::new(vip, Protocol::Tcp, FrontendKind::ClusterIp, &[]))?;
        ensure!(pod.netns.run(|| Ok(TcpClient::connect(vip).is_err()))?, "the service has no endpoint");
        fabric.nodes[0].close();
        let drops = Datapath::pinned_drops(&fabric.nodes[0].config.bpffs)?;
        let refused = drops.iter().find(|drop| drop.reason == "no_endpoint").context("it is a reason")?;
        ensure!(refused.packets == 1 && refused.bytes > 0, "{refused:?}");
        let error = Datapath::pinned_drops(&node.dir).err().context("nothing is pinned there")?;
        ensure!(error.to_string().contains("COUNTERS"), "{error}");
        Ok(())
    });
}

fn links(node: &FabricNode) -> Result<Vec<String>> {
    let entries = fs::read_dir(version_folder(node)?.join("links"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
