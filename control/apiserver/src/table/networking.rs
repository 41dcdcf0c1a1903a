//! Endpoints, slices, ingresses, policies, address ranges.
//!
//! In: objects of the groups `networking.k8s.io` and `discovery.k8s.io`, and Endpoints. Out: their cells.

use serde_json::Value;

use super::service::ingress_points;
use super::view::{NONE, UNSET, View, first_three, text_in};
use super::{AGE, Column, Layout, NAME, string};

pub(super) const ENDPOINTS: Layout = Layout {
    columns: const { &[NAME, string("Endpoints", "The addresses and ports of the endpoints."), AGE] },
    cells: |view| vec![view.name(), endpoints(view).into(), view.age()],
};

const INGRESS: &[Column] = &[
    NAME,
    string("Class", "The class of controller that serves the ingress."),
    string("Hosts", "The hosts its rules match."),
    string("Address", "Where its load balancer listens."),
    string("Ports", "The ports it listens at."),
    AGE,
];

const SLICE: &[Column] = &[
    NAME,
    string("AddressType", "The kind of the endpoints' addresses."),
    string("Ports", "The ports of the endpoints."),
    string("Endpoints", "The addresses of the endpoints."),
    AGE,
];

pub(super) fn layout(kind: &str) -> Option<Layout> {
    Some(match kind {
        "EndpointSlice" => Layout { columns: SLICE, cells: slice },
        "Ingress" => Layout { columns: INGRESS, cells: ingress },
        "IngressClass" => Layout {
            columns: const {
                &[
                    NAME,
                    string("Controller", "The controller of the class."),
                    string("Parameters", "The object with further settings of the class."),
                    AGE,
                ]
            },
            cells: |view| {
                vec![view.name(), view.cell("/spec/controller"), class_parameters(view).into(), view.age()]
            },
        },
        "NetworkPolicy" => Layout {
            columns: const { &[NAME, string("Pod-Selector", "The labels of the pods it applies to."), AGE] },
            cells: |view| vec![view.name(), view.selector("/spec/podSelector"), view.age()],
        },
        "ServiceCIDR" => Layout {
            columns: const { &[NAME, string("CIDRs", "The ranges services get addresses from."), AGE] },
            cells: |view| {
                let ranges: Vec<&str> = view.list("/spec/cidrs").iter().filter_map(Value::as_str).collect();
                vec![view.name(), ranges.join(",").into(), view.age()]
            },
        },
        "IPAddress" => Layout {
            columns: const { &[NAME, string("ParentRef", "The object that has the address.")] },
            cells: |view| vec![view.name(), parent(view).into()],
        },
        _ => return None,
    })
}

fn slice(view: &View<'_>) -> Vec<Value> {
    let port = |port: &Value| match port.get("port").and_then(Value::as_i64) {
        Some(number) => number.to_string(),
        None => port.get("name").and_then(Value::as_str).unwrap_or("*").to_owned(),
    };
    let ports: Vec<String> = view.list("/ports").iter().map(port).collect();
    let addresses = view.list("/endpoints").iter().flat_map(|endpoint| {
        endpoint.get("addresses").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    });
    let addresses: Vec<String> = addresses.map(str::to_owned).collect();
    vec![
        view.name(),
        view.cell("/addressType"),
        first_three(&ports, UNSET).into(),
        first_three(&addresses, UNSET).into(),
        view.age(),
    ]
}

fn endpoints(view: &View<'_>) -> String {
    let mut all = Vec::new();
    for subset in view.list("/subsets") {
        let list = |name: &str| subset.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let addresses = || list("addresses").iter().map(|address| text_in(address, "ip"));
        if list("ports").is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in list("ports") {
            let number = port.get("port").and_then(Value::as_i64).unwrap_or_default();
            all.extend(addresses().map(|address| {
                if address.contains(':') {
                    format!("[{address}]:{number}")
                } else {
                    format!("{address}:{number}")
                }
            }));
        }
    }
    if view.count("/subsets") == 0 { NONE.to_owned() } else { first_three(&all, "") }
}

fn ingress(view: &View<'_>) -> Vec<Value> {
    let points: Vec<&str> = ingress_points(view).into_iter().collect();
    let ports = if view.count("/spec/tls") == 0 { "80" } else { "80, 443" };
    vec![
        view.name(),
        view.text_or("/spec/ingressClassName", NONE).into(),
        hosts(view.list("/spec/rules")).into(),
        points.join(",").into(),
        ports.into(),
        view.age(),
    ]
}

fn hosts(rules: &[Value]) -> String {
    let mut shown = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= shown.len() == 3;
        let host = text_in(rule, "host");
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    match shown.join(",") {
        none if none.is_empty() => "*".to_owned(),
        hosts if more => format!("{hosts} + {} more...", rules.len() - 3),
        hosts => hosts,
    }
}

fn class_parameters(view: &View<'_>) -> String {
    let Some(parameters) = view.at("/spec/parameters") else { return NONE.to_owned() };
    let (kind, name) = (text_in(parameters, "kind"), text_in(parameters, "name"));
    match parameters.get("apiGroup").and_then(Value::as_str) {
        Some(group) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

fn parent(view: &View<'_>) -> String {
    let Some(parent) = view.at("/spec/parentRef") else { return NONE.to_owned() };
    let parts = ["group", "resource", "namespace", "name"].map(|field| text_in(parent, field));
    let [group, resource, namespace, name] = parts;
    let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    if namespace.is_empty() { format!("{resource}/{name}") } else { format!("{resource}/{namespace}/{name}") }
}
