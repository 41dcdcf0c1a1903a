//! Sockets, their memory and their clients' bindings.

use xebec_ebpf_common::{
    BackendValue, Be16, ConfigValue, DATAGRAM_PEERS, NetnsValue, Plain, Reason, ServiceKey, ServiceValue, V4,
    V6, proto, scope, service_kind, ticks,
};

use super::*;
use crate::fake::{FakeSocket, Tables};

const POD: u64 = 7;
const HOST: u64 = 1;

fn vip(last: u8) -> Endpoint<V4> {
    Endpoint { addr: V4::from_octets([10, 96, 0, last]), port: Be16::new(53) }
}

/// Services 10.96.0.1…20:53 over TCP and UDP, each with the backends 10.99.0.1…4:5353.
fn tables(affinity: u32) -> Tables {
    let tables = Tables::default();
    for id in 1..=4 {
        let addr = V4::from_octets([10, 99, 0, id as u8]);
        let backend = BackendValue { addr, port: Be16::new(5353), proto: proto::UDP, flags: 0 };
        tables.v4.backends.borrow_mut().insert(id, backend);
    }
    *tables.slots.borrow_mut() = [1, 2, 3, 4].into();
    for (id, last) in (1..).zip(1..=20) {
        for proto in [proto::TCP, proto::UDP] {
            let Endpoint { addr, port } = vip(last);
            put(
                &tables,
                ServiceKey { addr, port, proto, scope: scope::INTERNAL },
                id,
                affinity,
                service_kind::CLUSTER_IP,
            );
        }
    }
    tables.netns.borrow_mut().insert(POD, NetnsValue { v4: V4::from_octets([10, 99, 1, 1]), v6: V6([0; 4]) });
    let v4 = V4::from_octets([192, 0, 2, 1]);
    tables.config.set(ConfigValue { netns_cookie: HOST, v4, ..ConfigValue::zeroed() });
    tables
}

fn put(tables: &Tables, key: ServiceKey<V4>, id: u32, affinity: u32, kind: u8) {
    let value = ServiceValue { id, base: 0, count: 4, generation: 1, affinity, flags: 0, kind, pad: [0; 2] };
    tables.v4.services.borrow_mut().insert(key, value);
}

fn socket(netns_cookie: u64) -> FakeSocket {
    FakeSocket { netns_cookie, ..FakeSocket::default() }
}

#[test]
fn connections_take_turns_without_affinity() {
    let tables = tables(0);
    let mut seen: Vec<_> = (0..4)
        .filter_map(|_| connect(&tables, &socket(POD), vip(1), proto::TCP))
        .map(|to| to.addr.octets()[3])
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[test]
fn affinity_binds_a_client_until_its_time_is_over_or_its_backend_gone() {
    let tables = tables(600);
    let dial = |cookie| connect(&tables, &socket(cookie), vip(1), proto::TCP).map(|to| to.addr);
    let first = dial(POD);
    assert_eq!([dial(POD), dial(POD), dial(POD)], [first; 3]);
    assert_ne!(dial(HOST), first, "another client has a choice of its own");

    tables.now.set(tables.now.get() + ticks::from_secs(600) - 1);
    assert_eq!(dial(POD), first, "each connection renews it");
    tables.now.set(tables.now.get() + ticks::from_secs(600));
    let second = dial(POD);
    assert_ne!(second, first);

    let last = second.map_or(0, |addr| u32::from(addr.octets()[3]));
    tables.v4.backends.borrow_mut().remove(&last);
    assert!(dial(POD).is_some_and(|third| Some(third) != second));
}

#[test]
fn a_full_affinity_table_costs_the_binding_not_the_connection() {
    let tables = tables(600);
    tables.capacity.set(0);
    assert!(connect(&tables, &socket(POD), vip(1), proto::TCP).is_some());
    assert_eq!(tables.counted(Reason::AffinityTableFull), 1);
}

#[test]
fn a_datagram_socket_keeps_a_services_backend_while_it_lives() {
    let tables = tables(0);
    let socket = socket(POD);
    let first = sendmsg(&tables, &socket, vip(1)).expect("a backend");
    assert_eq!(sendmsg(&tables, &socket, vip(1)), Some(first));
    tables.v4.backends.borrow_mut().remove(&u32::from(first.addr.octets()[3]));
    let second = sendmsg(&tables, &socket, vip(1)).expect("another backend");
    assert_ne!(second, first);
    assert_eq!(recvmsg(&socket, mapped(second)), Some(mapped(vip(1))));
    assert_eq!(recvmsg(&socket, mapped(first)), None, "the old backend's place was taken");
}

#[test]
fn a_datagram_socket_remembers_its_last_services() {
    let tables = tables(0);
    let socket = socket(POD);
    for last in 1..=20 {
        let to = sendmsg(&tables, &socket, vip(last)).expect("a backend");
        let shown = recvmsg(&socket, mapped(to)).expect("the sender is known");
        // Two services may share the backend; the port and the range are the services' in any case.
        assert_eq!(shown.port, vip(1).port);
    }
    let known = socket.datagrams.borrow().expect("it has a memory");
    assert!(known.peers.iter().all(|peer| peer.service_id != 0), "all {DATAGRAM_PEERS} places are used");
}

#[test]
fn without_memory_datagrams_go_untranslated_and_connections_go_on() {
    let tables = tables(0);
    let full = FakeSocket { full: true, ..socket(POD) };
    assert_eq!(sendmsg(&tables, &full, vip(1)), None);
    assert_eq!(tables.counted(Reason::SocketStorageFull), 1);
    assert!(connect(&tables, &full, vip(1), proto::TCP).is_some());
    assert_eq!(getpeername(&full, mapped(vip(1))), None);
}

#[test]
fn localhost_means_the_node_for_node_ports_dialled_on_the_node() {
    let tables = tables(0);
    let own = V4::from_octets([192, 0, 2, 1]);
    let port = Be16::new(30_080);
    let key = ServiceKey { addr: own, port, proto: proto::TCP, scope: scope::INTERNAL };
    let local = Endpoint { addr: V4::from_octets([127, 0, 0, 1]), port };
    put(&tables, key, 50, 0, service_kind::NODE_PORT);
    assert!(connect(&tables, &socket(HOST), local, proto::TCP).is_some());
    assert_eq!(connect(&tables, &socket(POD), local, proto::TCP), None, "a pod's localhost is its own");
    put(&tables, key, 50, 0, service_kind::EXTERNAL_IP);
    assert_eq!(connect(&tables, &socket(HOST), local, proto::TCP), None, "only NodePorts answer there");
}

#[test]
fn what_is_no_service_or_has_no_endpoint_is_left_alone() {
    let tables = tables(0);
    assert_eq!(connect(&tables, &socket(POD), vip(99), proto::TCP), None);
    assert_eq!(connect(&tables, &socket(POD), vip(1), proto::SCTP), None);
    for service in tables.v4.services.borrow_mut().values_mut() {
        service.count = 0;
    }
    assert_eq!(connect(&tables, &socket(POD), vip(1), proto::TCP), None);
    assert_eq!(sendmsg(&tables, &socket(POD), vip(1)), None);
}

#[test]
fn a_peer_is_shown_as_dialled_only_while_it_is_the_peer() {
    let tables = tables(0);
    let socket = socket(POD);
    let to = connect(&tables, &socket, vip(1), proto::TCP).expect("a backend");
    assert_eq!(getpeername(&socket, mapped(to)), Some(mapped(vip(1))));
    let elsewhere = Endpoint { addr: V4::from_octets([10, 99, 9, 9]), port: to.port };
    assert_eq!(getpeername(&socket, mapped(elsewhere)), None, "it was connected anew, to no service");
}
