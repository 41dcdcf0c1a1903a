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
        bench.see(Observation::Namespace(Seen::ListBegins));
        bench.see(Observation::Namespace(Seen::ListEnds));
        bench.see(Observation::Budget(Seen::ListBegins));
        bench.see(Observation::Budget(Seen::ListEnds));
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
            Decision::Unschedulable { pod, diagnosis, search } => {
                (pod.name.clone(), Err(diagnosis.message(&search)))
            }
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

fn ranked(amount: &str, priority: i32, extra: Value) -> Value {
    let mut spec = cpu(amount);
    spec["priority"] = priority.into();
    if let Value::Object(fields) = extra {
        for (field, value) in fields {
            spec[field] = value;
        }
    }
    spec
}

impl Bench {
    /// Who would leave which node for the next pod.
    fn preempt(&mut self) -> Option<(String, Vec<String>)> {
        self.scheduler.tick(Instant::now());
        match self.scheduler.schedule_next(Instant::now()) {
            Some(Decision::Unschedulable { search: Search::Found(found), .. }) => {
                let mut victims: Vec<String> =
                    found.victims.iter().map(|victim| victim.name.clone()).collect();
                victims.sort();
                Some((found.node, victims))
            }
            _ => None,
        }
    }

    fn runs(&mut self, name: &str, node: &str, amount: &str, priority: i32) {
        self.pod(name, &ranked(amount, priority, json!({"nodeName": node})));
    }
}

#[tokio::test(start_paused = true)]
async fn fewest_and_least_important_pods_make_room() {
    let mut bench = Bench::new(&["n", "m", "o"]);
    bench.runs("n1", "n", "1", 5);
    bench.runs("n2", "n", "1", 1);
    bench.runs("m1", "m", "1", 1);
    bench.runs("m2", "m", "1", 2);
    bench.runs("o1", "o", "2", 50);
    bench.pod("important", &ranked("1", 10, json!({})));
    // On n and m one pod of priority 1 is enough; what else runs there stays.
    let (node, victims) = bench.preempt().unwrap();
    assert!([("n", "n2"), ("m", "m1")].contains(&(node.as_str(), victims[0].as_str())), "{node} {victims:?}");
    assert_eq!(victims.len(), 1);
    bench.pod("whole", &ranked("2", 10, json!({})));
    let all = Some(("m".to_owned(), vec!["m1".to_owned(), "m2".to_owned()]));
    // The other node is kept for the first, or is m itself: then the next best.
    let second = bench.preempt();
    assert!(second == all || second.as_ref().is_some_and(|(node, _)| node == "n"), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn room_made_is_kept_for_whom_it_was_made() {
    let mut bench = Bench::new(&["n"]);
    bench.runs("small", "n", "2", 0);
    bench.pod("important", &ranked("2", 10, json!({})));
    assert_eq!(bench.preempt(), Some(("n".to_owned(), vec!["small".to_owned()])));
    bench.delete("small");
    // It has to wait for its backoff; another of lower priority comes first and gets nothing.
    bench.pod("late", &ranked("1", 5, json!({})));
    let (name, refused) = bench.decide().unwrap();
    assert_eq!(name, "late");
    assert!(refused.unwrap_err().starts_with("0/1 nodes are available: 1 Insufficient cpu."));
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    assert_eq!(bench.bound(), ["important"]);
}

#[tokio::test(start_paused = true)]
async fn preemption_has_its_limits() {
    let mut bench = Bench::new(&["n"]);
    bench.runs("same", "n", "2", 10);
    let refusal = |bench: &mut Bench| bench.decide().unwrap().1.unwrap_err();
    bench.pod("equal", &ranked("2", 10, json!({})));
    assert!(
        refusal(&mut bench).ends_with(
            "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        )
    );
    bench.pod("polite", &ranked("2", 20, json!({"preemptionPolicy": "Never"})));
    assert!(refusal(&mut bench).ends_with("preemption: not eligible due to preemptionPolicy=Never."));
    bench.pod("huge", &ranked("64", 20, json!({})));
    assert!(refusal(&mut bench).ends_with("1 Preemption is not helpful for scheduling."));
}

#[tokio::test(start_paused = true)]
async fn victims_that_still_leave_are_waited_for() {
    let mut bench = Bench::new(&["n"]);
    bench.runs("small", "n", "2", 0);
    bench.pod("important", &ranked("2", 10, json!({})));
    assert!(bench.preempt().is_some());
    let spec = ranked("2", 0, json!({"nodeName": "n"}));
    let mut leaving = raw_pod("small", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), spec);
    let preempted = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"});
    leaving.status = serde_json::from_value(json!({"conditions": [preempted]})).unwrap();
    bench.see(Observation::Pod(Seen::Changed(Arc::new(PodInfo::of(&leaving)))));
    tokio::time::advance(std::time::Duration::from_secs(400)).await;
    let (name, refused) = bench.decide().unwrap();
    assert_eq!(name, "important");
    assert!(refused.unwrap_err().ends_with("not eligible due to a terminating pod on the nominated node."));
    bench.delete("small");
    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    assert_eq!(bench.bound(), ["important"]);
}

#[tokio::test(start_paused = true)]
async fn a_victim_stuck_on_a_lost_node_is_not_waited_for() {
    let mut bench = Bench::new(&["n", "m"]);
    bench.runs("small", "n", "2", 0);
    bench.runs("firm", "m", "2", 20);
    bench.pod("important", &ranked("2", 10, json!({})));
    assert_eq!(bench.preempt(), Some(("n".to_owned(), vec!["small".to_owned()])));
    let preempted = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"});
    let spec = ranked("2", 0, json!({"nodeName": "n"}));
    let mut leaving = raw_pod("small", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), spec);
    leaving.status = serde_json::from_value(json!({"conditions": [preempted]})).unwrap();
    bench.see(Observation::Pod(Seen::Changed(Arc::new(PodInfo::of(&leaving)))));
    let mut lost = node("n", &json!({"cpu": "2", "memory": "4Gi", "pods": "110"}), &json!({}));
    let taint = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]);
    lost.spec.as_mut().unwrap().taints = serde_json::from_value(taint).unwrap();
    bench.see(Observation::Node(Seen::Changed(Box::new(lost))));
    bench.delete("firm");
    bench.runs("modest", "m", "2", 5);
    tokio::time::advance(std::time::Duration::from_secs(400)).await;
    assert_eq!(bench.preempt(), Some(("m".to_owned(), vec!["modest".to_owned()])));
}

#[tokio::test(start_paused = true)]
async fn budgets_are_kept_where_another_place_will_do() {
    let mut bench = Bench::new(&["n", "m"]);
    bench.runs("guarded", "n", "2", 0);
    bench.runs("free", "m", "2", 1);
    let budget = serde_json::from_value(json!({
        "metadata": {"namespace": "a", "name": "b"},
        "spec": {"selector": {"matchLabels": {"app": "guarded"}}},
        "status": {"disruptionsAllowed": 0},
    }))
    .unwrap();
    bench.see(Observation::Budget(Seen::Changed(Budget::of(&budget))));
    let labelled =
        raw_pod("guarded", json!({"labels": {"app": "guarded"}}), ranked("2", 0, json!({"nodeName": "n"})));
    bench.see(Observation::Pod(Seen::Changed(Arc::new(PodInfo::of(&labelled)))));
    bench.pod("important", &ranked("2", 10, json!({})));
    assert_eq!(bench.preempt(), Some(("m".to_owned(), vec!["free".to_owned()])));
}
