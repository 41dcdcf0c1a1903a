//! Packets by the table: each runs through the plain Rust logic and through the program in the kernel, with one result.
//!
//! In: the same services and pods in memory and in maps; packets with their hook. Out: equal verdicts, bytes, counters and
//! numbers of flows, and what a person expects of them.

#[path = "datapath_packets/twins.rs"]
mod twins;

use std::net::SocketAddr;

use xebec_datapath::lb::{FrontendKind, LbOp, Protocol};
use xebec_ebpf::fake::wire::{Body, Wire};
use xebec_ebpf::packet::tcp::{ACK, FIN, RST, SYN};
use xebec_ebpf_common::Reason;
use xebec_tests::fabric::{Family, Service};

use twins::Expect::{Drop, Pass, Redirect};
use twins::{At, MASQUERADE, SENDER_MAC, UPLINK_MAC, between, each_family, host_mac, into_pod};

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
