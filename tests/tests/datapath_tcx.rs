//! The packet path on real veths: what the socket hooks cannot see, from pods, nodes and outside, for both families.
//!
//! In: two nodes and their pods as namespaces. Out: who reaches whom, whom each end sees, what is refused.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xebec_datapath::lb::{FrontendKind, Protocol};
use xebec_tests::fabric::{
    Fabric, FabricNode, Family, Netns, PATIENCE, PORT, Pod, Service, TcpClient, UdpClient, is_refused,
    serve_tcp, serve_udp,
};
use xebec_tests::netns::{Node, on_node, ping};

const NODE_PORT: u16 = 30_080;

/// Two nodes; two pods on the first, one on the second.
struct World {
    fabric: Fabric,
    near: Pod,
    other: Pod,
    far: Pod,
}

impl World {
    fn create(node: &Node) -> Result<Self> {
        let fabric = Fabric::create(&node.dir, 2)?;
        let near = fabric.nodes[0].add_pod(1)?;
        let other = fabric.nodes[0].add_pod(2)?;
        let far = fabric.nodes[1].add_pod(1)?;
        Ok(Self { fabric, near, other, far })
    }

    fn first(&self) -> &FabricNode {
        &self.fabric.nodes[0]
    }

    fn second(&self) -> &FabricNode {
        &self.fabric.nodes[1]
    }

    fn ensure_clean(&self) -> Result<()> {
        self.first().ensure_no_drops()?;
        self.second().ensure_no_drops()?;
        self.fabric.ensure_untracked(&[&self.near, &self.other, &self.far])
    }
}

fn on_world(test: fn(World) -> Result<()>) {
    on_node(async move |node| test(World::create(&node)?));
}

fn endpoint(pod: &Pod, family: Family) -> SocketAddr {
    SocketAddr::new(pod.address(family), PORT)
}

fn cluster_ip(vip: SocketAddr, protocol: Protocol, backend: SocketAddr, on: u8) -> Service {
    Service::new(vip, protocol, FrontendKind::ClusterIp, &[(backend, on)])
}

/// A NodePort on every node: each knows it under its own address.
fn serve_node_port(
    fabric: &Fabric,
    family: Family,
    protocol: Protocol,
    backends: &[(SocketAddr, u8)],
) -> Result<()> {
    fabric.nodes.iter().try_for_each(|node| {
        let address = SocketAddr::new(node.address(family), NODE_PORT);
        node.serve(&Service::new(address, protocol, FrontendKind::NodePort, backends))
    })
}

fn tcp_seen(from: &Netns, to: SocketAddr) -> Result<SocketAddr> {
    from.run(|| {
        let mut client = TcpClient::connect(to)?;
        client.echo(b"over and out")?;
        Ok(client.seen)
    })
}

fn udp_seen(from: &Netns, to: SocketAddr) -> Result<SocketAddr> {
    from.run(|| {
        let client = UdpClient::open(to)?;
        let first = client.ask("one")?;
        ensure!(client.ask("two")? == first, "the second datagram comes from elsewhere");
        Ok(first)
    })
}

/// TCP and UDP give no answer but a refusal.
fn ensure_refused(from: &Netns, to: SocketAddr) -> Result<()> {
    from.run(|| {
        let error = TcpStream::connect_timeout(&to, PATIENCE).err().context("TCP is accepted")?;
        ensure!(is_refused(&error), "TCP to {to}: {error}");
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        socket.send(b"anybody?")?;
        let error = socket.recv(&mut [0; 16]).err().context("UDP is answered")?;
        ensure!(is_refused(&error), "UDP to {to}: {error}");
        Ok(())
    })
}

#[test]
fn pods_reach_pods_nodes_and_the_outside_without_flow_state() {
    on_world(|world| {
        let _servers =
            (serve_tcp(&world.other.netns)?, serve_tcp(&world.far.netns)?, serve_tcp(&world.first().netns)?);
        for family in Family::BOTH {
            let source = world.near.address(family);
            for to in [
                endpoint(&world.other, family),
                endpoint(&world.far, family),
                SocketAddr::new(world.first().address(family), PORT),
            ] {
                ensure!(tcp_seen(&world.near.netns, to)?.ip() == source, "{to} sees another source");
                world.near.netns.run(|| ping(to.ip()))?;
            }
            world.second().netns.run(|| ping(source))?;
        }
        ensure!(world.first().datapath().sweep()?.seen == 0, "a flow was made");
        world.ensure_clean()
    });
}

#[test]
fn a_pod_reaches_cluster_ips_over_tcp() {
    on_world(|world| {
        let _servers = [&world.near, &world.other, &world.far].map(|pod| serve_tcp(&pod.netns));
        let _nodes = [world.first(), world.second()].map(|node| serve_tcp(&node.netns));
        for family in Family::BOTH {
            reach_cluster_ips(&world, family, Protocol::Tcp, tcp_seen)?;
        }
        world.ensure_clean()
    });
}

#[test]
fn a_pod_reaches_cluster_ips_over_udp() {
    on_world(|world| {
        let _servers = [&world.near, &world.other, &world.far].map(|pod| serve_udp(&pod.netns));
        // A datagram socket at every address answers from the one it would choose; this node has one per family.
        let _nodes = [world.first(), world.second()].map(|node| serve_udp(&node.netns));
        for family in Family::BOTH {
            reach_cluster_ips(&world, family, Protocol::Udp, udp_seen)?;
        }
        world.ensure_clean()
    });
}

/// One service per place a backend can be, dialled by a pod of the first node.
fn reach_cluster_ips(
    world: &World,
    family: Family,
    protocol: Protocol,
    seen: fn(&Netns, SocketAddr) -> Result<SocketAddr>,
) -> Result<()> {
    let pod = world.near.address(family);
    let node = |node: &FabricNode| SocketAddr::new(node.address(family), PORT);
    for (last, what, backend, on, source) in [
        (1, "a pod of the node", endpoint(&world.other, family), 1, pod),
        (2, "a pod of another node", endpoint(&world.far, family), 2, pod),
        (3, "the pod itself", endpoint(&world.near, family), 1, world.first().address(family)),
        (4, "the node", node(world.first()), 1, pod),
        (5, "another node", node(world.second()), 2, pod),
    ] {
        let vip = family.vip(last, 80);
        world.fabric.serve(&cluster_ip(vip, protocol, backend, on))?;
        let seen = seen(&world.near.netns, vip).with_context(|| format!("{what} as backend"))?;
        ensure!(seen.ip() == source, "{what} sees {seen}, not {source}");
    }
    Ok(())
}

#[test]
fn node_ports_serve_clients_outside_on_either_node_over_tcp() {
    on_world(|world| {
        let _server = serve_tcp(&world.far.netns)?;
        for family in Family::BOTH {
            reach_node_ports(&world, family, Protocol::Tcp, tcp_seen)?;
        }
        world.ensure_clean()
    });
}

#[test]
fn node_ports_serve_clients_outside_on_either_node_over_udp() {
    on_world(|world| {
        let _server = serve_udp(&world.far.netns)?;
        for family in Family::BOTH {
            reach_node_ports(&world, family, Protocol::Udp, udp_seen)?;
        }
        world.ensure_clean()
    });
}

/// The backend is on the second node: there the source is kept, the first one must stand in between.
fn reach_node_ports(
    world: &World,
    family: Family,
    protocol: Protocol,
    seen: fn(&Netns, SocketAddr) -> Result<SocketAddr>,
) -> Result<()> {
    serve_node_port(&world.fabric, family, protocol, &[(endpoint(&world.far, family), 2)])?;
    let at = |node: &FabricNode| SocketAddr::new(node.address(family), NODE_PORT);

    let source = seen(&world.fabric.hub, at(world.second()))?;
    let outside = if family == Family::V4 { "172.31.7.254" } else { "fd31:7::fe" };
    ensure!(source.ip().to_string() == outside, "the backend's node does not keep the source: {source}");

    let source = seen(&world.fabric.hub, at(world.first()))?;
    ensure!(source.ip() == world.first().address(family), "the other node is not in between: {source}");
    ensure!(source.port() >= 61_000, "{source} is no masquerade port");

    // A pod dials the other node's port: its packets come to that node from outside.
    let source = seen(&world.near.netns, at(world.second()))?;
    ensure!(source.ip() == world.near.address(family), "the pod's source is not kept: {source}");
    Ok(())
}

#[test]
fn a_node_port_reaches_a_backend_in_the_nodes_own_namespace() {
    on_world(|world| {
        let _servers = (serve_tcp(&world.second().netns)?, serve_udp(&world.second().netns)?);
        for family in Family::BOTH {
            let backend = SocketAddr::new(world.second().address(family), PORT);
            for (protocol, seen) in [
                (Protocol::Tcp, tcp_seen as fn(&Netns, SocketAddr) -> Result<SocketAddr>),
                (Protocol::Udp, udp_seen),
            ] {
                serve_node_port(&world.fabric, family, protocol, &[(backend, 2)])?;
                for node in &world.fabric.nodes {
                    seen(&world.fabric.hub, SocketAddr::new(node.address(family), NODE_PORT))
                        .with_context(|| format!("{protocol:?} through node {}", node.number))?;
                }
            }
        }
        world.ensure_clean()
    });
}

#[test]
fn large_transfers_arrive_intact_through_every_translation() {
    on_world(|world| {
        let _server = serve_tcp(&world.far.netns)?;
        let bytes: Vec<u8> =
            (0..4_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for family in Family::BOTH {
            let backend = (endpoint(&world.far, family), 2);
            serve_node_port(&world.fabric, family, Protocol::Tcp, &[backend])?;
            let vip = family.vip(9, 80);
            world.fabric.serve(&cluster_ip(vip, Protocol::Tcp, backend.0, backend.1))?;
            world.near.netns.run(|| TcpClient::connect(vip)?.echo(&bytes))?;
            for node in &world.fabric.nodes {
                let port = SocketAddr::new(node.address(family), NODE_PORT);
                world.fabric.hub.run(|| TcpClient::connect(port)?.echo(&bytes))?;
            }
        }
        world.ensure_clean()
    });
}

#[test]
fn two_flows_from_one_source_port_to_one_backend_do_not_collide() {
    on_world(|world| {
        let _server = serve_tcp(&world.far.netns)?;
        for family in Family::BOTH {
            let vips = [family.vip(20, 80), family.vip(21, 80)];
            for vip in vips {
                world.fabric.serve(&cluster_ip(vip, Protocol::Tcp, endpoint(&world.far, family), 2))?;
            }
            world.near.netns.run(|| {
                let mut clients =
                    [TcpClient::connect_from(40_000, vips[0])?, TcpClient::connect_from(40_000, vips[1])?];
                ensure!(clients[0].seen != clients[1].seen, "both are {}", clients[0].seen);
                for client in &mut clients {
                    client.echo(b"still here")?;
                }
                Ok(())
            })?;
        }
        world.ensure_clean()
    });
}

#[test]
fn a_direct_connection_from_the_port_of_a_translated_one_gets_its_own_answers() {
    on_world(|world| {
        let _server = serve_tcp(&world.far.netns)?;
        for family in Family::BOTH {
            let (vip, direct) = (family.vip(22, 80), endpoint(&world.far, family));
            world.fabric.serve(&cluster_ip(vip, Protocol::Tcp, direct, 2))?;
            world.near.netns.run(|| {
                let mut translated = TcpClient::connect_from(40_001, vip)?;
                // The first one lives.
                let mut beside = TcpClient::connect_from(40_001, direct).context("beside a live flow")?;
                ensure!(beside.seen != translated.seen, "both are {}", beside.seen);
                beside.echo(b"mine")?;
                translated.echo(b"and mine")?;
                drop((beside, translated));
                // The first one is over, though its flow is remembered for a while.
                drop(TcpClient::connect_from(40_002, vip)?);
                TcpClient::connect_from(40_002, direct)
                    .context("after a flow that ended")?
                    .echo(b"mine again")
            })?;
        }
        world.ensure_clean()
    });
}

#[test]
fn a_service_without_endpoints_refuses() {
    on_world(|world| {
        for family in Family::BOTH {
            let vip = family.vip(30, 80);
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                world.fabric.serve(&Service::new(vip, protocol, FrontendKind::ClusterIp, &[]))?;
                serve_node_port(&world.fabric, family, protocol, &[])?;
            }
            let node_port = SocketAddr::new(world.first().address(family), NODE_PORT);
            ensure_refused(&world.near.netns, vip).context("from a pod")?;
            ensure_refused(&world.near.netns, node_port).context("from a pod, NodePort")?;
            ensure_refused(&world.fabric.hub, node_port).context("from outside")?;
            ensure_refused(&world.first().netns, vip).context("from the node itself")?;
        }
        ensure!(world.first().dropped("no_endpoint")? == 16, "{:?}", world.first().datapath().drops()?);
        Ok(())
    });
}

#[test]
fn a_local_policy_without_a_local_endpoint_drops_silently() {
    on_world(|world| {
        for family in Family::BOTH {
            let at = SocketAddr::new(world.first().address(family), NODE_PORT);
            let mut service = Service::new(at, Protocol::Udp, FrontendKind::NodePort, &[]);
            service.drop_when_empty = true;
            world.first().serve(&service)?;
            world.fabric.hub.run(|| {
                let socket = UdpSocket::bind(if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                socket.connect(at)?;
                socket.send(b"anybody?")?;
                // The datagram is dropped before the call returns or soon after; an answer would be an error here.
                socket.set_read_timeout(Some(Duration::from_millis(200)))?;
                let error = socket.recv(&mut [0; 16]).err().context("UDP is answered")?;
                ensure!(!is_refused(&error), "{error}");
                Ok(())
            })?;
        }
        ensure!(world.first().dropped("no_local_endpoint")? == 2);
        Ok(())
    });
}

#[test]
fn a_pod_cannot_send_with_anothers_address() {
    on_world(|world| {
        let _server = serve_udp(&world.far.netns)?;
        for (family, length) in [(Family::V4, 32), (Family::V6, 128)] {
            let stolen = world.other.address(family);
            let to = endpoint(&world.far, family);
            world.near.netns.run(|| {
                xebec_tests::netns::ip_batch(&format!("addr add {stolen}/{length} dev lo nodad\n"))?;
                let socket = UdpSocket::bind(SocketAddr::new(stolen, 0))?;
                socket.send_to(b"it was him", to)?;
                UdpClient::open(to)?.ask("this is me").map(drop)
            })?;
        }
        ensure!(world.first().dropped("spoofed_source")? == 2);
        Ok(())
    });
}

#[test]
fn affinity_binds_a_client_on_the_packet_and_on_the_socket_path() {
    on_world(|world| {
        let _servers = [&world.near, &world.other, &world.far].map(|pod| serve_tcp(&pod.netns));
        for family in Family::BOTH {
            let vip = family.vip(40, 80);
            let backends = [
                (endpoint(&world.other, family), 1),
                (endpoint(&world.far, family), 2),
                (endpoint(&world.near, family), 1),
            ];
            let mut service = Service::new(vip, Protocol::Tcp, FrontendKind::ClusterIp, &backends);
            service.affinity = Some(Duration::from_secs(600));
            world.first().serve(&service)?;
            let packet_path = served_by(&world, vip, false)?;
            for _ in 0..8 {
                ensure!(served_by(&world, vip, false)? == packet_path, "the packet path forgets its client");
                ensure!(served_by(&world, vip, true)? == packet_path, "the paths disagree");
            }
        }
        Ok(())
    });
}

/// Who serves a connection of the near pod, by whether its thread is in the node's cgroup.
fn served_by(world: &World, vip: SocketAddr, in_cgroup: bool) -> Result<SocketAddr> {
    world.near.netns.run(|| {
        if in_cgroup {
            world.first().cgroup.enter()?;
        }
        let client = TcpClient::connect(vip)?;
        ensure!(client.stream.peer_addr()? == vip, "the client sees {}", client.stream.peer_addr()?);
        Ok(client.served_by)
    })
}
