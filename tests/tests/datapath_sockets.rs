//! Services seen by real sockets: connect, sendmsg, recvmsg, getpeername, for both families.
//!
//! In: a network namespace and a cgroup per test. Out: where connections really go and what applications see.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use xebec_datapath::lb::{
    Backend, BackendId, Frontend, FrontendKind, LbOp, Protocol, Scope, ServiceEntry, ServiceId,
};
use xebec_datapath::{Capacity, Datapath, DatapathConfig};
use xebec_tests::cgroup::Cgroup;
use xebec_tests::cluster::eventually;
use xebec_tests::netns::{Node, ip, on_node};

const PATIENCE: Duration = Duration::from_secs(5);

/// A node without pods: its own processes are the clients, addresses on `lo` the backends.
struct Host {
    datapath: Datapath,
    cgroup: Cgroup,
}

fn host(node: &Node) -> Result<Host> {
    ip("addr add 192.0.2.1/32 dev lo")?;
    ip("addr add 192.0.2.2/32 dev lo")?;
    ip("-6 addr add 2001:db8::1/128 dev lo nodad")?;
    ip("-6 addr add 2001:db8::2/128 dev lo nodad")?;
    let cgroup = Cgroup::create()?;
    let bpffs = node.dir.join("bpf");
    mount_bpffs(&bpffs)?;
    let mut config = DatapathConfig::new(
        bpffs,
        cgroup.path().to_path_buf(),
        vec!["192.0.2.1".parse()?, "2001:db8::1".parse()?],
    );
    config.capacity = Capacity { services: 64, backends: 64, slots: 64, pods: 64, flows: 64, affinity: 64 };
    let datapath = Datapath::open(&config)?;
    cgroup.enter()?;
    Ok(Host { datapath, cgroup })
}

fn mount_bpffs(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)?;
    mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), Some("mode=0700")).context("mounting a bpffs")
}

fn service(
    id: u32,
    vip: &str,
    protocol: Protocol,
    kind: FrontendKind,
    backends: &[SocketAddr],
) -> Result<Vec<LbOp>> {
    let vip: SocketAddr = vip.parse()?;
    let base = id * 8;
    let mut ops: Vec<LbOp> = Vec::new();
    let ids: Vec<BackendId> = (0..backends.len()).map(|i| BackendId(base + i as u32)).collect();
    for (id, address) in ids.iter().zip(backends) {
        let backend = Backend { address: address.ip(), port: address.port(), protocol, local: true };
        ops.push(LbOp::PutBackend { id: *id, backend });
    }
    if !ids.is_empty() {
        ops.push(LbOp::PutSlots { base, backends: ids });
    }
    ops.push(LbOp::PutService {
        frontend: Frontend { address: vip.ip(), port: vip.port(), protocol, scope: Scope::Internal },
        entry: ServiceEntry {
            id: ServiceId(id),
            kind,
            base,
            count: backends.len() as u32,
            generation: 1,
            affinity: None,
            masquerade: true,
            drop_when_empty: false,
        },
    });
    Ok(ops)
}

/// Accepts one connection, answers with the given word.
fn serve_once(listener: TcpListener, word: &'static str) -> std::thread::JoinHandle<Result<SocketAddr>> {
    std::thread::spawn(move || {
        let (mut stream, from) = listener.accept()?;
        stream.write_all(word.as_bytes())?;
        Ok(from)
    })
}

/// Listens, also where the last listener is still closing: a child that another test forks holds a copy of it until it
/// executes its program.
fn listen(address: &str) -> Result<TcpListener> {
    let mut last = TcpListener::bind(address);
    eventually(PATIENCE, || {
        if last.as_ref().is_err_and(|e| e.kind() == ErrorKind::AddrInUse) {
            last = TcpListener::bind(address);
        }
        last.is_ok()
    });
    last.with_context(|| format!("listening on {address}"))
}

fn connect_through(vip: &str, backend: &str) -> Result<()> {
    let listener = listen(backend)?;
    let server = serve_once(listener, "served");
    let vip: SocketAddr = vip.parse()?;
    let mut stream =
        TcpStream::connect_timeout(&vip, PATIENCE).with_context(|| format!("connecting to {vip}"))?;
    ensure!(stream.peer_addr()? == vip, "getpeername shows {}, not {vip}", stream.peer_addr()?);
    let mut word = String::new();
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_to_string(&mut word)?;
    ensure!(word == "served");
    server.join().expect("the server thread must not panic")?;
    Ok(())
}

#[test]
fn tcp_connects_to_a_cluster_ip_over_ipv4() {
    on_node(|node| async move {
        let host = host(&node)?;
        host.datapath.lb().apply(&service(
            1,
            "10.96.0.10:80",
            Protocol::Tcp,
            FrontendKind::ClusterIp,
            &["192.0.2.2:8080".parse()?],
        )?)?;
        connect_through("10.96.0.10:80", "192.0.2.2:8080")
    });
}

#[test]
fn tcp_connects_to_a_cluster_ip_over_ipv6() {
    on_node(|node| async move {
        let host = host(&node)?;
        host.datapath.lb().apply(&service(
            1,
            "[fd00::10]:80",
            Protocol::Tcp,
            FrontendKind::ClusterIp,
            &["[2001:db8::2]:8080".parse()?],
        )?)?;
        connect_through("[fd00::10]:80", "[2001:db8::2]:8080")
    });
}

#[test]
fn unconnected_datagrams_show_the_address_that_was_spoken_to() {
    on_node(|node| async move {
        let host = host(&node)?;
        for (id, vip, backend, local) in [
            (1, "10.96.0.53:53", "192.0.2.2:5353", "0.0.0.0:0"),
            (2, "[fd00::53]:53", "[2001:db8::2]:5353", "[::]:0"),
        ] {
            host.datapath.lb().apply(&service(
                id,
                vip,
                Protocol::Udp,
                FrontendKind::ClusterIp,
                &[backend.parse()?],
            )?)?;
            let server = UdpSocket::bind(backend)?;
            server.set_read_timeout(Some(PATIENCE))?;
            let client = UdpSocket::bind(local)?;
            client.set_read_timeout(Some(PATIENCE))?;
            let vip: SocketAddr = vip.parse()?;
            for word in ["one", "two"] {
                client.send_to(word.as_bytes(), vip)?;
                let mut buffer = [0; 16];
                let (len, from) = server.recv_from(&mut buffer)?;
                ensure!(&buffer[..len] == word.as_bytes());
                server.send_to(&buffer[..len], from)?;
                let (len, from) = client.recv_from(&mut buffer)?;
                ensure!(&buffer[..len] == word.as_bytes());
                ensure!(from == vip, "the answer shows {from}, not {vip}");
            }
        }
        Ok(())
    });
}

/// The service at `10.96.0.10:80` and its sister over IPv6, both for one backend of each family.
fn serve_web(host: &Host) -> Result<()> {
    for (id, vip, backend) in
        [(1, "10.96.0.10:80", "192.0.2.2:8080"), (2, "[fd00::10]:80", "[2001:db8::2]:8080")]
    {
        let ops = service(id, vip, Protocol::Tcp, FrontendKind::ClusterIp, &[backend.parse()?])?;
        host.datapath.lb().apply(&ops)?;
    }
    Ok(())
}

#[test]
fn an_ipv6_socket_reaches_ipv4_services_in_mapped_form() {
    on_node(|node| async move {
        let host = host(&node)?;
        serve_web(&host)?;
        connect_through("[::ffff:10.96.0.10]:80", "192.0.2.2:8080")?;

        host.datapath.lb().apply(&service(
            3,
            "10.96.0.53:53",
            Protocol::Udp,
            FrontendKind::ClusterIp,
            &["192.0.2.2:5353".parse()?],
        )?)?;
        let (server, client) = (UdpSocket::bind("192.0.2.2:5353")?, UdpSocket::bind("[::]:0")?);
        let vip: SocketAddr = "[::ffff:10.96.0.53]:53".parse()?;
        ask(&server, &client, |word| client.send_to(word, vip), vip)
    });
}

#[test]
fn a_connected_datagram_socket_speaks_to_one_backend() {
    on_node(|node| async move {
        let host = host(&node)?;
        for (id, vip, backend, local) in [
            (1, "10.96.0.53:53", "192.0.2.2:5353", "0.0.0.0:0"),
            (2, "[fd00::53]:53", "[2001:db8::2]:5353", "[::]:0"),
        ] {
            let ops = service(id, vip, Protocol::Udp, FrontendKind::ClusterIp, &[backend.parse()?])?;
            host.datapath.lb().apply(&ops)?;
            let (server, client) = (UdpSocket::bind(backend)?, UdpSocket::bind(local)?);
            let vip: SocketAddr = vip.parse()?;
            client.connect(vip)?;
            ensure!(client.peer_addr()? == vip, "getpeername shows {}", client.peer_addr()?);
            ask(&server, &client, |word| client.send(word), vip)?;
        }
        Ok(())
    });
}

/// Two datagrams and their answers, which must show `vip` as their sender.
fn ask(
    server: &UdpSocket,
    client: &UdpSocket,
    send: impl Fn(&[u8]) -> std::io::Result<usize>,
    vip: SocketAddr,
) -> Result<()> {
    server.set_read_timeout(Some(PATIENCE))?;
    client.set_read_timeout(Some(PATIENCE))?;
    for word in [b"one", b"two"] {
        send(word)?;
        let mut buffer = [0; 16];
        let (len, from) = server.recv_from(&mut buffer)?;
        server.send_to(&buffer[..len], from)?;
        let (len, from) = client.recv_from(&mut buffer)?;
        ensure!(&buffer[..len] == word && from == vip, "{:?} from {from}", &buffer[..len]);
    }
    Ok(())
}

#[test]
fn a_node_port_answers_on_the_nodes_addresses_and_on_localhost() {
    on_node(|node| async move {
        let host = host(&node)?;
        for (id, own, local, backend) in [
            (1, "192.0.2.1:30080", "127.0.0.1:30080", "192.0.2.2:8080"),
            (2, "[2001:db8::1]:30080", "[::1]:30080", "[2001:db8::2]:8080"),
        ] {
            let ops = service(id, own, Protocol::Tcp, FrontendKind::NodePort, &[backend.parse()?])?;
            host.datapath.lb().apply(&ops)?;
            connect_through(own, backend)?;
            connect_through(local, backend)?;
        }
        Ok(())
    });
}

#[test]
fn sockets_of_other_cgroups_are_left_alone() {
    on_node(|node| async move {
        let host = host(&node)?;
        serve_web(&host)?;
        let elsewhere = Cgroup::create()?;
        elsewhere.enter()?;
        for vip in ["10.96.0.10:80", "[fd00::10]:80"] {
            let outcome = TcpStream::connect_timeout(&vip.parse()?, Duration::from_millis(200));
            ensure!(outcome.is_err(), "{vip} was translated for another node's process");
        }
        connect_nothing_else(&host)
    });
}

/// Addresses that are no service's are reached as they are.
fn connect_nothing_else(host: &Host) -> Result<()> {
    host.cgroup.enter()?;
    connect_through("192.0.2.2:9999", "192.0.2.2:9999")?;
    connect_through("[2001:db8::2]:9999", "[2001:db8::2]:9999")
}

#[test]
fn a_service_that_moves_takes_new_connections_along() {
    on_node(|node| async move {
        let host = host(&node)?;
        serve_web(&host)?;
        connect_through("10.96.0.10:80", "192.0.2.2:8080")?;
        let ops = service(
            1,
            "10.96.0.10:80",
            Protocol::Tcp,
            FrontendKind::ClusterIp,
            &["192.0.2.1:8081".parse()?],
        )?;
        host.datapath.lb().apply(&ops)?;
        connect_through("10.96.0.10:80", "192.0.2.1:8081")
    });
}

#[test]
fn every_backend_of_a_service_gets_its_share() {
    on_node(|node| async move {
        let host = host(&node)?;
        let backends: Vec<SocketAddr> =
            (0..4).map(|i| format!("192.0.2.2:{}", 8080 + i).parse()).collect::<Result<_, _>>()?;
        host.datapath.lb().apply(&service(
            1,
            "10.96.0.10:80",
            Protocol::Tcp,
            FrontendKind::ClusterIp,
            &backends,
        )?)?;
        let listeners = backends.iter().map(TcpListener::bind).collect::<Result<Vec<_>, _>>()?;
        let vip: SocketAddr = "10.96.0.10:80".parse()?;
        // Held open, so that each listener's queue tells how many it got.
        let clients =
            (0..64).map(|_| TcpStream::connect_timeout(&vip, PATIENCE)).collect::<Result<Vec<_>, _>>()?;
        let mut shares = Vec::new();
        for listener in &listeners {
            listener.set_nonblocking(true)?;
            shares.push(std::iter::from_fn(|| listener.accept().ok()).count());
        }
        ensure!(shares.iter().sum::<usize>() == clients.len(), "{shares:?}");
        // Sixteen each are expected; fewer than two has a chance below one in a million.
        ensure!(shares.iter().all(|share| *share >= 2), "{shares:?}");
        Ok(())
    });
}
