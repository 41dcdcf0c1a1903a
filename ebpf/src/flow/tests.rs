//! Flows where the kernel's tables are full, change underfoot or lose an entry.

use std::net::SocketAddr;

use xebec_ebpf_common::{
    BackendValue, Be16, ConfigValue, FlowKey, Plain, PodValue, Reason, ServiceKey, ServiceValue, V4,
    direction, proto, scope, ticks,
};

use crate::fake::wire::Wire;
use crate::fake::{Bytes, Tables};
use crate::packet::Packet;
use crate::packet::tcp::{ACK, SYN};
use crate::pod;
use crate::verdict::{Action, Verdict};

const NEAR: u32 = 11;

/// A pod 10.99.1.1 and a service 10.96.0.1:80 with one backend 10.99.2.1:8080 of another node.
fn tables() -> Tables {
    let tables = Tables::default();
    let value = PodValue { ifindex: NEAR, index: 1, mac: [2; 6], host_mac: [4; 6] };
    tables.v4.pods.borrow_mut().insert(V4::from_octets([10, 99, 1, 1]), value);
    let backend = BackendValue {
        addr: V4::from_octets([10, 99, 2, 1]),
        port: Be16::new(8080),
        proto: proto::TCP,
        flags: 0,
    };
    tables.v4.backends.borrow_mut().insert(5, backend);
    tables.slots.borrow_mut().push(5);
    let key = ServiceKey {
        addr: V4::from_octets([10, 96, 0, 1]),
        port: Be16::new(80),
        proto: proto::TCP,
        scope: scope::INTERNAL,
    };
    let service =
        ServiceValue { id: 1, base: 0, count: 1, generation: 1, affinity: 0, flags: 0, kind: 0, pad: [0; 2] };
    tables.v4.services.borrow_mut().insert(key, service);
    let node = ConfigValue {
        v4: V4::from_octets([172, 31, 7, 1]),
        masquerade_first: 61_000,
        masquerade_last: 61_003,
        ..ConfigValue::zeroed()
    };
    tables.config.set(node);
    tables
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

fn bytes(packet: &Wire) -> Bytes {
    Bytes { data: packet.bytes(), ifindex: NEAR, partial: false, route: Some(3) }
}

/// The near pod sends.
fn send(tables: &Tables, src: &str, flags: u8) -> (Verdict, Option<Wire>) {
    let mut packet = bytes(&Wire::tcp(at(src), at("10.96.0.1:80"), flags));
    let verdict = pod::ingress::<V4, _, _>(&mut packet, tables);
    (verdict, Wire::read(&packet.data))
}

fn goes_to_the_backend(outcome: &(Verdict, Option<Wire>)) -> bool {
    outcome.0.action == Action::Pass
        && outcome.1.as_ref().is_some_and(|wire| wire.dst == at("10.99.2.1:8080"))
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_old_ones() {
    let tables = tables();
    tables.capacity.set(2);
    assert!(goes_to_the_backend(&send(&tables, "10.99.1.1:1000", SYN)));
    assert_eq!(send(&tables, "10.99.1.1:1001", SYN).0, Verdict::drop(Reason::FlowTableFull));
    assert!(goes_to_the_backend(&send(&tables, "10.99.1.1:1000", ACK)));
    assert_eq!(tables.v4.flows.borrow().len(), 2, "a refused flow leaves nothing behind");
}

#[test]
fn half_a_flow_that_does_not_fit_is_taken_back() {
    let tables = tables();
    tables.capacity.set(3);
    send(&tables, "10.99.1.1:1000", SYN);
    assert_eq!(send(&tables, "10.99.1.1:1001", SYN).0, Verdict::drop(Reason::FlowTableFull));
    assert_eq!(tables.v4.flows.borrow().len(), 2);
}

#[test]
fn an_entry_that_became_another_flows_is_not_followed() {
    let tables = tables();
    send(&tables, "10.99.1.1:1000", SYN);
    send(&tables, "10.99.1.1:1001", SYN);
    let mut flows = tables.v4.flows.borrow_mut();
    let other = *flows.values().find(|flow| flow.client_port == Be16::new(1001)).expect("the second flow");
    for flow in flows.values_mut().filter(|flow| flow.client_port == Be16::new(1000)) {
        *flow = other;
    }
    drop(flows);
    let (verdict, packet) = send(&tables, "10.99.1.1:1000", ACK);
    assert_eq!(verdict, Verdict::PASS);
    assert_eq!(packet.map(|wire| wire.dst), Some(at("10.96.0.1:80")), "it was translated as another's");
}

#[test]
fn the_direction_is_read_off_the_key_not_the_entry() {
    let tables = tables();
    send(&tables, "10.99.1.1:1000", SYN);
    for flow in tables.v4.flows.borrow_mut().values_mut() {
        flow.direction = direction::REPLY;
    }
    assert!(goes_to_the_backend(&send(&tables, "10.99.1.1:1000", ACK)));
}

#[test]
fn an_entry_that_was_lost_is_brought_back_by_the_other_one() {
    let tables = tables();
    send(&tables, "10.99.1.1:1000", SYN);
    let is_reply = |key: &FlowKey<V4>| key.sport == Be16::new(8080);
    let lost = *tables.v4.flows.borrow().keys().find(|key| is_reply(key)).expect("a reply entry");
    tables.v4.flows.borrow_mut().remove(&lost);
    send(&tables, "10.99.1.1:1000", ACK);
    assert_eq!(tables.v4.flows.borrow().len(), 1, "a young flow is not written to");
    tables.now.set(tables.now.get() + ticks::REFRESH);
    send(&tables, "10.99.1.1:1000", ACK);
    let flows = tables.v4.flows.borrow();
    let back = flows.get(&lost).expect("the reply entry is back");
    assert_eq!((back.direction, back.last_seen), (direction::REPLY, tables.now.get()));
}

#[test]
fn most_packets_write_nothing() {
    let tables = tables();
    send(&tables, "10.99.1.1:1000", SYN);
    let before = tables.v4.flows.borrow().clone();
    tables.now.set(tables.now.get() + ticks::REFRESH - 1);
    send(&tables, "10.99.1.1:1000", ACK);
    assert_eq!(*tables.v4.flows.borrow(), before);
}

#[test]
fn a_checksum_left_to_the_interface_stays_the_sum_of_the_pseudo_header() {
    let tables = tables();
    let packet = Wire::tcp(at("10.99.1.1:1000"), at("10.96.0.1:80"), SYN);
    let mut partial = bytes(&packet);
    partial.partial = true;
    let field = 14 + 20 + 16;
    assert!(partial.write(field, pseudo([10, 99, 1, 1], [10, 96, 0, 1])));
    pod::ingress::<V4, _, _>(&mut partial, &tables);
    assert_eq!(partial.data[50..52], pseudo([10, 99, 1, 1], [10, 99, 2, 1]));
}

/// Sum of the pseudo header of a segment of 24 bytes, not complemented.
fn pseudo(src: [u8; 4], dst: [u8; 4]) -> [u8; 2] {
    let mut sum = u32::from(proto::TCP) + 24;
    for pair in [src, dst].concat().chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    ((sum & 0xffff) + (sum >> 16)).try_into().map(u16::to_be_bytes).expect("the sum fits")
}
