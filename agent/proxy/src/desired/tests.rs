//! Tables of one service, by policy and family.

use super::*;
use crate::endpoints::Hints;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service() -> Service {
    Service {
        created: 0,
        cluster_ips: vec![ip("10.96.0.9"), ip("fd00::9")],
        ports: vec![Port {
            name: PortName { name: "http".into(), protocol: Protocol::Tcp },
            port: 80,
            node_port: Some(30_080),
        }],
        external_ips: vec![ip("192.0.2.1")],
        load_balancer_ips: vec![],
        affinity: None,
        internal_local: false,
        external_local: false,
        health_check_port: None,
    }
}

fn endpoint(address: &str, local: bool, ready: bool) -> Endpoint {
    let address = ip(address);
    Endpoint { address, local, ready, serving: ready, terminating: false, hints: Hints::default() }
}

fn slice(endpoints: Vec<Endpoint>) -> Slice {
    let name = PortName { name: "http".into(), protocol: Protocol::Tcp };
    Slice { ports: vec![(name, 8080)], endpoints }
}

fn node() -> NodeView {
    NodeView { addresses: vec![ip("172.30.0.1"), ip("fd01::1")], zone: None }
}

fn compute(service: &Service, slices: &[Slice], external_ips: bool) -> Desired {
    let node = node();
    desired(
        Context { node_name: "here", node: &node, external_ips },
        service,
        &slices.iter().collect::<Vec<_>>(),
    )
}

/// `(address:port scope)` → backends, and the flags.
fn table(desired: &Desired) -> BTreeMap<String, (Vec<String>, bool, bool)> {
    let mut table = BTreeMap::new();
    for pool in desired.ports.iter().flat_map(|port| &port.pools) {
        for f in &pool.frontends {
            let name = format!("{}:{} {:?}", f.frontend.address, f.frontend.port, f.frontend.scope);
            let backends = pool.backends.iter().map(|b| format!("{}:{}", b.address, b.port)).collect();
            let clash = table.insert(name.clone(), (backends, f.masquerade, f.drop_when_empty));
            assert!(clash.is_none(), "{name} twice");
        }
    }
    table
}

fn row(backends: &[&str], masquerade: bool, drop: bool) -> (Vec<String>, bool, bool) {
    (backends.iter().map(|b| (*b).to_owned()).collect(), masquerade, drop)
}

fn no_local(internal: usize, external: usize) -> NoLocalEndpoints {
    NoLocalEndpoints { internal, external }
}

#[test]
fn dual_stack_service_answers_in_each_family_with_backends_of_that_family() {
    let slices =
        [slice(vec![endpoint("10.0.0.1", true, true)]), slice(vec![endpoint("fd02::1", false, true)])];
    let table = table(&compute(&service(), &slices, false));
    let (v4, v6) = (&["10.0.0.1:8080"], &["fd02::1:8080"]);
    let expected = BTreeMap::from([
        ("10.96.0.9:80 Internal".to_owned(), row(v4, false, false)),
        ("172.30.0.1:30080 Internal".to_owned(), row(v4, false, false)),
        ("172.30.0.1:30080 External".to_owned(), row(v4, true, false)),
        ("fd00::9:80 Internal".to_owned(), row(v6, false, false)),
        ("fd01::1:30080 Internal".to_owned(), row(v6, false, false)),
        ("fd01::1:30080 External".to_owned(), row(v6, true, false)),
    ]);
    assert_eq!(table, expected);
}

#[test]
fn external_local_policy_binds_only_traffic_from_outside() {
    let policy = Service { external_local: true, cluster_ips: vec![ip("10.96.0.9")], ..service() };
    let slices = [slice(vec![endpoint("10.0.0.1", true, true), endpoint("10.0.0.2", false, true)])];
    let both = &["10.0.0.1:8080", "10.0.0.2:8080"];
    let found = table(&compute(&policy, &slices, false));
    assert_eq!(found["172.30.0.1:30080 Internal"], row(both, false, false));
    assert_eq!(found["172.30.0.1:30080 External"], row(&["10.0.0.1:8080"], false, false));

    let elsewhere = [slice(vec![endpoint("10.0.0.2", false, true)])];
    let desired = compute(&policy, &elsewhere, false);
    assert_eq!(table(&desired)["172.30.0.1:30080 External"], row(&[], false, true), "drops");
    assert_eq!(desired.no_local_endpoints, [no_local(0, 1), no_local(0, 0)]);
    let nowhere = table(&compute(&policy, &[], false));
    assert_eq!(nowhere["172.30.0.1:30080 External"], row(&[], false, false), "rejects");
}

#[test]
fn internal_local_policy_binds_the_cluster_ip_alone() {
    let policy = Service { internal_local: true, cluster_ips: vec![ip("10.96.0.9")], ..service() };
    let slices = [slice(vec![endpoint("10.0.0.2", false, true)])];
    let desired = compute(&policy, &slices, false);
    let found = table(&desired);
    assert_eq!(found["10.96.0.9:80 Internal"], row(&[], false, true));
    assert_eq!(found["172.30.0.1:30080 External"], row(&["10.0.0.2:8080"], true, false));
    assert_eq!(desired.no_local_endpoints, [no_local(1, 0), no_local(0, 0)]);
}

#[test]
fn external_ips_are_served_only_where_allowed() {
    assert!(!table(&compute(&service(), &[], false)).contains_key("192.0.2.1:80 External"));
    let found = table(&compute(&service(), &[], true));
    assert_eq!(found["192.0.2.1:80 External"], row(&[], true, false));
    assert_eq!(found["192.0.2.1:80 Internal"], row(&[], false, false));
}

#[test]
fn endpoint_in_two_slices_counts_once_and_another_port_not_at_all() {
    let other = PortName { name: "metrics".into(), protocol: Protocol::Tcp };
    let foreign = Slice { ports: vec![(other, 9090)], endpoints: vec![endpoint("10.0.0.5", true, true)] };
    let slices = [
        slice(vec![endpoint("10.0.0.1", false, false)]),
        slice(vec![endpoint("10.0.0.1", true, true)]),
        foreign,
    ];
    let desired = compute(&service(), &slices, false);
    assert_eq!(table(&desired)["10.96.0.9:80 Internal"], row(&["10.0.0.1:8080"], false, false));
    assert_eq!(desired.ports[0].alive.len(), 1);
    assert!(desired.ports[0].alive[0].local);
}

#[test]
fn flows_go_on_while_an_endpoint_ends_but_datagrams_only_while_it_serves() {
    let ended = Endpoint { terminating: true, ..endpoint("10.0.0.1", false, false) };
    let draining =
        Endpoint { serving: true, ..Endpoint { terminating: true, ..endpoint("10.0.0.2", false, false) } };
    let slices = [slice(vec![ended.clone(), draining.clone(), endpoint("10.0.0.3", false, true)])];
    let desired = compute(&service(), &slices, false);
    assert_eq!(table(&desired)["10.96.0.9:80 Internal"], row(&["10.0.0.3:8080"], false, false));
    assert_eq!(desired.ports[0].alive.len(), 3);

    let udp = PortName { name: "http".into(), protocol: Protocol::Udp };
    let port = Port { name: udp.clone(), port: 53, node_port: None };
    let slices = [Slice { ports: vec![(udp, 53)], endpoints: vec![ended, draining] }];
    let desired = compute(&Service { ports: vec![port], ..service() }, &slices, false);
    let alive: Vec<_> = desired.ports[0].alive.iter().map(|b| b.address).collect();
    assert_eq!(alive, [ip("10.0.0.2")]);
}
