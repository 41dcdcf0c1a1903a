//! Pod networking on the real kernel: namespaces, veths, routes, sockets; the datapath is a recorder.
//!
//! In: pods and nodes made of network namespaces. Out: what works between them, and what is left afterwards.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use xebec_datapath::pod::PodEntry;
use xebec_network::{DatapathError, Network, NetworkConfig, Peer, PodDatapath, PodNetwork, PodRequest};
use xebec_tests::netns::{Node, connect, finish, inside, ip, listen, on_node, ping, skips, spawn_node};

/// Records what it is told; refuses addresses while `broken`.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    interfaces: BTreeMap<String, u32>,
    entries: BTreeMap<IpAddr, PodEntry>,
    broken: bool,
}

impl PodDatapath for Recorder {
    fn attach(&self, interface: &str) -> Result<(), DatapathError> {
        *self.state().interfaces.entry(interface.into()).or_default() += 1;
        Ok(())
    }

    fn detach(&self, interface: &str) -> Result<(), DatapathError> {
        self.state().interfaces.remove(interface);
        Ok(())
    }

    fn put(&self, entry: PodEntry) -> Result<(), DatapathError> {
        let mut recorded = self.state();
        if recorded.broken && entry.address.is_ipv6() {
            return Err("map is full".into());
        }
        recorded.entries.insert(entry.address, entry);
        Ok(())
    }

    fn remove(&self, address: IpAddr) -> Result<(), DatapathError> {
        self.state().entries.remove(&address);
        Ok(())
    }
}

impl Recorder {
    fn state(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        let recorded = self.state();
        recorded.interfaces.is_empty() && recorded.entries.is_empty()
    }

    fn entry(&self, address: IpAddr) -> Option<PodEntry> {
        self.state().entries.get(&address).copied()
    }
}

fn config(dir: &Path, node: u8) -> NetworkConfig {
    let wide = u16::from(node);
    let net = |address: IpAddr, length| IpNet::new(address, length).expect("a valid length");
    NetworkConfig {
        uplink: "up0".into(),
        node_addresses: vec![
            Ipv4Addr::new(172, 31, 7, node).into(),
            Ipv6Addr::new(0xfd31, 7, 0, 0, 0, 0, 0, wide).into(),
        ],
        pod_cidrs: vec![
            net(Ipv4Addr::new(10, 99, node, 0).into(), 24),
            net(Ipv6Addr::new(0xfd99, wide, 0, 0, 0, 0, 0, 0).into(), 64),
        ],
        run_dir: dir.to_owned(),
        mtu: None,
    }
}

fn request(uid: &str) -> PodRequest {
    PodRequest {
        uid: uid.into(),
        namespace: "default".into(),
        name: format!("pod-{uid}"),
        hostname: format!("host-{uid}"),
        host_network: false,
        host_ipc: false,
    }
}

/// Gives the node its uplink and addresses; the other end of the wire stays in the node.
fn plug_alone(node: u8) -> Result<()> {
    ip("link add up0 type veth peer name up1")?;
    ip("link set up1 up")?;
    address(node)
}

fn address(node: u8) -> Result<()> {
    ip("link set up0 up")?;
    ip(&format!("addr add 172.31.7.{node}/24 dev up0"))?;
    ip(&format!("addr add fd31:7::{node}/64 dev up0 nodad"))?;
    Ok(())
}

async fn started(node: &Node, datapath: &Recorder) -> Result<Network> {
    Ok(Network::start(config(&node.dir, 1), datapath.clone()).await?)
}

fn netns(pod: &PodNetwork) -> &Path {
    pod.netns.as_deref().expect("the pod has a network namespace")
}

/// Everything of ours that the kernel or the disk still holds.
fn remains(dir: &Path) -> Result<Vec<String>> {
    let mut left: Vec<String> =
        ip("-br link")?.lines().filter(|line| line.starts_with("xeb")).map(str::to_owned).collect();
    left.extend(
        ip("-4 route show proto 120")?.lines().filter(|l| !l.starts_with("unreachable")).map(Into::into),
    );
    left.extend(
        ip("-6 route show proto 120")?.lines().filter(|l| !l.starts_with("unreachable")).map(Into::into),
    );
    for folder in ["netns", "ipcns", "utsns"] {
        for entry in std::fs::read_dir(dir.join(folder))? {
            left.push(entry?.path().display().to_string());
        }
    }
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo")?;
    let prefix = dir.display().to_string();
    left.extend(mounts.lines().filter(|line| line.contains(&prefix)).map(str::to_owned));
    Ok(left)
}

/// A server thread in a pod that answers one connection line by line until it closes.
fn echo(pod: &PodNetwork) -> Result<std::thread::JoinHandle<Result<()>>> {
    let (ready, listening) = std::sync::mpsc::channel();
    let server = inside(netns(pod), move || {
        let listener = listen()?;
        ready.send(())?;
        let (mut stream, _) = listener.accept()?;
        let mut buffer = [0; 64];
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                count => stream.write_all(&buffer[..count])?,
            }
        }
    });
    listening.recv_timeout(Duration::from_secs(5)).context("server does not listen")?;
    Ok(server)
}

fn exchange(stream: &mut std::net::TcpStream) -> Result<()> {
    stream.write_all(b"ping")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    ensure!(&answer == b"ping");
    Ok(())
}

#[test]
fn two_pods_and_their_node_reach_each_other_in_both_families() {
    on_node(|node| async move {
        plug_alone(1)?;
        let datapath = Recorder::default();
        let network = started(&node, &datapath).await?;
        let (a, b) = (network.attach(&request("a")).await?, network.attach(&request("b")).await?);
        ensure!(a.addresses == ["10.99.1.2".parse::<IpAddr>()?, "fd99:1::2".parse()?], "{a:?}");
        for target in b.addresses.clone() {
            ping(target).context("from the node")?;
            finish(inside(netns(&a), move || ping(target)))?;
            let server = echo(&b)?;
            finish(inside(netns(&a), move || exchange(&mut connect(target)?)))?;
            finish(server)?;
        }
        let node_addresses = config(&node.dir, 1).node_addresses;
        let gateways = ["10.99.1.1".parse::<IpAddr>()?, "fd99:1::1".parse()?];
        for target in node_addresses.into_iter().chain(gateways).chain(a.addresses.clone()) {
            finish(inside(netns(&a), move || ping(target)))?;
        }
        finish(inside(netns(&a), || ping("127.0.0.1".parse()?)))?;
        finish(inside(netns(&a), || ping("::1".parse()?)))?;
        let entry = datapath.entry(a.addresses[0]).context("no entry")?;
        let interfaces: Vec<_> = datapath.state().interfaces.keys().cloned().collect();
        let indexes: Vec<_> = interfaces
            .iter()
            .map(|name| nix::net::if_::if_nametoindex(name.as_str()))
            .collect::<Result<_, _>>()?;
        ensure!(indexes.contains(&entry.ifindex) && entry.netns_cookie != 0, "{entry:?}");
        ensure!(entry.netns_cookie != datapath.entry(b.addresses[0]).context("no entry")?.netns_cookie);
        Ok(())
    });
}

#[test]
fn pod_namespaces_are_its_own_and_carry_its_hostname() {
    on_node(|node| async move {
        plug_alone(1)?;
        let network = started(&node, &Recorder::default()).await?;
        let pod = network.attach(&request("a")).await?;
        let uts = std::fs::File::open(pod.utsns.as_deref().context("no UTS namespace")?)?;
        let hostname = std::thread::spawn(move || -> Result<String> {
            nix::sched::setns(uts, nix::sched::CloneFlags::CLONE_NEWUTS)?;
            Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
        });
        ensure!(finish(hostname)? == "host-a");
        for (file, kind) in [(&pod.netns, "net"), (&pod.ipcns, "ipc"), (&pod.utsns, "uts")] {
            let own = std::fs::metadata(file.as_deref().context("not pinned")?)?.ino();
            let nodes = std::fs::metadata(format!("/proc/thread-self/ns/{kind}"))?.ino();
            ensure!(own != nodes, "{kind} namespace is the node's");
        }
        Ok(())
    });
}

#[test]
fn host_network_pod_has_the_nodes_addresses_and_only_its_own_ipc() {
    on_node(|node| async move {
        plug_alone(1)?;
        let datapath = Recorder::default();
        let network = started(&node, &datapath).await?;
        let pod = network.attach(&PodRequest { host_network: true, ..request("a") }).await?;
        ensure!(pod.addresses == config(&node.dir, 1).node_addresses);
        ensure!(pod.netns.is_none() && pod.utsns.is_none() && pod.ipcns.is_some(), "{pod:?}");
        let bare = PodRequest { host_network: true, host_ipc: true, ..request("b") };
        ensure!(network.attach(&bare).await?.ipcns.is_none());
        ensure!(datapath.is_empty());
        network.detach("a").await?;
        network.detach("b").await?;
        ensure!(remains(&node.dir)?.is_empty(), "{:?}", remains(&node.dir)?);
        Ok(())
    });
}

#[test]
fn detach_leaves_nothing_and_may_be_repeated() {
    on_node(|node| async move {
        plug_alone(1)?;
        let datapath = Recorder::default();
        let network = started(&node, &datapath).await?;
        for uid in ["a", "b"] {
            network.attach(&request(uid)).await?;
        }
        ensure!(network.attached().len() == 2);
        for uid in ["a", "b", "a", "never-seen"] {
            network.detach(uid).await?;
        }
        ensure!(remains(&node.dir)?.is_empty(), "{:?}", remains(&node.dir)?);
        ensure!(datapath.is_empty() && network.attached().is_empty());
        let next = network.attach(&request("c")).await?;
        ensure!(next.addresses[0] == "10.99.1.4".parse::<IpAddr>()?, "an address was reused at once");
        Ok(())
    });
}

#[test]
fn restart_changes_nothing_and_a_live_connection_goes_on() {
    on_node(|node| async move {
        plug_alone(1)?;
        let network = started(&node, &Recorder::default()).await?;
        let pod = network.attach(&request("a")).await?;
        let server = echo(&pod)?;
        let mut stream = connect(pod.addresses[0])?;
        exchange(&mut stream)?;
        let (links, inode) = (ip("link")?, std::fs::metadata(netns(&pod))?.ino());
        drop(network);

        let datapath = Recorder::default();
        let network = started(&node, &datapath).await?;
        exchange(&mut stream)?;
        ensure!(network.attached() == [("a".to_owned(), pod.clone())]);
        ensure!(network.attach(&request("a")).await? == pod, "attach answers differently");
        ensure!(ip("link")? == links, "links changed");
        ensure!(std::fs::metadata(netns(&pod))?.ino() == inode, "another namespace");
        ensure!(
            pod.addresses.iter().all(|address| datapath.entry(*address).is_some()),
            "entries are missing"
        );
        ensure!(network.attach(&request("b")).await?.addresses[0] == "10.99.1.3".parse::<IpAddr>()?);
        drop(stream);
        finish(server)?;
        Ok(())
    });
}

#[test]
fn refused_attach_is_undone_and_the_next_one_works() {
    on_node(|node| async move {
        plug_alone(1)?;
        let datapath = Recorder::default();
        let network = started(&node, &datapath).await?;
        datapath.state().broken = true;
        let error = network.attach(&request("a")).await.err().context("attach must fail")?.to_string();
        ensure!(error == "datapath: adding pod address fd99:1::2: map is full", "{error}");
        ensure!(remains(&node.dir)?.is_empty(), "{:?}", remains(&node.dir)?);
        ensure!(datapath.is_empty() && network.attached().is_empty());
        datapath.state().broken = false;
        let pod = network.attach(&request("a")).await?;
        ping(pod.addresses[0])
    });
}

#[test]
fn attach_cut_off_at_any_moment_is_mended_by_the_next_one() {
    on_node(|node| async move {
        plug_alone(1)?;
        for step in 0..40 {
            let network = started(&node, &Recorder::default()).await?;
            let patience = Duration::from_micros(step * 150);
            // The future is dropped where it stands, as by an agent that is killed.
            let _ = tokio::time::timeout(patience, network.attach(&request("a"))).await;
            if step % 2 == 0 {
                drop(network);
            }
            let network = started(&node, &Recorder::default()).await?;
            let pod = network.attach(&request("a")).await?;
            for target in pod.addresses.clone() {
                ping(target).with_context(|| format!("cut off after {patience:?}"))?;
            }
            network.detach("a").await?;
            ensure!(remains(&node.dir)?.is_empty(), "after {patience:?}: {:?}", remains(&node.dir)?);
        }
        Ok(())
    });
}

#[test]
fn pod_that_lost_its_host_end_gets_a_new_one_at_start() {
    on_node(|node| async move {
        plug_alone(1)?;
        let network = started(&node, &Recorder::default()).await?;
        let pod = network.attach(&request("a")).await?;
        let inode = std::fs::metadata(netns(&pod))?.ino();
        drop(network);
        let links = ip("-br link")?;
        let host_end = links.lines().find(|line| line.starts_with("xeb")).context("no veth")?;
        ip(&format!("link del {}", host_end.split(['@', ' ']).next().unwrap_or_default()))?;

        let network = started(&node, &Recorder::default()).await?;
        ensure!(network.attach(&request("a")).await? == pod);
        ensure!(std::fs::metadata(netns(&pod))?.ino() == inode, "another namespace");
        for target in pod.addresses {
            ping(target)?;
        }
        Ok(())
    });
}

#[test]
fn lost_checkpoint_is_refused_while_pods_live_and_forgotten_when_none_does() {
    on_node(|node| async move {
        plug_alone(1)?;
        let network = started(&node, &Recorder::default()).await?;
        network.attach(&request("a")).await?;
        drop(network);
        let checkpoint = node.dir.join("network.json");
        let good = std::fs::read(&checkpoint)?;
        std::fs::write(&checkpoint, &good[..good.len() / 2])?;
        let error = started(&node, &Recorder::default()).await.err().context("must refuse")?.to_string();
        ensure!(error.contains("while 1 pods hold namespaces"), "{error}");

        std::fs::write(&checkpoint, &good)?;
        let network = started(&node, &Recorder::default()).await?;
        network.detach("a").await?;
        std::fs::write(&checkpoint, b"{")?;
        let network = started(&node, &Recorder::default()).await?;
        ensure!(network.attached().is_empty());
        Ok(())
    });
}

#[test]
fn missing_uplink_is_one_clear_error() {
    on_node(|node| async move {
        let error = started(&node, &Recorder::default()).await.err().context("must refuse")?.to_string();
        ensure!(
            error == "uplink interface \"up0\" does not exist in the node's network namespace",
            "{error}"
        );
        Ok(())
    });
}

/// What a node's thread does when it is asked to.
enum Step {
    Plug,
    Peers(Vec<Peer>),
    Ping(Vec<IpAddr>),
}

/// A node that serves steps; its first answer is its namespace, then its pod.
fn serve(
    number: u8,
    mut steps: tokio::sync::mpsc::Receiver<Step>,
    answers: std::sync::mpsc::Sender<String>,
) -> std::thread::JoinHandle<Result<()>> {
    spawn_node(move |node| async move {
        answers.send(node.netns.display().to_string())?;
        let mut running: Option<(Network, PodNetwork)> = None;
        while let Some(step) = steps.recv().await {
            match (step, &running) {
                (Step::Plug, _) => {
                    address(number)?;
                    let network = Network::start(config(&node.dir, number), Recorder::default()).await?;
                    let pod = network.attach(&request("a")).await?;
                    running = Some((network, pod));
                }
                (Step::Peers(peers), Some((network, _))) => network.set_peers(peers).await?,
                (Step::Ping(targets), Some((_, pod))) => {
                    for target in targets {
                        finish(inside(netns(pod), move || ping(target)))?;
                    }
                }
                _ => anyhow::bail!("node {number} is not plugged in"),
            }
            answers.send(ip("-4 route")? + &ip("-6 route")?)?;
        }
        Ok(())
    })
}

#[test]
fn pods_of_two_nodes_reach_each_other_once_peers_are_set() -> Result<()> {
    if skips() {
        return Ok(());
    }
    let mut nodes = Vec::new();
    for number in [1, 2] {
        let (steps, inbox) = tokio::sync::mpsc::channel(1);
        let (outbox, answers) = std::sync::mpsc::channel();
        let thread = serve(number, inbox, outbox);
        let netns = answers.recv_timeout(Duration::from_secs(5))?;
        nodes.push((steps, answers, thread, netns));
    }
    let wire = format!("link add up0 netns {} type veth peer name up0 netns {}", nodes[0].3, nodes[1].3);
    ip(&wire)?;
    let ask = |node: usize, step: Step| -> Result<String> {
        nodes[node].0.blocking_send(step)?;
        Ok(nodes[node].1.recv_timeout(Duration::from_secs(20))?)
    };
    let peer = |number: u8| {
        let NetworkConfig { node_addresses, pod_cidrs, .. } = config(Path::new("/"), number);
        Peer { node: format!("node-{number}"), addresses: node_addresses, pod_cidrs }
    };
    ask(0, Step::Plug)?;
    ask(1, Step::Plug)?;
    ask(0, Step::Peers(vec![peer(2)]))?;
    let routes = ask(1, Step::Peers(vec![peer(1)]))?;
    ask(0, Step::Ping(vec!["10.99.2.2".parse()?, "fd99:2::2".parse()?]))?;
    ask(1, Step::Ping(vec!["10.99.1.2".parse()?, "fd99:1::2".parse()?]))?;
    ensure!(ask(1, Step::Peers(vec![peer(1)]))? == routes, "the same peers changed routes");
    ensure!(!ask(1, Step::Peers(vec![]))?.contains("via"), "routes to a lost peer are left");
    for (steps, _, thread, _) in nodes {
        drop(steps);
        finish(thread)?;
    }
    Ok(())
}
