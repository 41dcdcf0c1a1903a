//! One node twice: in memory and in the kernel.
//!
//! In: services and pods, packets with their hook, what a person expects. Out: an error where the plain Rust logic, the
//! program in the kernel and the person do not agree.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use xebec_datapath::lb::{FrontendKind, LbOp, Protocol, Scope};
use xebec_datapath::{Action, Hook};
use xebec_ebpf::fake::wire::Wire;
use xebec_ebpf::fake::{Bytes, Tables};
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
pub(super) enum At {
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
pub(super) enum Expect {
    Pass(Wire),
    /// It goes where the program says, as this.
    Redirect(Wire),
    Drop(Reason),
}
use Expect::{Drop, Pass, Redirect};

/// One node twice: in memory and in the kernel.
pub(super) struct Twins {
    pub(super) family: Family,
    pub(super) fabric: Fabric,
    pub(super) near: Pod,
    pub(super) other: Pod,
    pub(super) interfaces: [u32; 3],
    pub(super) tables: Tables,
    pub(super) services: u32,
}

pub(super) const UPLINK_MAC: [u8; 6] = [2, 0, 0, 2, 0, 1];
pub(super) const SENDER_MAC: [u8; 6] = [2, 0, 0, 9, 9, 9];
/// The only port flows are masqueraded with, so that both twins choose the same.
pub(super) const MASQUERADE: u16 = 61_000;

// === The twins ===

impl Twins {
    pub(super) fn create(node: &Node, family: Family) -> Result<Self> {
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

    pub(super) fn node(&self) -> &FabricNode {
        &self.fabric.nodes[0]
    }

    /// Serves it in both worlds; out: the number of the service.
    pub(super) fn serve(&mut self, service: &Service) -> Result<u32> {
        let id = self.services;
        self.services += 1;
        self.apply(&service.ops(1, id))?;
        Ok(id)
    }

    pub(super) fn apply(&self, ops: &[LbOp]) -> Result<()> {
        self.node().datapath().lb().apply(ops)?;
        ops.iter().try_for_each(|op| apply(&self.tables, op))
    }

    /// Runs a packet through both.
    pub(super) fn run(&self, at: At, bytes: &[u8]) -> Result<(Action, Vec<u8>, Option<Reason>)> {
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

    pub(super) fn counted(&self) -> Result<BTreeMap<&'static str, u64>> {
        Ok(self.node().datapath().drops()?.into_iter().map(|drop| (drop.reason, drop.packets)).collect())
    }

    /// Runs a packet and compares with what is expected.
    pub(super) fn step(&self, name: &str, at: At, packet: Wire, expect: &Expect) -> Result<()> {
        let mac = match at {
            At::Near | At::ToNear => host_mac(self.near.number),
            At::Other => host_mac(self.other.number),
            At::In | At::Out => UPLINK_MAC,
        };
        self.step_bytes(name, at, &packet.to_mac(mac).bytes(), expect)
    }

    pub(super) fn step_bytes(&self, name: &str, at: At, bytes: &[u8], expect: &Expect) -> Result<()> {
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

    pub(super) fn near(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.near.address(self.family), port)
    }

    pub(super) fn other(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.other.address(self.family), port)
    }

    pub(super) fn own(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.node().address(self.family), port)
    }

    /// A pod of another node.
    pub(super) fn remote(&self, port: u16) -> SocketAddr {
        let text = if self.family == Family::V4 { "10.99.2.7" } else { "fd99:2::7" };
        SocketAddr::new(text.parse().expect("an address"), port)
    }

    /// Somebody outside.
    pub(super) fn outside(&self, port: u16) -> SocketAddr {
        let text = if self.family == Family::V4 { "172.31.7.254" } else { "fd31:7::fe" };
        SocketAddr::new(text.parse().expect("an address"), port)
    }

    /// A cluster address for one backend.
    pub(super) fn cluster_ip(
        &mut self,
        last: u8,
        protocol: Protocol,
        backends: &[(SocketAddr, u8)],
    ) -> Result<SocketAddr> {
        let vip = self.family.vip(last, 80);
        self.serve(&Service::new(vip, protocol, FrontendKind::ClusterIp, backends))?;
        Ok(vip)
    }

    pub(super) fn node_port(
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
pub(super) fn same(read: Option<&Wire>, wire: &Wire) -> bool {
    read.is_some_and(|read| {
        let macs = wire.macs == [[0; 6]; 2] || read.macs == wire.macs;
        macs && (read.src, read.dst, &read.body) == (wire.src, wire.dst, &wire.body)
    })
}

pub(super) fn decide(packet: &mut Bytes, tables: &Tables, hook: Hook) -> Verdict {
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
pub(super) fn apply(tables: &Tables, op: &LbOp) -> Result<()> {
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

pub(super) fn number(protocol: Protocol) -> u8 {
    if protocol == Protocol::Tcp { proto::TCP } else { proto::UDP }
}

pub(super) fn v4(address: std::net::IpAddr) -> Result<V4> {
    match address {
        std::net::IpAddr::V4(address) => Ok(V4::from_octets(address.octets())),
        std::net::IpAddr::V6(address) => anyhow::bail!("{address} is no IPv4 address"),
    }
}

pub(super) fn v6(address: std::net::IpAddr) -> Result<V6> {
    match address {
        std::net::IpAddr::V6(address) => Ok(V6::from_octets(address.octets())),
        std::net::IpAddr::V4(address) => anyhow::bail!("{address} is no IPv6 address"),
    }
}

pub(super) fn pod_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 1, 1, number]
}

pub(super) fn host_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, number]
}

/// The same packet between other ends.
pub(super) fn between(packet: &Wire, src: SocketAddr, dst: SocketAddr) -> Wire {
    Wire { src, dst, ..packet.clone() }
}

/// The same with the MAC addresses of a pod's wire.
pub(super) fn into_pod(mut packet: Wire, pod: &Pod) -> Wire {
    packet.macs = [pod_mac(pod.number), host_mac(pod.number)];
    packet
}

pub(super) fn each_family(test: fn(Twins) -> Result<()>) {
    on_node(async move |node| test(Twins::create(&node, Family::V4)?));
    on_node(async move |node| test(Twins::create(&node, Family::V6)?));
}
