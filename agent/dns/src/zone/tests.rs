//! Names of the specification's examples.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::*;

fn zone() -> Zone {
    let mut zone = Zone::new(vec!["cluster".into(), "local".into()]);
    let service = |value: Value| serde_json::from_value::<Service>(value).unwrap();
    zone.put_service(&service(json!({
        "metadata": { "name": "web", "namespace": "a" },
        "spec": { "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
                  "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }] },
    })));
    zone.put_service(&service(json!({
        "metadata": { "name": "db", "namespace": "a" },
        "spec": { "clusterIP": "None", "clusterIPs": ["None"], "ports": [{ "name": "sql", "port": 5432 }] },
    })));
    zone.put_service(&service(json!({
        "metadata": { "name": "ext", "namespace": "a" },
        "spec": { "type": "ExternalName", "externalName": "Example.org." },
    })));
    zone.put_service(&service(json!({
        "metadata": { "name": "empty", "namespace": "a" }, "spec": { "clusterIP": "None" },
    })));
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": { "name": "db-1", "namespace": "a", "labels": { "kubernetes.io/service-name": "db" } },
        "addressType": "IPv4",
        "endpoints": [
            { "addresses": ["10.1.0.1"], "hostname": "db-0", "conditions": { "ready": true } },
            { "addresses": ["10.1.0.2"] },
            { "addresses": ["10.1.0.3"], "conditions": { "ready": false } },
        ],
        "ports": [{ "name": "sql", "port": 5432, "protocol": "TCP" }],
    }))
    .unwrap();
    zone.put_slice(&slice);
    zone
}

fn ask(zone: &Zone, name: &str, wanted: Wanted) -> Answer {
    let labels: Vec<String> = name.split('.').filter(|l| !l.is_empty()).map(str::to_owned).collect();
    zone.lookup(&labels, wanted)
}

fn addresses_of(answers: &[&str]) -> Answer {
    Answer::Records(answers.iter().map(|a| Data::Address(a.parse().unwrap())).collect())
}

#[test]
fn a_service_resolves_to_its_cluster_addresses_by_family() {
    let zone = zone();
    assert_eq!(ask(&zone, "web.a.svc", Wanted::V4), addresses_of(&["10.96.0.1"]));
    assert_eq!(ask(&zone, "web.a.svc", Wanted::V6), addresses_of(&["fd00::1"]));
    assert_eq!(ask(&zone, "web.a.svc", Wanted::Txt), Answer::NoData);
    assert_eq!(ask(&zone, "nope.a.svc", Wanted::V4), Answer::NoName);
    assert_eq!(ask(&zone, "web.b.svc", Wanted::V4), Answer::NoName);
}

#[test]
fn a_headless_service_resolves_to_its_ready_endpoints() {
    let zone = zone();
    assert_eq!(ask(&zone, "db.a.svc", Wanted::V4), addresses_of(&["10.1.0.1", "10.1.0.2"]));
    assert_eq!(ask(&zone, "db.a.svc", Wanted::V6), Answer::NoData);
    assert_eq!(ask(&zone, "db-0.db.a.svc", Wanted::V4), addresses_of(&["10.1.0.1"]));
    assert_eq!(ask(&zone, "10-1-0-2.db.a.svc", Wanted::V4), addresses_of(&["10.1.0.2"]));
    assert_eq!(ask(&zone, "db-0.web.a.svc", Wanted::V4), Answer::NoName);
    assert_eq!(ask(&zone, "nobody.db.a.svc", Wanted::V4), Answer::NoName);
    assert_eq!(ask(&zone, "empty.a.svc", Wanted::V4), Answer::NoName);
}

#[test]
fn named_ports_have_srv_records() {
    let zone = zone();
    let srv = |port, target: &str| Data::Srv(port, target.to_owned());
    assert_eq!(
        ask(&zone, "_http._tcp.web.a.svc", Wanted::Srv),
        Answer::Records(vec![srv(80, "web.a.svc.cluster.local")])
    );
    assert_eq!(
        ask(&zone, "_sql._tcp.db.a.svc", Wanted::Srv),
        Answer::Records(vec![
            srv(5432, "db-0.db.a.svc.cluster.local"),
            srv(5432, "10-1-0-2.db.a.svc.cluster.local")
        ])
    );
    assert_eq!(ask(&zone, "_http._udp.web.a.svc", Wanted::Srv), Answer::NoName);
    assert_eq!(ask(&zone, "_http._tcp.web.a.svc", Wanted::V4), Answer::NoData);
}

#[test]
fn an_external_name_is_an_alias() {
    assert_eq!(
        ask(&zone(), "ext.a.svc", Wanted::V4),
        Answer::Records(vec![Data::Alias("example.org".into())])
    );
}

#[test]
fn pods_are_named_by_their_address() {
    let zone = zone();
    assert_eq!(ask(&zone, "10-1-0-9.a.pod", Wanted::V4), addresses_of(&["10.1.0.9"]));
    assert_eq!(ask(&zone, "fd00--9.a.pod", Wanted::V6), addresses_of(&["fd00::9"]));
    assert_eq!(ask(&zone, "x.a.pod", Wanted::V4), Answer::NoName);
}

#[test]
fn empty_names_on_the_way_exist() {
    let zone = zone();
    for name in ["", "svc", "a.svc", "_tcp.web.a.svc"] {
        assert_eq!(ask(&zone, name, Wanted::V4), Answer::NoData, "{name}");
    }
    assert_eq!(ask(&zone, "b.svc", Wanted::V4), Answer::NoName);
    assert_eq!(ask(&zone, "dns-version", Wanted::Txt), Answer::Records(vec![Data::Text("1.1.0".into())]));
}

#[test]
fn addresses_lead_back_to_names() {
    let zone = zone();
    let reverse = |address: &str| zone.reverse(address.parse().unwrap());
    assert_eq!(reverse("10.96.0.1").as_deref(), Some("web.a.svc.cluster.local"));
    assert_eq!(reverse("10.1.0.1").as_deref(), Some("db-0.db.a.svc.cluster.local"));
    assert_eq!(reverse("10.9.9.9"), None);
}

#[test]
fn what_is_deleted_is_forgotten() {
    let mut zone = zone();
    zone.remove_slice(&("a".into(), "db-1".into()));
    assert_eq!(ask(&zone, "db.a.svc", Wanted::V4), Answer::NoName);
    for name in ["web", "db", "ext", "empty"] {
        zone.remove_service(&("a".into(), name.into()));
    }
    assert_eq!(ask(&zone, "a.svc", Wanted::V4), Answer::NoName);
    assert_eq!(zone.reverse("10.96.0.1".parse().unwrap()), None);
}
