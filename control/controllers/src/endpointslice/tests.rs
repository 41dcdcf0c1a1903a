//! Table tests of the slice plan.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use crate::endpointslice::endpoint::NodeFacts;
use crate::endpointslice::plan::{SlicePlan, plan};

fn service(spec: &Value) -> Service {
    let mut base = json!({
        "selector": {"app": "web"}, "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"],
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
    });
    for (key, value) in spec.as_object().unwrap() {
        base[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "a", "uid": "s", "labels": {"team": "x"}}, "spec": base,
    }))
    .unwrap()
}

fn pod(number: usize, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": format!("p{number:03}"), "namespace": "a", "uid": format!("u{number}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [
            {"name": "c", "ports": [{"name": "named", "containerPort": 9000 + number % 2, "protocol": "TCP"}]}
        ]},
        "status": {
            "phase": "Running",
            "podIP": format!("10.1.{}.{}", number / 250, number % 250 + 1),
            "podIPs": [
                {"ip": format!("10.1.{}.{}", number / 250, number % 250 + 1)},
                {"ip": format!("fd00::{:x}", number + 1)},
            ],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    change(&mut pod);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn pods(count: usize) -> Vec<Arc<Pod>> {
    (0..count).map(|number| pod(number, |_| {})).collect()
}

/// Slices in an API that numbers them.
#[derive(Default)]
struct Slices {
    all: Vec<Arc<EndpointSlice>>,
    names: usize,
}

impl Slices {
    fn sync(&mut self, service: &Service, pods: &[Arc<Pod>]) -> SlicePlan {
        let node = |name: &str| (name == "n").then(|| NodeFacts { zone: Some("z".to_owned()) });
        let plan = plan(service, pods, self.all.clone(), node);
        for deleted in &plan.delete {
            self.all.retain(|slice| slice.metadata.name != deleted.metadata.name);
        }
        for (current, desired) in &plan.update {
            assert_ne!(**current, *desired, "an update changes something");
            self.all.retain(|slice| slice.metadata.name != current.metadata.name);
            self.all.push(Arc::new(desired.clone()));
        }
        for created in &plan.create {
            let mut created = created.clone();
            created.metadata.name = Some(format!("web-{}", self.names));
            self.names += 1;
            self.all.push(Arc::new(created));
        }
        self.check(service, pods);
        plan
    }

    /// A second plan has nothing to do, and no endpoint is listed twice.
    fn check(&self, service: &Service, pods: &[Arc<Pod>]) {
        let node = |name: &str| (name == "n").then(|| NodeFacts { zone: Some("z".to_owned()) });
        let again = plan(service, pods, self.all.clone(), node);
        assert_eq!((again.create.len(), again.update.len(), again.delete.len()), (0, 0, 0), "{again:?}");
        let addresses: Vec<String> = self.addresses();
        let distinct: BTreeSet<&String> = addresses.iter().collect();
        assert_eq!(distinct.len(), addresses.len());
    }

    fn addresses(&self) -> Vec<String> {
        self.all.iter().flat_map(|s| s.endpoints.iter().flatten()).flat_map(|e| e.addresses.clone()).collect()
    }

    fn lengths(&self) -> Vec<usize> {
        let mut lengths: Vec<usize> =
            self.all.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).collect();
        lengths.sort_unstable();
        lengths
    }
}

fn writes(plan: &SlicePlan) -> (usize, usize, usize) {
    (plan.create.len(), plan.update.len(), plan.delete.len())
}

#[test]
fn service_gets_slices_of_a_hundred_and_owns_them() {
    let (service, mut slices) = (service(&json!({})), Slices::default());
    assert_eq!(writes(&slices.sync(&service, &pods(250))), (3, 0, 0));
    assert_eq!(slices.lengths(), [50, 100, 100]);
    let slice = &slices.all[0];
    let labels = slice.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["kubernetes.io/service-name"], "web");
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io");
    assert_eq!(labels["team"], "x");
    let owner = &slice.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("Service", "s", Some(true)));
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!(
        (port.name.as_deref(), port.port, port.protocol.as_deref()),
        (Some("http"), Some(8080), Some("TCP"))
    );
    let endpoint = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!(endpoint.node_name.as_deref(), Some("n"));
    assert_eq!(endpoint.zone.as_deref(), Some("z"));
    let target = endpoint.target_ref.as_ref().unwrap();
    assert_eq!((target.kind.as_deref(), target.uid.as_deref()), (Some("Pod"), Some("u0")));
}

#[test]
fn one_pod_more_or_less_writes_one_slice() {
    let (service, mut slices) = (service(&json!({})), Slices::default());
    slices.sync(&service, &pods(250));
    assert_eq!(writes(&slices.sync(&service, &pods(251))), (0, 1, 0));
    assert_eq!(slices.lengths(), [51, 100, 100]);
    assert_eq!(writes(&slices.sync(&service, &pods(250))), (0, 1, 0));
    // A hundred pods go and one comes: the newcomer takes a place in a slice that changes anyway.
    let mut some: Vec<Arc<Pod>> = pods(250);
    some.remove(3);
    some.push(pod(300, |_| {}));
    assert_eq!(writes(&slices.sync(&service, &some)), (0, 1, 0));
    assert_eq!(slices.lengths(), [50, 100, 100]);
}

#[test]
fn conditions_follow_the_pod() {
    type Conditions = (bool, bool, bool);
    let cases: Vec<(&str, Value, Arc<Pod>, Option<Conditions>)> = vec![
        ("ready", json!({}), pod(0, |_| {}), Some((true, true, false))),
        (
            "not ready",
            json!({}),
            pod(0, |p| p["status"]["conditions"][0]["status"] = json!("False")),
            Some((false, false, false)),
        ),
        (
            "terminating but serving",
            json!({}),
            pod(0, |p| p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")),
            Some((false, true, true)),
        ),
        (
            "published though not ready",
            json!({"publishNotReadyAddresses": true}),
            pod(0, |p| p["status"]["conditions"][0]["status"] = json!("False")),
            Some((true, false, false)),
        ),
        ("finished", json!({}), pod(0, |p| p["status"]["phase"] = json!("Succeeded")), None),
        ("without address", json!({}), pod(0, |p| p["status"] = json!({"phase": "Pending"})), None),
        ("on a node that is gone", json!({}), pod(0, |p| p["spec"]["nodeName"] = json!("gone")), None),
    ];
    for (what, spec, pod, expected) in cases {
        let mut slices = Slices::default();
        slices.sync(&service(&spec), &[pod]);
        let found = slices.all[0].endpoints.as_ref().unwrap().first().map(|endpoint| {
            let conditions = endpoint.conditions.clone().unwrap();
            (conditions.ready.unwrap(), conditions.serving.unwrap(), conditions.terminating.unwrap())
        });
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn service_without_pods_has_one_empty_slice_that_is_used_when_pods_come() {
    let (service, mut slices) = (service(&json!({})), Slices::default());
    assert_eq!(writes(&slices.sync(&service, &[])), (1, 0, 0));
    assert_eq!(slices.lengths(), [0]);
    assert_eq!(writes(&slices.sync(&service, &pods(2))), (0, 1, 0));
    assert_eq!(slices.lengths(), [2]);
    slices.sync(&service, &[]);
    assert_eq!(slices.lengths(), [0]);
}

#[test]
fn dual_stack_has_slices_of_both_families_and_loses_one() {
    let both = service(&json!({"ipFamilies": ["IPv4", "IPv6"]}));
    let mut slices = Slices::default();
    assert_eq!(writes(&slices.sync(&both, &pods(2))), (2, 0, 0));
    let types: BTreeSet<String> = slices.all.iter().map(|slice| slice.address_type.clone()).collect();
    assert_eq!(types.into_iter().collect::<Vec<_>>(), ["IPv4", "IPv6"]);
    assert!(slices.addresses().contains(&"fd00::1".to_owned()));
    assert_eq!(writes(&slices.sync(&service(&json!({})), &pods(2))), (0, 0, 1));
}

#[test]
fn named_ports_group_pods_by_their_number() {
    let named = service(&json!({"ports": [{"name": "http", "port": 80, "targetPort": "named"}]}));
    let mut slices = Slices::default();
    slices.sync(&named, &pods(5));
    let mut ports: Vec<(Option<i32>, usize)> = slices
        .all
        .iter()
        .map(|slice| (slice.ports.as_ref().unwrap()[0].port, slice.endpoints.as_ref().unwrap().len()))
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [(Some(9000), 3), (Some(9001), 2)]);
}

#[test]
fn changed_ports_reuse_the_slices() {
    let mut slices = Slices::default();
    slices.sync(&service(&json!({})), &pods(150));
    let other = service(&json!({"ports": [{"name": "http", "port": 80, "targetPort": 8081}]}));
    assert_eq!(writes(&slices.sync(&other, &pods(150))), (0, 2, 0));
}

#[test]
fn headless_service_names_its_pods() {
    let headless = service(&json!({"clusterIP": "None", "ports": null}));
    let mut slices = Slices::default();
    let named = pod(0, |p| {
        p["spec"]["hostname"] = json!("zero");
        p["spec"]["subdomain"] = json!("web");
    });
    let stranger = pod(1, |p| {
        p["spec"]["hostname"] = json!("one");
        p["spec"]["subdomain"] = json!("other");
    });
    slices.sync(&headless, &[named, stranger]);
    let slice = &slices.all[0];
    assert_eq!(slice.metadata.labels.as_ref().unwrap()["service.kubernetes.io/headless"], "");
    let hostnames: Vec<Option<&str>> =
        slice.endpoints.as_ref().unwrap().iter().map(|e| e.hostname.as_deref()).collect();
    assert_eq!(hostnames, [Some("zero"), None]);
}

#[test]
fn service_made_anew_takes_over_the_slices_of_the_former() {
    let mut slices = Slices::default();
    slices.sync(&service(&json!({})), &pods(1));
    let mut anew = service(&json!({}));
    anew.metadata.uid = Some("s2".to_owned());
    assert_eq!(writes(&slices.sync(&anew, &pods(1))), (0, 1, 0));
    assert_eq!(slices.all[0].metadata.owner_references.as_ref().unwrap()[0].uid, "s2");
}

#[test]
fn labels_and_traffic_distribution_reach_the_slices() {
    let mut slices = Slices::default();
    slices.sync(&service(&json!({})), &pods(1));
    let mut relabelled = service(&json!({"trafficDistribution": "PreferSameNode"}));
    relabelled.metadata.labels = None;
    assert_eq!(writes(&slices.sync(&relabelled, &pods(1))), (0, 1, 0));
    assert!(!slices.all[0].metadata.labels.as_ref().unwrap().contains_key("team"));
    let hints = slices.all[0].endpoints.as_ref().unwrap()[0].hints.clone().unwrap();
    assert_eq!(hints.for_zones.unwrap()[0].name, "z");
    assert_eq!(hints.for_nodes.unwrap()[0].name, "n");
}
