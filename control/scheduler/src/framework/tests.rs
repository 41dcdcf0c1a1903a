//! Table tests of the phases over small clusters.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{node, pod, pod_with};
use crate::plugins::groups;
use crate::preemption::Search;

/// A cluster of nodes with 4 CPU, 8 GiB and room for 10 pods each.
struct World {
    table: NodeTable,
    services: ServiceSelectors,
    namespaces: Namespaces,
}

impl World {
    fn new(nodes: &[&str]) -> Self {
        let mut world = Self {
            table: NodeTable::default(),
            services: ServiceSelectors::default(),
            namespaces: Namespaces::default(),
        };
        for name in nodes {
            world.node(name, |_| {});
        }
        world
    }

    fn node(&mut self, name: &str, change: impl FnOnce(&mut k8s_openapi::api::core::v1::Node)) {
        let mut node = node(
            name,
            &json!({"cpu": "4", "memory": "8Gi", "pods": "10"}),
            &json!({"kubernetes.io/hostname": name}),
        );
        change(&mut node);
        self.table.put_node(&node);
    }

    fn place(&mut self, pod: PodInfo, node: &str) {
        self.table.place(&Arc::new(pod), node);
    }

    fn select(&mut self, pod: &PodInfo) -> Result<String, String> {
        for group in groups(pod, &self.services, &self.namespaces) {
            self.table.spread.ensure(&group, &self.table.pods);
        }
        let (services, namespaces) = (&self.services, &self.namespaces);
        let cycle = Cycle { pod, table: &self.table, services, namespaces };
        let mut random = SmallRng::seed_from_u64(1);
        let chosen = Framework::default().select(cycle, &mut random);
        chosen
            .map(|row| self.table.names[row].to_string())
            .map_err(|diagnosis| diagnosis.message(&Search::Nothing))
    }

    fn refusal(&mut self, pod: &PodInfo) -> String {
        let message = self.select(pod).unwrap_err();
        let start = message.find(": ").unwrap() + 2;
        message[start..message.find(". preemption").unwrap()].to_owned()
    }
}

fn requests(cpu: &str, memory: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]})
}

fn taint(effect: &str) -> Vec<Taint> {
    vec![Taint { key: "k".to_owned(), effect: effect.to_owned(), ..Taint::default() }]
}

#[test]
fn pod_that_does_not_fit_is_told_every_reason() {
    let mut world = World::new(&["a", "b"]);
    assert_eq!(
        world.select(&pod("p", requests("5", "1Gi"))).unwrap_err(),
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 Preemption is not \
         helpful for scheduling."
    );
    world.place(pod("big", requests("3", "1Gi")), "a");
    assert_eq!(world.select(&pod("p", requests("2", "1Gi"))), Ok("b".to_owned()));
    world.place(pod("big2", requests("3", "7Gi")), "b");
    assert_eq!(
        world.select(&pod("p", requests("2", "2Gi"))).unwrap_err(),
        "0/2 nodes are available: 1 Insufficient memory, 2 Insufficient cpu. preemption: 0/2 nodes are available: \
         2 No preemption victims found for incoming pod."
    );
}

#[test]
fn each_filter_rejects_in_upstreams_words() {
    let cases: Vec<(&str, World, PodInfo)> = vec![
        (
            "1 node(s) were unschedulable",
            {
                let mut world = World::new(&[]);
                world.node("a", |node| node.spec.get_or_insert_default().unschedulable = Some(true));
                world
            },
            pod("p", json!({})),
        ),
        (
            "1 node(s) had untolerated taint(s)",
            {
                let mut world = World::new(&[]);
                world.node("a", |node| node.spec.get_or_insert_default().taints = Some(taint("NoSchedule")));
                world
            },
            pod("p", json!({})),
        ),
        (
            "1 node(s) didn't match Pod's node affinity/selector",
            World::new(&["a"]),
            pod("p", json!({"nodeSelector": {"disk": "ssd"}})),
        ),
        (
            "1 node(s) didn't satisfy plugin(s) [NodeAffinity]",
            World::new(&["a"]),
            pod(
                "p",
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchFields": [
                        {"key": "metadata.name", "operator": "In", "values": ["z"]}
                    ]}]
                }}}}),
            ),
        ),
        (
            "1 node(s) didn't match the requested node name",
            World::new(&["a"]),
            pod("p", json!({"nodeName": "z"})),
        ),
        (
            "1 node(s) didn't have free ports for the requested pod ports",
            {
                let mut world = World::new(&["a"]);
                let ports =
                    json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]});
                world.place(pod("q", ports), "a");
                world
            },
            pod("p", json!({"containers": [{"name": "c", "ports": [{"containerPort": 2, "hostPort": 80}]}]})),
        ),
        (
            "1 Too many pods",
            {
                let mut world = World::new(&["a"]);
                for n in 0..10 {
                    world.place(pod(&format!("q{n}"), json!({})), "a");
                }
                world
            },
            pod("p", json!({})),
        ),
        (
            "1 Insufficient example.com/gpu",
            World::new(&["a"]),
            pod(
                "p",
                json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}),
            ),
        ),
    ];
    for (reason, mut world, pod) in cases {
        assert_eq!(world.refusal(&pod), reason);
    }
}

#[test]
fn tolerated_cordon_and_taints_keep_nobody_off() {
    let mut world = World::new(&[]);
    world.node("a", |node| {
        let spec = node.spec.get_or_insert_default();
        spec.unschedulable = Some(true);
        spec.taints = Some(taint("NoExecute"));
    });
    assert!(world.select(&pod("p", json!({"tolerations": [{"operator": "Exists"}]}))).is_ok());
}

#[test]
fn soft_wishes_decide_between_nodes_that_fit() {
    let mut world = World::new(&["a"]);
    world.node("b", |node| node.spec.get_or_insert_default().taints = Some(taint("PreferNoSchedule")));
    assert_eq!(world.select(&pod("p", json!({}))), Ok("a".to_owned()));

    let mut world = World::new(&["a"]);
    world.node("b", |node| {
        node.metadata.labels = Some(BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]));
    });
    let preference = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}
    ]}}});
    assert_eq!(world.select(&pod("p", preference)), Ok("b".to_owned()));

    let mut world = World::new(&["a", "b"]);
    world.place(pod("q", requests("1", "2Gi")), "a");
    assert_eq!(world.select(&pod("p", requests("1", "2Gi"))), Ok("b".to_owned()));
}

fn replica(name: &str) -> PodInfo {
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]);
    pod_with(name, json!({"ownerReferences": owner}), json!({}))
}

#[test]
fn replicas_spread_evenly_by_default() {
    let mut world = World::new(&["a", "b"]);
    // One node is busier: spreading still outweighs it.
    world.place(pod("busy", requests("1", "1Gi")), "a");
    let mut on = BTreeMap::new();
    for n in 0..10 {
        let pod = replica(&format!("p{n}"));
        let node = world.select(&pod).unwrap();
        world.place(pod, &node);
        *on.entry(node).or_insert(0) += 1;
    }
    assert_eq!(on, BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 5)]));
}

#[test]
fn hard_spread_constraint_refuses_skew_and_missing_labels() {
    let mut world = World::new(&["a", "b"]);
    world.node("c", |node| node.metadata.labels = None);
    let web = |name: &str| {
        pod_with(
            name,
            json!({"labels": {"app": "web"}}),
            json!({"topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": "web"}},
            }]}),
        )
    };
    world.place(web("p0"), "a");
    assert_eq!(world.select(&web("p1")), Ok("b".to_owned()));
    world.node("b", |node| node.spec.get_or_insert_default().unschedulable = Some(true));
    assert_eq!(
        world.refusal(&web("p1")),
        "1 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match pod topology spread \
         constraints (missing required label), 1 node(s) were unschedulable"
    );
}

#[test]
fn hopes_name_what_may_help() {
    let world = World::new(&["a"]);
    let framework = Framework::default();
    let hopes = |pod: &PodInfo| {
        let (services, namespaces) = (&world.services, &world.namespaces);
        let cycle = Cycle { pod, table: &world.table, services, namespaces };
        let diagnosis = framework.select(cycle, &mut SmallRng::seed_from_u64(1)).unwrap_err();
        framework.hopes(&diagnosis)
    };
    let selector = hopes(&pod("p", json!({"nodeSelector": {"disk": "ssd"}})));
    assert!(selector.intersects(ClusterEvents::NODE_LABEL) && selector.intersects(ClusterEvents::NODE_ADDED));
    assert!(!selector.intersects(ClusterEvents::POD_DELETED));
    let size = hopes(&pod("p", requests("5", "1Gi")));
    assert!(size.intersects(ClusterEvents::POD_DELETED) && !size.intersects(ClusterEvents::NODE_LABEL));
}

/// A pod with label `app` and these affinities.
fn social(name: &str, app: &str, affinity: Value) -> PodInfo {
    let mut spec = json!({});
    spec["affinity"] = affinity;
    pod_with(name, json!({"labels": {"app": app}}), spec)
}

fn near(app: &str, key: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
}

fn zoned() -> World {
    let mut world = World::new(&[]);
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        world.node(name, |node| {
            let labels = node.metadata.labels.get_or_insert_default();
            labels.insert("zone".to_owned(), zone.to_owned());
        });
    }
    world
}

#[test]
fn affinity_keeps_pods_in_one_domain_and_lets_the_first_go_anywhere() {
    let mut world = zoned();
    let needs = |name: &str, app: &str, of: &str| {
        let terms = json!([near(of, "zone")]);
        social(name, app, json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}))
    };
    assert_eq!(world.refusal(&needs("p", "web", "db")), "3 node(s) didn't match pod affinity rules");
    world.place(social("db", "db", json!({})), "b1");
    assert_eq!(world.select(&needs("p", "web", "db")), Ok("b1".to_owned()));
    // Pods that need each other: the first has nobody, the second has the first.
    assert!(world.select(&needs("q", "ring", "ring")).is_ok());
    world.place(needs("q", "ring", "ring"), "a1");
    for _ in 0..4 {
        assert!(world.select(&needs("r", "ring", "ring")).unwrap().starts_with('a'));
    }
}

#[test]
fn anti_affinity_holds_in_both_directions() {
    let mut world = zoned();
    let refuses = |name: &str| {
        let terms = json!([near("web", "zone")]);
        social(
            name,
            "web",
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}),
        )
    };
    world.place(refuses("first"), "a1");
    assert_eq!(world.select(&refuses("second")), Ok("b1".to_owned()));
    world.place(refuses("second"), "b1");
    assert_eq!(world.refusal(&refuses("third")), "3 node(s) didn't match pod anti-affinity rules");
    let indifferent = social("plain", "web", json!({}));
    assert_eq!(
        world.refusal(&indifferent),
        "3 node(s) didn't satisfy existing pods anti-affinity rules",
        "those that run do not stand it"
    );
    assert!(world.select(&social("other", "db", json!({}))).is_ok());
}

#[test]
fn preferences_of_both_sides_are_weighed() {
    let mut world = zoned();
    world.place(social("db", "db", json!({})), "b1");
    let prefers = |kind: &str| {
        let terms = json!([{"weight": 100, "podAffinityTerm": near("db", "zone")}]);
        social("p", "web", json!({kind: {"preferredDuringSchedulingIgnoredDuringExecution": terms}}))
    };
    assert_eq!(world.select(&prefers("podAffinity")), Ok("b1".to_owned()));
    assert!(world.select(&prefers("podAntiAffinity")).unwrap().starts_with('a'));
    // A pod that runs wants company.
    let terms = json!([{"weight": 100, "podAffinityTerm": near("web", "kubernetes.io/hostname")}]);
    let lonely =
        social("l", "x", json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}}));
    world.place(lonely, "a2");
    assert_eq!(world.select(&social("p", "web", json!({}))), Ok("a2".to_owned()));
}
