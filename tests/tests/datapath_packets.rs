//! Packets by the table: each runs through the plain Rust logic and through the program in the kernel, with one result.
//!
//! In: the same services and pods in memory and in maps; packets with their hook. Out: equal verdicts, bytes, counters and
//! numbers of flows, and what a person expects of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use xebec_datapath::lb::{FrontendKind, LbOp, Protocol, Scope};
use xebec_datapath::{Action, Hook};
use xebec_ebpf::fake::wire::{Body, Wire};
use xebec_ebpf::fake::{Bytes, Tables};
use xebec_ebpf::packet::tcp::{ACK, FIN, RST, SYN};
use xebec_ebpf::verdict::{self, Verdict};
use xebec_ebpf::{pod, uplink};
use xebec_ebpf_common::{
    BackendValue, Be16, NetnsValue, PodValue, Reason, ServiceKey, ServiceValue, V4, V6, backend_flags, proto,
    scope, service_flags, service_kind,
};
use xebec_tests::fabric::{Fabric, FabricNode, Family, Pod, Service};
use xebec_tests::netns::{Node, on_node};

/// Where a packet is seen.
#[derive(Clone, Copy, Debug)]
enum At {
    /// The near pod sends.
    Near,
    /// The other pod sends.
    Other,
    /// The stack sends to the near pod.
    ToNear,
    /// It arrives at the uplink.
    In,
    /// It leaves by the uplink.
    Out,
}

/// What a person expects of a packet.
#[derive(Debug)]
enum Expect {
    Pass(Wire),
    /// It goes where the program says, as this.
    Redirect(Wire),
    Drop(Reason),
}
use Expect::{Drop, Pass, Redirect};

/// One node twice: in memory and in the kernel.
struct Twins {
    family: Family,
    fabric: Fabric,
    near: Pod,
    other: Pod,
    interfaces: [u32; 3],
    tables: Tables,
    services: u32,
}

const UPLINK_MAC: [u8; 6] = [2, 0, 0, 2, 0, 1];
const SENDER_MAC: [u8; 6] = [2, 0, 0, 9, 9, 9];
/// The only port flows are masqueraded with, so that both twins choose the same.
const MASQUERADE: u16 = 61_000;

// === The twins ===

impl Twins {
    fn create(node: &Node, family: Family) -> Result<Self> {
        let fabric = Fabric::create_with(&node.dir, 1, |config| {
            config.masquerade_ports = MASQUERADE..=MASQUERADE;
        })?;
        let (near, other) = (fabric.nodes[0].add_pod(1)?, fabric.nodes[0].add_pod(2)?);
        let interfaces = fabric.nodes[0].netns.run(|| {
            let index = |name: &str| nix::net::if_::if_nametoindex(name);
            Ok([index(&near.interface)?, index(&other.interface)?, index("up0")?])
        })?;
        let tables = Tables::default();
        let mut config = tables.config.get();
        (config.v4, config.v6) =
            (v4(fabric.nodes[0].address(Family::V4))?, v6(fabric.nodes[0].address(Family::V6))?);
        (config.masquerade_first, config.masquerade_last) = (MASQUERADE, MASQUERADE);
        tables.config.set(config);
        for (index, pod) in (1..).zip([&near, &other]) {
            let value = PodValue {
                ifindex: interfaces[index as usize - 1],
                index,
                mac: pod_mac(pod.number),
                host_mac: host_mac(pod.number),
            };
            let (v4, v6) = (v4(pod.address(Family::V4))?, v6(pod.address(Family::V6))?);
            tables.v4.pods.borrow_mut().insert(v4, value);
            tables.v6.pods.borrow_mut().insert(v6, value);
            tables.netns.borrow_mut().insert(index.into(), NetnsValue { v4, v6 });
        }
        Ok(Self { family, fabric, near, other, interfaces, tables, services: 1 })
    }

    fn node(&self) -> &FabricNode {
        &self.fabric.nodes[0]
    }

    /// Serves it in both worlds; out: the number of the service.
    fn serve(&mut self, service: &Service) -> Result<u32> {
        let id = self.services;
        self.services += 1;
        self.apply(&service.ops(1, id))?;
        Ok(id)
    }

    fn apply(&self, ops: &[LbOp]) -> Result<()> {
        self.node().datapath().lb().apply(ops)?;
        ops.iter().try_for_each(|op| apply(&self.tables, op))
    }

    /// Runs a packet through both.
    fn run(&self, at: At, bytes: &[u8]) -> Result<(Action, Vec<u8>, Option<Reason>)> {
        let [near, other, up] = self.interfaces;
        let (hook, ifindex) = match at {
            At::Near => (Hook::PodIngress, near),
            At::Other => (Hook::PodIngress, other),
            At::ToNear => (Hook::PodEgress, near),
            At::In => (Hook::UplinkIngress, up),
            At::Out => (Hook::UplinkEgress, up),
        };
        let counted = self.counted()?;
        let node = self.node();
        let kernel = node.netns.run(|| Ok(node.datapath().test_run(hook, ifindex, bytes, 1)?))?;

        let mut packet = Bytes { data: bytes.to_vec(), ifindex, partial: false, route: Some(up) };
        let verdict = decide(&mut packet, &self.tables, hook);
        let action = match verdict.action {
            verdict::Action::Pass => Action::Pass,
            verdict::Action::Drop => Action::Drop,
            _ => Action::Redirect,
        };
        let reason = Reason::ALL.iter().copied().find(|reason| *reason as u32 == verdict.argument);
        let reason = reason.filter(|_| action == Action::Drop);
        if let Some(reason) = reason {
            *self.tables.counters.borrow_mut().entry(reason as u32).or_default() += 1;
        }
        ensure!(action == kernel.action, "host {action:?}, kernel {:?}", kernel.action);
        ensure!(
            action == Action::Drop || packet.data == kernel.packet,
            "the bytes differ:\nhost   {:02x?}\nkernel {:02x?}",
            packet.data,
            kernel.packet
        );
        for (reason, count) in self.counted()? {
            let before = counted.get(&reason).copied().unwrap_or(0);
            let host = Reason::ALL.iter().find(|r| r.name() == reason).map_or(0, |r| self.tables.counted(*r));
            ensure!(count == host, "{reason}: host {host}, kernel {count} ({before} before)");
        }
        let flows = self.tables.v4.flows.borrow().len() + self.tables.v6.flows.borrow().len();
        let kernel_flows = self.node().datapath().sweep()?.seen;
        ensure!(flows == kernel_flows, "host {flows} flow entries, kernel {kernel_flows}");
        Ok((action, packet.data, reason))
    }

    fn counted(&self) -> Result<BTreeMap<&'static str, u64>> {
        Ok(self.node().datapath().drops()?.into_iter().map(|drop| (drop.reason, drop.packets)).collect())
    }

    /// Runs a packet and compares with what is expected.
    fn step(&self, name: &str, at: At, packet: Wire, expect: &Expect) -> Result<()> {
        let mac = match at {
            At::Near | At::ToNear => host_mac(self.near.number),
            At::Other => host_mac(self.other.number),
            At::In | At::Out => UPLINK_MAC,
        };
        self.step_bytes(name, at, &packet.to_mac(mac).bytes(), expect)
    }

    fn step_bytes(&self, name: &str, at: At, bytes: &[u8], expect: &Expect) -> Result<()> {
        let (action, out, reason) =
            self.run(at, bytes).with_context(|| format!("{name} ({:?}, {at:?})", self.family))?;
        let read = Wire::read(&out);
        let right = match expect {
            Pass(wire) => action == Action::Pass && same(read.as_ref(), wire),
            Redirect(wire) => action == Action::Redirect && same(read.as_ref(), wire),
            Drop(expected) => action == Action::Drop && reason == Some(*expected),
        };
        ensure!(
            right,
            "{name} ({:?}, {at:?}): {action:?} {reason:?} {read:?}, expected {expect:?}",
            self.family
        );
        Ok(())
    }

    fn near(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.near.address(self.family), port)
    }

    fn other(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.other.address(self.family), port)
    }

    fn own(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.node().address(self.family), port)
    }

    /// A pod of another node.
    fn remote(&self, port: u16) -> SocketAddr {
        let text = if self.family == Family::V4 { "10.99.2.7" } else { "fd99:2::7" };
        SocketAddr::new(text.parse().expect("an address"), port)
    }

    /// Somebody outside.
    fn outside(&self, port: u16) -> SocketAddr {
        let text = if self.family == Family::V4 { "172.31.7.254" } else { "fd31:7::fe" };
        SocketAddr::new(text.parse().expect("an address"), port)
    }

    /// A cluster address for one backend.
    fn cluster_ip(
        &mut self,
        last: u8,
        protocol: Protocol,
        backends: &[(SocketAddr, u8)],
    ) -> Result<SocketAddr> {
        let vip = self.family.vip(last, 80);
        self.serve(&Service::new(vip, protocol, FrontendKind::ClusterIp, backends))?;
        Ok(vip)
    }

    fn node_port(
        &mut self,
        port: u16,
        protocol: Protocol,
        backends: &[(SocketAddr, u8)],
    ) -> Result<SocketAddr> {
        let at = self.own(port);
        self.serve(&Service::new(at, protocol, FrontendKind::NodePort, backends))?;
        Ok(at)
    }
}

/// MAC addresses count only where the expectation names them.
fn same(read: Option<&Wire>, wire: &Wire) -> bool {
    read.is_some_and(|read| {
        let macs = wire.macs == [[0; 6]; 2] || read.macs == wire.macs;
        macs && (read.src, read.dst, &read.body) == (wire.src, wire.dst, &wire.body)
    })
}

fn decide(packet: &mut Bytes, tables: &Tables, hook: Hook) -> Verdict {
    use xebec_ebpf::packet::Packet;
    match (packet.ethertype(), hook) {
        (0x0800, Hook::PodIngress) => pod::ingress::<V4, _, _>(packet, tables),
        (0x0800, Hook::PodEgress) => pod::egress::<V4, _, _>(packet, tables),
        (0x0800, Hook::UplinkIngress) => uplink::ingress::<V4, _, _>(packet, tables),
        (0x0800, Hook::UplinkEgress) => uplink::egress::<V4, _, _>(packet, tables),
        (0x86dd, Hook::PodIngress) => pod::ingress::<V6, _, _>(packet, tables),
        (0x86dd, Hook::PodEgress) => pod::egress::<V6, _, _>(packet, tables),
        (0x86dd, Hook::UplinkIngress) => uplink::ingress::<V6, _, _>(packet, tables),
        (0x86dd, Hook::UplinkEgress) => uplink::egress::<V6, _, _>(packet, tables),
        _ => Verdict::PASS,
    }
}

/// What the agent's writer does to maps, done to memory.
fn apply(tables: &Tables, op: &LbOp) -> Result<()> {
    match op {
        LbOp::PutBackend { id, backend } => {
            let (port, proto) = (Be16::new(backend.port), number(backend.protocol));
            let flags = if backend.local { backend_flags::LOCAL } else { 0 };
            if let Ok(addr) = v4(backend.address) {
                tables.v4.backends.borrow_mut().insert(id.0, BackendValue { addr, port, proto, flags });
            } else {
                let addr = v6(backend.address)?;
                tables.v6.backends.borrow_mut().insert(id.0, BackendValue { addr, port, proto, flags });
            }
        }
        LbOp::PutSlots { base, backends } => {
            let (mut slots, from) = (tables.slots.borrow_mut(), *base as usize);
            if slots.len() < from + backends.len() {
                slots.resize(from + backends.len(), 0);
            }
            for (slot, id) in slots[from..].iter_mut().zip(backends) {
                *slot = id.0;
            }
        }
        LbOp::PutService { frontend, entry } => {
            let mut flags = if entry.masquerade { service_flags::MASQUERADE } else { 0 };
            flags |= if entry.drop_when_empty { service_flags::DROP_EMPTY } else { 0 };
            let kind = if entry.kind == FrontendKind::ClusterIp {
                service_kind::CLUSTER_IP
            } else {
                service_kind::NODE_PORT
            };
            let value = ServiceValue {
                id: entry.id.0,
                base: entry.base,
                count: entry.count,
                generation: entry.generation,
                affinity: 0,
                flags,
                kind,
                pad: [0; 2],
            };
            let scope = if frontend.scope == Scope::Internal { scope::INTERNAL } else { scope::EXTERNAL };
            let (port, proto) = (Be16::new(frontend.port), number(frontend.protocol));
            if let Ok(addr) = v4(frontend.address) {
                tables.v4.services.borrow_mut().insert(ServiceKey { addr, port, proto, scope }, value);
            } else {
                let addr = v6(frontend.address)?;
                tables.v6.services.borrow_mut().insert(ServiceKey { addr, port, proto, scope }, value);
            }
        }
        LbOp::DeleteBackend { id } => {
            tables.v4.backends.borrow_mut().remove(&id.0);
            tables.v6.backends.borrow_mut().remove(&id.0);
        }
        LbOp::DeleteService { .. } => anyhow::bail!("no case deletes a service"),
    }
    Ok(())
}

fn number(protocol: Protocol) -> u8 {
    if protocol == Protocol::Tcp { proto::TCP } else { proto::UDP }
}

fn v4(address: std::net::IpAddr) -> Result<V4> {
    match address {
        std::net::IpAddr::V4(address) => Ok(V4::from_octets(address.octets())),
        std::net::IpAddr::V6(address) => anyhow::bail!("{address} is no IPv4 address"),
    }
}

fn v6(address: std::net::IpAddr) -> Result<V6> {
    match address {
        std::net::IpAddr::V6(address) => Ok(V6::from_octets(address.octets())),
        std::net::IpAddr::V4(address) => anyhow::bail!("{address} is no IPv6 address"),
    }
}

fn pod_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 1, 1, number]
}

fn host_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, number]
}

/// The same packet between other ends.
fn between(packet: &Wire, src: SocketAddr, dst: SocketAddr) -> Wire {
    Wire { src, dst, ..packet.clone() }
}

/// The same with the MAC addresses of a pod's wire.
fn into_pod(mut packet: Wire, pod: &Pod) -> Wire {
    packet.macs = [pod_mac(pod.number), host_mac(pod.number)];
    packet
}

fn each_family(test: fn(Twins) -> Result<()>) {
    on_node(async move |node| test(Twins::create(&node, Family::V4)?));
    on_node(async move |node| test(Twins::create(&node, Family::V6)?));
}

// === The table ===

#[test]
fn flows_of_pods() {
    each_family(|mut twins| {
        let (a, b) = (twins.near(5000), twins.other(8080));
        let vip = twins.cluster_ip(1, Protocol::Tcp, &[(b, 1)])?;
        let syn = Wire::tcp(a, vip, SYN);
        let answer = Wire::tcp(b, a, SYN | ACK);
        twins.step(
            "to a pod of the node",
            At::Near,
            syn.clone(),
            &Redirect(into_pod(between(&syn, a, b), &twins.other)),
        )?;
        twins.step(
            "its answer",
            At::Other,
            answer.clone(),
            &Redirect(into_pod(between(&answer, vip, a), &twins.near)),
        )?;
        let data = Wire::tcp(a, vip, ACK);
        twins.step("more of it", At::Near, data.clone(), &Redirect(between(&data, a, b)))?;
        let stray = Wire::tcp(twins.near(5001), vip, ACK);
        twins.step("a segment of no flow", At::Near, stray.clone(), &Pass(stray))?;

        let c = twins.remote(8080);
        let vip = twins.cluster_ip(2, Protocol::Udp, &[(c, 2)])?;
        let query = Wire::udp(a, vip);
        twins.step("to a pod of another node", At::Near, query.clone(), &Pass(between(&query, a, c)))?;
        let answer = Wire::udp(c, a);
        twins.step(
            "its answer",
            At::In,
            answer.clone(),
            &Redirect(into_pod(between(&answer, vip, a), &twins.near)),
        )?;

        let vip = twins.cluster_ip(3, Protocol::Tcp, &[(twins.near(8081), 1)])?;
        let (syn, snat) = (Wire::tcp(a, vip, SYN), twins.own(MASQUERADE));
        let itself = between(&syn, snat, twins.near(8081));
        twins.step("to itself", At::Near, syn, &Redirect(into_pod(itself, &twins.near)))?;
        let answer = Wire::tcp(twins.near(8081), snat, SYN | ACK);
        twins.step("its own answer", At::Near, answer.clone(), &Redirect(between(&answer, vip, a)))?;

        let vip = twins.cluster_ip(4, Protocol::Tcp, &[(twins.own(6443), 1)])?;
        let syn = Wire::tcp(a, vip, SYN);
        twins.step("to the node", At::Near, syn.clone(), &Pass(between(&syn, a, twins.own(6443))))?;
        let answer = Wire::tcp(twins.own(6443), a, SYN | ACK);
        twins.step("the node's answer", At::ToNear, answer.clone(), &Pass(between(&answer, vip, a)))
    });
}

#[test]
fn packets_without_a_service() {
    each_family(|twins| {
        let (a, b) = (twins.near(5000), twins.other(8080));
        for packet in [Wire::tcp(a, b, SYN), Wire::udp(a, b)] {
            twins.step("pod to pod", At::Near, packet.clone(), &Redirect(into_pod(packet, &twins.other)))?;
        }
        let out = Wire::tcp(a, twins.outside(443), SYN);
        twins.step("pod to the outside", At::Near, out.clone(), &Pass(out))?;
        let inward = Wire::udp(twins.outside(53), a);
        twins.step(
            "the outside to a pod",
            At::In,
            inward.clone(),
            &Redirect(into_pod(inward, &twins.near)),
        )?;
        let node = Wire::tcp(twins.outside(5000), twins.own(22), SYN);
        twins.step("the outside to the node", At::In, node.clone(), &Pass(node))?;
        let spoofed = Wire::udp(twins.other(5000), twins.outside(53));
        twins.step("another's source", At::Near, spoofed, &Drop(Reason::SpoofedSource))?;
        let stranger = Wire::udp(twins.remote(5000), twins.outside(53));
        twins.step("nobody's source", At::Near, stranger, &Drop(Reason::SpoofedSource))?;

        let kind = if twins.family == Family::V4 { 8 } else { 128 };
        let echo = |src: SocketAddr, dst: SocketAddr| Wire {
            macs: [[0; 6]; 2],
            src: SocketAddr::new(src.ip(), 0),
            dst: SocketAddr::new(dst.ip(), 0),
            body: Body::Icmp { kind, code: 0, rest: vec![0, 1, 0, 2, b'x'] },
        };
        let ping = echo(a, b);
        twins.step("a ping to a pod", At::Near, ping.clone(), &Redirect(into_pod(ping, &twins.other)))?;
        let ping = echo(a, twins.family.vip(77, 0));
        twins.step("a ping to a service", At::Near, ping.clone(), &Pass(ping))?;

        let mut short = Wire::tcp(a, b, SYN).to_mac(host_mac(1)).bytes();
        short.truncate(short.len() - 14);
        twins.step_bytes("half a TCP header from a pod", At::Near, &short, &Drop(Reason::Malformed))?;
        let mut odd = Wire::tcp(a, b, SYN).to_mac(host_mac(1)).bytes();
        odd[14] = 0x15;
        twins.step_bytes("an IP version that is none", At::Near, &odd, &Drop(Reason::Malformed))
    });
}

#[test]
fn node_ports_for_clients_outside() {
    each_family(|mut twins| {
        let client = twins.outside(5000);
        let (b, c) = (twins.near(8080), twins.remote(8080));
        let at = twins.node_port(30_001, Protocol::Tcp, &[(b, 1)])?;
        let syn = Wire::tcp(client, at, SYN);
        twins.step(
            "to a pod of the node",
            At::In,
            syn.clone(),
            &Redirect(into_pod(between(&syn, client, b), &twins.near)),
        )?;
        let answer = Wire::tcp(b, client, SYN | ACK);
        twins.step("its answer", At::Near, answer.clone(), &Redirect(between(&answer, at, client)))?;

        let at = twins.node_port(30_002, Protocol::Udp, &[(c, 2)])?;
        let (query, snat) = (Wire::udp(client, at), twins.own(MASQUERADE));
        twins.step("to a pod of another node", At::In, query.clone(), &Redirect(between(&query, snat, c)))?;
        let answer = Wire::udp(c, snat);
        twins.step("its answer", At::In, answer.clone(), &Redirect(between(&answer, at, client)))?;
        let second = Wire::udp(twins.outside(5001), at);
        twins.step("no port is left", At::In, second, &Drop(Reason::MasqueradePortsExhausted))?;
        twins.step("the first goes on", At::In, query.clone(), &Redirect(between(&query, snat, c)))?;
        let stray = Wire::udp(twins.remote(9), snat);
        twins.step("to a masquerade port, of no flow", At::In, stray.clone(), &Pass(stray))?;

        let at = twins.node_port(30_003, Protocol::Tcp, &[(twins.own(8443), 1)])?;
        let syn = Wire::tcp(client, at, SYN);
        twins.step(
            "to the node itself",
            At::In,
            syn.clone(),
            &Pass(between(&syn, client, twins.own(8443))),
        )?;
        let answer = Wire::tcp(twins.own(8443), client, SYN | ACK);
        twins.step("its answer", At::Out, answer.clone(), &Pass(between(&answer, at, client)))?;

        let stray = Wire::tcp(twins.outside(5009), at, ACK);
        let reset = Wire {
            macs: [SENDER_MAC, UPLINK_MAC],
            body: Body::Tcp { flags: RST, sequence: 2000, acknowledged: 0, payload: vec![] },
            ..between(&stray, at, twins.outside(5009))
        };
        twins.step("a segment of no flow", At::In, stray, &Redirect(reset))?;
        let reset = Wire::tcp(twins.outside(5009), at, RST);
        twins.step("a reset of no flow", At::In, reset, &Drop(Reason::UnknownFlow))?;
        let bare =
            Wire { body: Body::Udp { payload: b"bare".to_vec(), checksum: false }, ..Wire::udp(client, at) };
        twins.step("another protocol at the port", At::In, bare.clone(), &Pass(bare))
    });
}

#[test]
fn services_without_endpoints() {
    each_family(|mut twins| {
        let (a, client) = (twins.near(5000), twins.outside(5000));
        let tcp = twins.cluster_ip(1, Protocol::Tcp, &[])?;
        let udp = twins.cluster_ip(1, Protocol::Udp, &[])?;
        let reset = |vip, to, flags, sequence, acknowledged| Wire {
            body: Body::Tcp { flags, sequence, acknowledged, payload: vec![] },
            ..Wire::tcp(vip, to, 0)
        };
        // Sequence 1000, one for SYN, four bytes of data.
        let expect = Redirect(reset(tcp, a, RST | ACK, 0, 1005));
        twins.step("a SYN from a pod", At::Near, Wire::tcp(a, tcp, SYN), &expect)?;
        twins.step(
            "a datagram from a pod",
            At::Near,
            Wire::udp(a, udp),
            &Redirect(unreachable(&Wire::udp(a, udp), 1)),
        )?;

        let tcp = twins.node_port(30_001, Protocol::Tcp, &[])?;
        let udp = twins.node_port(30_001, Protocol::Udp, &[])?;
        let expect = Redirect(reset(tcp, client, RST | ACK, 0, 1005));
        twins.step("a SYN from outside", At::In, Wire::tcp(client, tcp, SYN), &expect)?;
        let query = Wire::udp(client, udp);
        twins.step("a datagram from outside", At::In, query.clone(), &Redirect(unreachable(&query, 0)))?;

        let vip = twins.family.vip(1, 80);
        let own = twins.own(5000);
        let expect = Redirect(reset(vip, own, RST | ACK, 0, 1005));
        twins.step("a SYN of the node", At::Out, Wire::tcp(own, vip, SYN), &expect)?;
        let passing = Wire::tcp(twins.remote(5000), vip, SYN);
        twins.step("a SYN that is forwarded", At::Out, passing.clone(), &Pass(passing))?;

        let at = twins.own(30_002);
        let mut silent = Service::new(at, Protocol::Tcp, FrontendKind::NodePort, &[]);
        silent.drop_when_empty = true;
        twins.serve(&silent)?;
        twins.step("a Local policy", At::In, Wire::tcp(client, at, SYN), &Drop(Reason::NoLocalEndpoint))
    });
}

/// "Port unreachable" for a datagram, as its sender gets it; `pod`: the number of the pod that sent it.
fn unreachable(packet: &Wire, pod: u8) -> Wire {
    let mac = if pod == 0 { UPLINK_MAC } else { host_mac(pod) };
    let v4 = packet.src.is_ipv4();
    let (kind, code, header) = if v4 { (3, 3, 20) } else { (1, 4, 40) };
    let quoted = &packet.clone().to_mac(mac).bytes()[14..14 + header + 8];
    Wire {
        macs: [SENDER_MAC, mac],
        src: SocketAddr::new(packet.dst.ip(), 0),
        dst: SocketAddr::new(packet.src.ip(), 0),
        body: Body::Icmp { kind, code, rest: [&[0; 4], quoted].concat() },
    }
}

#[test]
fn flows_that_end_and_begin_anew() {
    each_family(|mut twins| {
        let (a, b, c) = (twins.near(5000), twins.other(8080), twins.remote(8080));
        let id = twins.services;
        let vip = twins.cluster_ip(1, Protocol::Tcp, &[(b, 1)])?;
        let syn = Wire::tcp(a, vip, SYN);
        let to_b = || Redirect(between(&syn, a, b));
        twins.step("the first", At::Near, syn.clone(), &to_b())?;
        twins.step("sent again", At::Near, syn.clone(), &to_b())?;
        let fin = Wire::tcp(a, vip, FIN | ACK);
        twins.step("the client's end", At::Near, fin.clone(), &Redirect(between(&fin, a, b)))?;
        let fin = Wire::tcp(b, a, FIN | ACK);
        twins.step("the backend's end", At::Other, fin.clone(), &Redirect(between(&fin, vip, a)))?;
        twins.step("anew from the same port", At::Near, syn.clone(), &to_b())?;

        // Its backend goes, another comes: what is open stays, what opens moves.
        twins.apply(&Service::new(vip, Protocol::Tcp, FrontendKind::ClusterIp, &[(c, 2)]).ops(1, id + 1))?;
        twins.apply(&[LbOp::DeleteBackend { id: xebec_datapath::lb::BackendId(id * 4) }])?;
        let data = Wire::tcp(a, vip, ACK);
        twins.step("an open one", At::Near, data.clone(), &Redirect(between(&data, a, b)))?;
        twins.step("one that opens", At::Near, syn.clone(), &Pass(between(&syn, a, c)))?;
        let late = Wire::tcp(b, a, ACK);
        twins.step(
            "a late answer of the old one",
            At::Other,
            late.clone(),
            &Redirect(into_pod(late, &twins.near)),
        )?;

        // The same backend directly, from the port of the flow: it must not get that flow's answers.
        let direct = Wire::tcp(a, c, SYN);
        let snat = twins.own(MASQUERADE);
        twins.step("beside a flow", At::Near, direct.clone(), &Redirect(between(&direct, snat, c)))?;
        let answer = Wire::tcp(c, snat, SYN | ACK);
        twins.step(
            "its own answer",
            At::In,
            answer.clone(),
            &Redirect(into_pod(between(&answer, c, a), &twins.near)),
        )?;
        let answer = Wire::tcp(c, a, SYN | ACK);
        twins.step("the flow's answer", At::In, answer.clone(), &Redirect(between(&answer, vip, a)))
    });
}
