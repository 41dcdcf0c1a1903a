//! Services seen by real sockets: connect, sendmsg, recvmsg, getpeername, for both families.
//!
//! In: a network namespace and a cgroup per test. Out: where connections really go and what applications see.

use std::io::{Read, Write};
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
use xebec_tests::netns::{Node, ip, on_node};

const PATIENCE: Duration = Duration::from_secs(5);

/// A node without pods: its own processes are the clients, addresses on `lo` the backends.
struct Host {
    datapath: Datapath,
    _cgroup: Cgroup,
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
    Ok(Host { datapath, _cgroup: cgroup })
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

fn connect_through(vip: &str, backend: &str) -> Result<()> {
    let listener = TcpListener::bind(backend)?;
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
