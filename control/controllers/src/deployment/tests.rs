//! Rollouts played out: the plan is applied to a small world in which ReplicaSets follow their size at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use serde_json::{Value, json};
use xebec_api::wellknown::annotations::{CHANGE_CAUSE, REVISION, REVISION_HISTORY};

use crate::deployment::conditions;
use crate::deployment::plan::{Plan, plan};

struct World {
    deployment: Deployment,
    sets: BTreeMap<String, ReplicaSet>,
    now: Timestamp,
    events: Vec<String>,
    /// Whether pods of the image become ready.
    works: fn(&str) -> bool,
}

impl World {
    fn new(replicas: i32, strategy: &Value) -> Self {
        let deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "a", "uid": "d", "generation": 1},
            "spec": {
                "replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
                "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}},
            },
        }))
        .unwrap();
        let mut world = Self {
            deployment,
            sets: BTreeMap::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            events: Vec::new(),
            works: |_| true,
        };
        world.image("v1");
        world
    }

    fn rolling(replicas: i32, surge: &Value, unavailable: &Value) -> Self {
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        Self::new(replicas, &json!({"type": "RollingUpdate", "rollingUpdate": rolling}))
    }

    fn image(&mut self, image: &str) {
        let spec = self.deployment.spec.template.spec.as_mut().unwrap();
        spec.containers[0].image = Some(image.to_owned());
        self.bump();
    }

    fn scale(&mut self, replicas: i32) {
        self.deployment.spec.replicas = Some(replicas);
        self.bump();
    }

    fn pause(&mut self, paused: bool) {
        self.deployment.spec.paused = Some(paused);
        self.bump();
    }

    fn bump(&mut self) {
        self.deployment.metadata.generation = self.deployment.metadata.generation.map(|g| g + 1);
    }

    fn plan(&self) -> Plan {
        let sets = self.sets.values().cloned().map(Arc::new).collect();
        plan(&self.deployment, sets, |_| false, self.now)
    }

    /// One run of the controller. Says whether it changed anything.
    fn run(&mut self) -> bool {
        let plan = self.plan();
        let before = (self.sets.clone(), self.deployment.clone());
        for piece in plan.pieces {
            let name = piece.desired.metadata.name.clone().unwrap();
            self.events.extend(piece.events.into_iter().map(|told| told.message));
            if piece.delete {
                self.sets.remove(&name);
                continue;
            }
            let mut set = piece.desired;
            if piece.current.is_none() {
                set.metadata.uid = Some(name.clone());
                set.metadata.creation_timestamp =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
            }
            self.sets.insert(name, set);
        }
        self.deployment = plan.deployment;
        self.now += SignedDuration::from_secs(1);
        before != (self.sets.clone(), self.deployment.clone())
    }

    /// One pod of each ReplicaSet comes, goes or becomes ready.
    fn follow(&mut self) {
        for set in self.sets.values_mut() {
            let image =
                set.spec.template.as_ref().unwrap().spec.as_ref().unwrap().containers[0].image.clone();
            let mut status = set.status.clone().unwrap_or_default();
            let wanted = set.spec.replicas.unwrap();
            let available = status.available_replicas.unwrap_or(0);
            if (self.works)(image.as_deref().unwrap_or_default()) && available < status.replicas {
                status.available_replicas = Some(available + 1);
            }
            status.replicas += (wanted - status.replicas).signum();
            let available = status.available_replicas.unwrap_or(0).min(status.replicas);
            set.status = Some(ReplicaSetStatus {
                available_replicas: Some(available),
                ready_replicas: Some(available),
                observed_generation: set.metadata.generation,
                ..status
            });
        }
    }

    /// Runs until nothing changes, checking the fenceposts on the way.
    fn settle(&mut self, least: i32, most: i32) {
        for _ in 0..200 {
            let before = self.sets.clone();
            let changed = self.run();
            self.follow();
            let available: i32 =
                self.sets.values().filter_map(|set| set.status.as_ref()?.available_replicas).sum();
            let wanted: i32 = self.sets.values().filter_map(|set| set.spec.replicas).sum();
            assert!(wanted <= most, "{wanted} pods wanted, {most} allowed");
            assert!(available >= least, "{available} pods serve, {least} needed");
            if !changed && before == self.sets {
                return;
            }
        }
        panic!("the rollout does not come to rest");
    }

    fn sizes(&self) -> BTreeMap<String, i32> {
        let image = |set: &ReplicaSet| {
            let spec = set.spec.template.as_ref().unwrap().spec.clone().unwrap();
            spec.containers[0].image.clone().unwrap()
        };
        self.sets.values().map(|set| (image(set), set.spec.replicas.unwrap())).collect()
    }

    fn set(&self, image: &str) -> &ReplicaSet {
        let of = |set: &&ReplicaSet| {
            set.spec.template.as_ref().unwrap().spec.as_ref().unwrap().containers[0].image.as_deref()
                == Some(image)
        };
        self.sets.values().find(of).unwrap()
    }

    fn annotation(&self, image: &str, key: &str) -> Option<&str> {
        self.set(image).metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    fn condition(&self, type_: &str) -> (String, String, String) {
        let conditions = self.deployment.status.as_ref().unwrap().conditions.as_deref().unwrap();
        let found = conditions::get(conditions, type_).cloned().unwrap_or_default();
        (
            found.status.unwrap_or_default(),
            found.reason.unwrap_or_default(),
            found.message.unwrap_or_default(),
        )
    }
}

fn sizes(pairs: &[(&str, i32)]) -> BTreeMap<String, i32> {
    pairs.iter().map(|(image, size)| ((*image).to_owned(), *size)).collect()
}

#[test]
fn first_rollout_creates_one_set_and_completes() {
    let mut world = World::rolling(3, &json!("25%"), &json!("25%"));
    world.run();
    let name = world.set("v1").metadata.name.clone().unwrap();
    assert_eq!(world.events, [format!("Scaled up replica set {name} from 0 to 3")]);
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetCreated");
    assert_eq!(world.condition("Available").0, "False");
    world.follow();
    world.run();
    assert_eq!(world.condition("Progressing").1, "ReplicaSetUpdated");
    world.settle(0, 3);
    assert_eq!(
        world.condition("Progressing"),
        (
            "True".to_owned(),
            "NewReplicaSetAvailable".to_owned(),
            format!("ReplicaSet {name:?} has successfully progressed.")
        )
    );
    assert_eq!(world.condition("Available").1, "MinimumReplicasAvailable");
    let status = world.deployment.status.clone().unwrap();
    assert_eq!(
        (status.replicas, status.updated_replicas, status.unavailable_replicas),
        (Some(3), Some(3), Some(0))
    );
    assert_eq!(world.annotation("v1", REVISION), Some("1"));
    assert_eq!(world.deployment.metadata.annotations.as_ref().unwrap()[REVISION], "1");
    let set = world.set("v1");
    let hash = &set.metadata.labels.as_ref().unwrap()["pod-template-hash"];
    assert_eq!(set.spec.selector.match_labels.as_ref().unwrap()["pod-template-hash"], *hash);
    assert!(name.ends_with(hash.as_str()));
}

#[test]
fn update_keeps_within_its_fenceposts() {
    for (replicas, surge, unavailable, least, most) in [
        (10, json!("25%"), json!("25%"), 8, 13),
        (3, json!(1), json!(0), 3, 4),
        (3, json!(0), json!(1), 2, 3),
        (1, json!(0), json!(0), 0, 1),
        (4, json!("100%"), json!("100%"), 0, 8),
    ] {
        let mut world = World::rolling(replicas, &surge, &unavailable);
        world.settle(0, most);
        world.image("v2");
        world.settle(least, most);
        assert_eq!(world.sizes(), sizes(&[("v1", 0), ("v2", replicas)]), "{replicas} {surge} {unavailable}");
    }
}

#[test]
fn broken_update_stops_at_the_fencepost_and_misses_its_deadline() {
    let mut world = World::rolling(10, &json!("25%"), &json!("25%"));
    world.settle(0, 13);
    world.works = |image| image != "broken";
    world.image("broken");
    world.settle(8, 13);
    assert_eq!(world.sizes(), sizes(&[("v1", 8), ("broken", 5)]));
    assert_eq!(world.condition("Progressing").1, "ReplicaSetUpdated");
    assert_eq!(world.condition("Available").0, "True");
    let check_in = world.plan().check_in.unwrap();
    assert!(check_in.as_secs() > 500, "{check_in}");
    world.now += SignedDuration::from_secs(700);
    world.run();
    assert_eq!(
        (world.condition("Progressing").0.as_str(), world.condition("Progressing").1.as_str()),
        ("False", "ProgressDeadlineExceeded")
    );
    assert_eq!(world.plan().check_in, None);

    // A way back: the old template again is the old set again, with a new revision.
    world.image("v1");
    world.settle(8, 13);
    assert_eq!(world.sizes(), sizes(&[("v1", 10), ("broken", 0)]));
    assert_eq!(world.annotation("v1", REVISION), Some("3"));
    assert_eq!(world.annotation("v1", REVISION_HISTORY), Some("1"));
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn recreate_waits_until_the_old_are_gone() {
    let mut world = World::new(2, &json!({"type": "Recreate"}));
    world.settle(0, 2);
    world.image("v2");
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 0)]));
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 0)]), "two old pods still count");
    world.follow();
    world.follow();
    let sets = world.sets.values().cloned().map(Arc::new).collect();
    let waiting = plan(&world.deployment, sets, |uid| uid.starts_with("web"), world.now);
    assert_eq!(waiting.pieces.len(), 1, "an old pod is still terminating");
    world.settle(0, 2);
    assert_eq!(world.sizes(), sizes(&[("v1", 0), ("v2", 2)]));
}

#[test]
fn resizing_in_the_middle_of_a_rollout_keeps_the_mix() {
    let mut world = World::rolling(10, &json!(3), &json!(2));
    world.settle(0, 13);
    world.works = |image| image != "broken";
    world.image("broken");
    world.settle(8, 13);
    assert_eq!(world.sizes(), sizes(&[("v1", 8), ("broken", 5)]));
    world.scale(15);
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 11), ("broken", 7)]));
    world.scale(0);
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 0), ("broken", 0)]));
}

#[test]
fn resizing_at_rest_sizes_the_only_set() {
    let mut world = World::rolling(3, &json!(1), &json!(1));
    world.settle(0, 4);
    world.scale(7);
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 7)]));
    assert!(world.events.last().unwrap().ends_with("from 3 to 7"));
    world.settle(3, 8);
    world.scale(2);
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 2)]));
}

#[test]
fn paused_deployment_scales_but_does_not_roll() {
    let mut world = World::rolling(3, &json!(1), &json!(1));
    world.settle(0, 4);
    world.pause(true);
    world.image("v2");
    world.scale(5);
    world.settle(2, 6);
    assert_eq!(world.sizes(), sizes(&[("v1", 5)]));
    assert_eq!(world.condition("Progressing").1, "DeploymentPaused");
    world.pause(false);
    world.run();
    assert_eq!(world.sizes()["v2"], 1);
    world.settle(4, 6);
    assert_eq!(world.sizes(), sizes(&[("v1", 0), ("v2", 5)]));
}

#[test]
fn history_beyond_the_limit_goes_oldest_first() {
    let mut world = World::rolling(1, &json!(1), &json!(0));
    for image in ["v1", "v2", "v3", "v4", "v5"] {
        world.image(image);
        world.settle(0, 2);
    }
    assert_eq!(world.sizes(), sizes(&[("v3", 0), ("v4", 0), ("v5", 1)]));
}

#[test]
fn annotations_are_copied_but_not_the_systems_own() {
    let mut world = World::rolling(1, &json!(1), &json!(0));
    world.deployment.metadata.annotations = Some(BTreeMap::from([
        (CHANGE_CAUSE.to_owned(), "because".to_owned()),
        ("kubectl.kubernetes.io/last-applied-configuration".to_owned(), "{}".to_owned()),
    ]));
    world.run();
    assert_eq!(world.annotation("v1", CHANGE_CAUSE), Some("because"));
    assert_eq!(world.annotation("v1", "kubectl.kubernetes.io/last-applied-configuration"), None);
}

#[test]
fn trouble_of_a_set_shows_on_the_deployment() {
    let mut world = World::rolling(2, &json!(1), &json!(0));
    world.run();
    let name = world.set("v1").metadata.name.clone().unwrap();
    let trouble = json!({"replicas": 0, "conditions": [
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    ]});
    world.sets.get_mut(&name).unwrap().status = Some(serde_json::from_value(trouble).unwrap());
    world.run();
    assert_eq!(
        world.condition("ReplicaFailure"),
        ("True".to_owned(), "FailedCreate".to_owned(), "exceeded quota".to_owned())
    );
    world.follow();
    world.sets.get_mut(&name).unwrap().status.as_mut().unwrap().conditions = None;
    world.run();
    assert_eq!(world.condition("ReplicaFailure").0, "");
}

#[test]
fn deployment_that_goes_only_tells() {
    let mut world = World::rolling(2, &json!(1), &json!(0));
    world.deployment.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now));
    assert!(world.plan().pieces.is_empty());
}

#[test]
fn pods_about_to_be_deleted_are_not_counted_as_serving() {
    let mut world = World::rolling(10, &json!(3), &json!(2));
    world.settle(0, 13);
    world.image("v2");
    world.run();
    let name = |world: &World, image: &str| world.set(image).metadata.name.clone().unwrap();
    let (old, new) = (name(&world, "v1"), name(&world, "v2"));
    // The old set is to have 8 and has deleted none yet; of the 5 new ones 3 serve.
    for (name, size, available) in [(&old, 8, 10), (&new, 5, 3)] {
        let set = world.sets.get_mut(name).unwrap();
        set.spec.replicas = Some(size);
        let status = set.status.get_or_insert_default();
        (status.replicas, status.available_replicas) = (size.max(available), Some(available));
    }
    world.run();
    assert_eq!(world.sets[&old].spec.replicas, Some(5), "8 and 3 serve at least, 8 must");
}
