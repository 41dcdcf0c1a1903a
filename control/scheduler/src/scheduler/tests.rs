//! The scheduler's mind driven by hand: observations in, decisions out.

use serde_json::{Value, json};

use super::*;
use crate::fixtures::{node, raw_pod};

struct Bench {
    scheduler: Scheduler,
}

impl Bench {
    /// A synced scheduler over nodes of 2 CPU each.
    fn new(nodes: &[&str]) -> Self {
        let mut bench = Self { scheduler: Scheduler::new("default-scheduler".to_owned(), 1) };
        bench.see(Observation::Node(Seen::ListBegins));
        for name in nodes {
            bench.see(Observation::Node(Seen::Listed(Box::new(node(
                name,
                &json!({"cpu": "2", "memory": "4Gi", "pods": "9"}),
                &json!({}),
            )))));
        }
        bench.see(Observation::Node(Seen::ListEnds));
        bench.see(Observation::Pod(Seen::ListBegins));
        bench.see(Observation::Pod(Seen::ListEnds));
        bench.see(Observation::Service(Seen::ListBegins));
        bench.see(Observation::Service(Seen::ListEnds));
        bench
    }

    fn see(&mut self, observation: Observation) {
        self.scheduler.observe(observation, Instant::now());
    }

    fn pod(&mut self, name: &str, spec: &Value) {
        self.see(Observation::Pod(Seen::Changed(info(name, spec))));
    }

    fn delete(&mut self, name: &str) {
        self.see(Observation::Pod(Seen::Deleted(info(name, &json!({})))));
    }

    fn decide(&mut self) -> Option<(String, Result<String, String>)> {
        self.scheduler.tick(Instant::now());
        self.scheduler.schedule_next(Instant::now()).map(|decision| match decision {
            Decision::Bind { pod, node } => (pod.name.clone(), Ok(node)),
            Decision::Unschedulable { pod, diagnosis } => (pod.name.clone(), Err(diagnosis.message())),
        })
    }

    fn bound(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.decide()).filter_map(|(pod, node)| node.ok().map(|_| pod)).collect()
    }
}

fn info(name: &str, spec: &Value) -> Arc<PodInfo> {
    Arc::new(PodInfo::of(&raw_pod(name, json!({}), spec.clone())))
}

fn cpu(amount: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]})
}

#[tokio::test(start_paused = true)]
async fn assumed_pods_count_before_their_bind_is_known() {
    let mut bench = Bench::new(&["n"]);
    for name in ["a", "b", "c"] {
        bench.pod(name, &cpu("1"));
    }
    assert_eq!(bench.bound(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn failed_bind_frees_the_place_and_the_pod_tries_again() {
    let mut bench = Bench::new(&["n"]);
    bench.pod("a", &cpu("2"));
    assert_eq!(bench.bound(), ["a"]);
    bench.scheduler.bind_failed(&"a".into(), Instant::now());
    assert!(bench.decide().is_none(), "not before its backoff");
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    assert_eq!(bench.bound(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn pod_deleted_while_assumed_is_forgotten() {
    let mut bench = Bench::new(&["n"]);
    bench.pod("a", &cpu("2"));
    assert_eq!(bench.bound(), ["a"]);
    bench.delete("a");
    bench.scheduler.bind_failed(&"a".into(), Instant::now());
    bench.pod("b", &cpu("2"));
    assert_eq!(bench.bound(), ["b"]);
    assert!(bench.decide().is_none(), "the deleted pod does not come back");
}

#[tokio::test(start_paused = true)]
async fn bound_pod_is_not_scheduled_again_by_a_late_event() {
    let mut bench = Bench::new(&["n"]);
    bench.pod("a", &cpu("1"));
    assert_eq!(bench.bound(), ["a"]);
    bench.scheduler.bound(&"a".into(), Instant::now());
    bench.pod("a", &cpu("1"));
    assert!(bench.decide().is_none());
}

#[tokio::test(start_paused = true)]
async fn others_pods_gated_pods_and_leaving_pods_are_left_alone() {
    let mut bench = Bench::new(&["n"]);
    bench.pod("other", &json!({"schedulerName": "mine"}));
    bench.pod("gated", &json!({"schedulingGates": [{"name": "g"}]}));
    let leaving = raw_pod("leaving", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), json!({}));
    bench.see(Observation::Pod(Seen::Changed(Arc::new(PodInfo::of(&leaving)))));
    assert!(bench.decide().is_none());
}

#[tokio::test(start_paused = true)]
async fn waiting_pod_gets_the_room_a_finished_or_deleted_pod_leaves() {
    let mut bench = Bench::new(&["n"]);
    bench.pod("a", &json!({"nodeName": "n", "containers": cpu("2")["containers"]}));
    bench.pod("b", &cpu("1"));
    let (_, refusal) = bench.decide().unwrap();
    assert!(refusal.unwrap_err().starts_with("0/1 nodes are available: 1 Insufficient cpu."));
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    assert!(bench.decide().is_none(), "no time of its own wakes it");
    let mut finished = raw_pod("a", json!({}), json!({"nodeName": "n"}));
    finished.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
    bench.see(Observation::Pod(Seen::Changed(Arc::new(PodInfo::of(&finished)))));
    assert_eq!(bench.bound(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_decided_before_every_list_is_complete() {
    let mut scheduler = Scheduler::new("default-scheduler".to_owned(), 1);
    scheduler.observe(Observation::Pod(Seen::ListBegins), Instant::now());
    scheduler.observe(Observation::Pod(Seen::Listed(info("a", &json!({})))), Instant::now());
    scheduler.observe(Observation::Pod(Seen::ListEnds), Instant::now());
    assert!(!scheduler.has_work());
}

#[tokio::test(start_paused = true)]
async fn new_list_takes_away_what_it_does_not_name() {
    let mut bench = Bench::new(&["n", "m"]);
    bench.pod("a", &json!({"nodeName": "n", "containers": cpu("2")["containers"]}));
    bench.pod("waiting", &cpu("1"));
    bench.see(Observation::Pod(Seen::ListBegins));
    bench.see(Observation::Pod(Seen::ListEnds));
    bench.see(Observation::Node(Seen::ListBegins));
    let kept = node("n", &json!({"cpu": "2", "memory": "4Gi", "pods": "9"}), &json!({}));
    bench.see(Observation::Node(Seen::Listed(Box::new(kept))));
    bench.see(Observation::Node(Seen::ListEnds));
    bench.pod("b", &cpu("2"));
    assert_eq!(bench.decide(), Some(("b".to_owned(), Ok("n".to_owned()))));
    assert_eq!(bench.decide(), None);
}
