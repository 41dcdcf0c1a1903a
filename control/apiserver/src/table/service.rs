//! Services: their addresses and ports.
//!
//! In: a Service. Out: its cells.

use std::collections::BTreeSet;

use serde_json::Value;

use super::view::{NONE, View, text_in};
use super::{AGE, Column, Layout, NAME, SELECTOR, string};

const COLUMNS: &[Column] = &[
    NAME,
    string("Type", "How the service is exposed."),
    string("Cluster-IP", "The service's address inside of the cluster."),
    string("External-IP", "The service's addresses from outside."),
    string("Port(s)", "The service's ports, with node ports after a colon."),
    AGE,
    SELECTOR,
];

pub(super) const LAYOUT: Layout = Layout { columns: COLUMNS, cells };

fn cells(view: &View<'_>) -> Vec<Value> {
    vec![
        view.name(),
        view.cell("/spec/type"),
        view.text_or("/spec/clusterIPs/0", NONE).into(),
        external(view).into(),
        ports(view).into(),
        view.age(),
        view.labels("/spec/selector"),
    ]
}

fn external(view: &View<'_>) -> String {
    let listed: Vec<&str> = view.list("/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match view.text("/spec/type") {
        "ClusterIP" | "NodePort" if listed.is_empty() => NONE.to_owned(),
        "ClusterIP" | "NodePort" => listed.join(","),
        "LoadBalancer" => {
            let balancer = ingress_points(view);
            let all: Vec<&str> = balancer.iter().copied().chain(listed).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => view.text("/spec/externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// The addresses and names a load balancer reports, sorted.
pub(super) fn ingress_points<'a>(view: &View<'a>) -> BTreeSet<&'a str> {
    let points =
        view.list("/status/loadBalancer/ingress").iter().map(|ingress| match text_in(ingress, "ip") {
            "" => text_in(ingress, "hostname"),
            address => address,
        });
    points.filter(|point| !point.is_empty()).collect()
}

fn ports(view: &View<'_>) -> String {
    let port = |port: &Value| {
        let number = |field: &str| port.get(field).and_then(Value::as_i64).unwrap_or_default();
        let protocol = text_in(port, "protocol");
        match number("nodePort") {
            0 => format!("{}/{protocol}", number("port")),
            node => format!("{}:{node}/{protocol}", number("port")),
        }
    };
    let ports: Vec<String> = view.list("/spec/ports").iter().map(port).collect();
    if ports.is_empty() { NONE.to_owned() } else { ports.join(",") }
}
