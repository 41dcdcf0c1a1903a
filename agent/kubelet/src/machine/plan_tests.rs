//! Tables of the machine: what it does next in each situation, and whole lives of pods played against it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::time::Instant;
use xebec_network::types::PodNetwork;
use xebec_runtime::types::{ContainerId, Image};

use super::plan;
use crate::machine::action::{Action, StopReason, TerminationReason};
use crate::machine::observed::{Exit, Observed, Run, RunState, Stage, StopStep, Work};
use crate::machine::outcome::{Outcome, StartFailure, Trouble, start_error};
use crate::pod;

fn make_pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": spec,
    }))
    .unwrap()
}

fn simple(policy: &str) -> Pod {
    make_pod(json!({"restartPolicy": policy, "containers": [{"name": "main"}]}))
}

fn image() -> Image {
    Image {
        id: "sha256:1".into(),
        names: vec![],
        repo_digest: "r@sha256:2".into(),
        size: 1,
        user: String::new(),
        entrypoint: vec![],
        cmd: vec![],
        env: vec![],
        working_dir: String::new(),
        stop_signal: None,
    }
}

fn run(attempt: u32, state: RunState) -> Run {
    Run {
        id: ContainerId(format!("id{attempt}")),
        attempt,
        image_id: String::new(),
        image_name: String::new(),
        spec_hash: String::new(),
        state,
    }
}

const RUNNING: RunState = RunState::Running { started_at: Timestamp::UNIX_EPOCH };

fn exited(code: i32, at: Instant) -> RunState {
    RunState::Exited(Exit {
        code,
        signal: None,
        started_at: None,
        finished_at: None,
        at,
        reason: "Error".into(),
        message: String::new(),
    })
}

/// A pod, its machine and a world where every action works at once.
struct Play {
    pod: Pod,
    observed: Observed,
    now: Instant,
    /// What was done, in short words.
    log: Vec<String>,
}

impl Play {
    fn new(pod: Pod) -> Self {
        let now = Instant::now();
        Self { pod, observed: Observed::new(Timestamp::UNIX_EPOCH, now), now, log: Vec::new() }
    }

    /// Plans and lets everything succeed until nothing is left to do; returns the time to wake.
    fn settle(&mut self) -> Option<Instant> {
        for _ in 0..100 {
            let mut wake = None;
            let mut acted = false;
            for action in plan(&self.pod, &self.observed, self.now) {
                if let Action::WakeAt(at) = action {
                    wake = Some(at);
                    continue;
                }
                acted = true;
                self.observed.begin(&action, self.now);
                self.log.push(short(&action));
                if let Some(outcome) = success(&action) {
                    self.observed.finish(outcome, self.now);
                }
            }
            if !acted {
                return wake;
            }
        }
        panic!("no rest: {:?}", self.log);
    }

    fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    fn exit(&mut self, container: &str, code: i32) {
        let seen = self.observed.container_mut(container);
        let attempt = seen.current().unwrap().attempt;
        assert!(seen.absorb(run(attempt, exited(code, self.now))));
        seen.settle_exit();
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn delete(&mut self, grace: i64) {
        self.pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
    }

    /// Seconds until the machine wants to look again.
    fn wake_in(&mut self) -> Option<u64> {
        let at = self.settle()?;
        Some((at - self.now).as_secs())
    }
}

fn short(action: &Action) -> String {
    match action {
        Action::Terminate(reason) => format!("terminate {reason:?}"),
        Action::MountVolumes => "volumes".into(),
        Action::AttachNetwork => "network".into(),
        Action::EnsureImage { container } => format!("image {container}"),
        Action::AbortPull { container } => format!("abort {container}"),
        Action::Start { container, attempt } => format!("start {container}/{attempt}"),
        Action::Stop { container, reason, grace } => {
            format!("stop {container} {reason:?} {}s", grace.as_secs())
        }
        Action::HurryStop { container, .. } => format!("hurry {container}"),
        Action::Drain => "drain".into(),
        Action::PreStop { container, .. } => format!("hook {container}"),
        Action::Signal { container, kill: false, .. } => format!("term {container}"),
        Action::Signal { container, kill: true, .. } => format!("kill {container}"),
        Action::Remove { container, attempt } => format!("remove {container}/{attempt}"),
        Action::Terminated => "terminated".into(),
        Action::Release => "release".into(),
        Action::DeleteFromApi => "delete".into(),
        Action::Forget => "forget".into(),
        Action::WakeAt(_) => "wake".into(),
    }
}

fn success(action: &Action) -> Option<Outcome> {
    Some(match action.clone() {
        Action::MountVolumes => Outcome::Volumes(Ok(())),
        Action::AttachNetwork => Outcome::Network(Ok(PodNetwork {
            addresses: vec!["10.1.0.5".parse().unwrap()],
            netns: None,
            ipcns: None,
            utsns: None,
        })),
        Action::EnsureImage { container } => Outcome::Image { container, result: Ok(image()) },
        Action::Start { container, attempt } => {
            Outcome::Started { container, attempt, result: Ok(run(attempt, RUNNING)) }
        }
        Action::Drain => Outcome::Drained,
        Action::PreStop { container, attempt, .. } => Outcome::PreStopEnded { container, attempt },
        Action::Signal { container, attempt, .. } => Outcome::Signalled { container, attempt, sent: true },
        Action::Remove { container, attempt } => Outcome::Removed { container, attempt, removed: true },
        Action::Release => Outcome::Released(Ok(())),
        Action::DeleteFromApi => Outcome::DeletedFromApi(Ok(())),
        Action::Forget => Outcome::Forgotten(Ok(())),
        _ => return None,
    })
}

#[test]
fn a_pod_is_placed_then_its_containers_start_one_after_the_other() {
    let mut play = Play::new(make_pod(json!({"containers": [{"name": "a"}, {"name": "b"}]})));
    assert_eq!(play.settle(), None);
    let expected = ["volumes", "network", "image a", "start a/0", "image b", "start b/0"];
    assert_eq!(play.take_log(), expected);
    assert_eq!(play.settle(), None, "nothing is left to do");
    assert!(play.log.is_empty());
}

#[test]
fn nothing_starts_before_volumes_and_network() {
    let pod = simple("Always");
    let now = Instant::now();
    let mut observed = Observed::new(Timestamp::UNIX_EPOCH, now);
    observed.container_mut("main").image = Work::Done(image());
    observed.volumes = Work::Done(());
    observed.network = Work::Doing;
    assert_eq!(plan(&pod, &observed, now), []);
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let mut play = Play::new(make_pod(json!({
        "initContainers": [
            {"name": "i1"}, {"name": "side", "restartPolicy": "Always"}, {"name": "i2"}],
        "containers": [{"name": "main"}],
    })));
    play.settle();
    assert_eq!(play.take_log(), ["volumes", "network", "image i1", "start i1/0"]);
    play.exit("i1", 0);
    play.settle();
    assert_eq!(play.take_log(), ["image side", "start side/0", "image i2", "start i2/0"]);
    play.exit("side", 1);
    play.settle();
    assert_eq!(play.take_log(), ["image side", "start side/1"], "it comes back while i2 still runs");
    play.exit("i2", 0);
    play.settle();
    assert_eq!(play.take_log(), ["image main", "start main/0"]);
    play.settle();
    assert!(play.log.is_empty(), "what is done stays done");
}

#[test]
fn a_sidecar_with_a_startup_probe_holds_the_others_back() {
    let mut play = Play::new(make_pod(json!({
        "initContainers": [{"name": "side", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}}],
        "containers": [{"name": "main"}],
    })));
    play.settle();
    assert_eq!(play.take_log(), ["volumes", "network", "image side", "start side/0"]);
    play.observed.container_mut("side").probes.startup = Some(true);
    play.settle();
    assert_eq!(play.take_log(), ["image main", "start main/0"]);
}

#[test]
fn restarts_wait_ten_seconds_doubling_and_old_runs_are_removed() {
    let mut play = Play::new(simple("Always"));
    play.settle();
    play.take_log();
    let mut waits = Vec::new();
    for _ in 0..4 {
        play.exit("main", 1);
        let wait = play.wake_in().unwrap_or(0);
        waits.push(wait);
        play.pass(wait);
        play.settle();
    }
    // The first wake-up after a failure is for the status; it ends before the backoff does.
    assert_eq!(waits, [0, 10, 20, 40]);
    let log = play.take_log();
    let starts: Vec<_> = log.iter().filter(|l| l.starts_with("start")).cloned().collect();
    assert_eq!(starts, ["start main/1", "start main/2", "start main/3", "start main/4"]);
    let removals: Vec<_> = log.iter().filter(|l| l.starts_with("remove")).cloned().collect();
    assert_eq!(removals, ["remove main/0", "remove main/1", "remove main/2"]);
}

#[test]
fn a_pod_ends_when_no_container_is_to_run_again() {
    // policy, exit code, ends
    let cases = [
        ("Never", 0, true),
        ("Never", 1, true),
        ("OnFailure", 0, true),
        ("OnFailure", 1, false),
        ("Always", 0, false),
    ];
    for (policy, code, ends) in cases {
        let mut play = Play::new(simple(policy));
        play.settle();
        play.exit("main", code);
        play.take_log();
        play.settle();
        let log = play.take_log();
        if ends {
            assert_eq!(log, ["terminate Completed", "terminated", "release"], "{policy} {code}");
        } else {
            assert_eq!(log, ["image main", "start main/1"], "{policy} {code}");
        }
    }
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let mut play = Play::new(make_pod(json!({
        "restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "main"}]})));
    play.settle();
    play.exit("i", 3);
    play.take_log();
    play.settle();
    assert_eq!(play.take_log(), ["terminate Completed", "terminated", "release"]);
}

#[test]
fn a_deleted_pod_stops_with_grace_then_everything_goes_in_order() {
    let mut play = Play::new(make_pod(json!({
        "containers": [{"name": "main", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}]})));
    play.settle();
    play.take_log();
    play.delete(5);
    assert_eq!(play.wake_in(), Some(5));
    assert_eq!(
        play.take_log(),
        ["terminate Deleted", "stop main PodEnds 5s", "drain", "hook main", "term main"]
    );
    play.pass(5);
    assert_eq!(play.wake_in(), Some(10));
    assert_eq!(play.take_log(), ["kill main"]);
    play.pass(10);
    play.settle();
    assert_eq!(play.take_log(), ["kill main"], "a kill that shows no effect is repeated");
    play.exit("main", 137);
    play.settle();
    assert_eq!(play.take_log(), ["terminated", "release", "delete"]);
    play.observed.gone = true;
    play.settle();
    assert_eq!(play.take_log(), ["forget"]);
}

#[test]
fn services_turn_away_before_the_signal_and_hooks_do_not_wait_for_it() {
    let mut play = Play::new(make_pod(json!({"containers": [
        {"name": "a"}, {"name": "b", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}]})));
    play.settle();
    play.take_log();
    play.delete(30);
    play.observed.drain = Work::Doing;
    play.settle();
    assert_eq!(play.take_log(), ["terminate Deleted", "stop a PodEnds 30s", "stop b PodEnds 30s", "hook b"]);
    play.observed.finish(Outcome::Drained, play.now);
    play.settle();
    assert_eq!(play.take_log(), ["term a", "term b"]);
}

#[test]
fn a_forced_deletion_does_not_wait_for_services() {
    let mut play = Play::new(simple("Always"));
    play.settle();
    play.take_log();
    play.delete(0);
    play.settle();
    assert_eq!(play.take_log(), ["terminate Deleted", "stop main PodEnds 1s", "term main"]);
}

#[test]
fn a_shorter_grace_hurries_a_stop_that_is_under_way() {
    let mut play = Play::new(simple("Always"));
    play.settle();
    play.delete(30);
    play.settle();
    play.take_log();
    play.pass(2);
    play.delete(0);
    assert_eq!(play.wake_in(), Some(1), "a forced deletion leaves a second");
    assert_eq!(play.take_log(), ["hurry main"]);
    play.pass(1);
    play.settle();
    assert_eq!(play.take_log(), ["kill main"]);
}

#[test]
fn sidecars_stop_after_the_others_last_one_first() {
    let mut play = Play::new(make_pod(json!({
        "initContainers": [
            {"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"}],
        "containers": [{"name": "main"}]})));
    play.settle();
    play.take_log();
    play.delete(30);
    play.settle();
    assert_eq!(play.take_log(), ["terminate Deleted", "stop main PodEnds 30s", "drain", "term main"]);
    play.pass(20);
    play.exit("main", 0);
    play.settle();
    assert_eq!(play.take_log(), ["stop s2 PodEnds 10s", "term s2"], "all share one grace");
    play.pass(9);
    play.exit("s2", 0);
    play.settle();
    assert_eq!(play.take_log(), ["stop s1 PodEnds 2s", "term s1"], "and a little is left to each");
    play.exit("s1", 0);
    play.settle();
    assert_eq!(play.take_log(), ["terminated", "release", "delete"]);
}

#[test]
fn a_pod_gone_from_the_api_is_stopped_and_forgotten_without_deleting() {
    let mut play = Play::new(simple("Always"));
    play.settle();
    play.take_log();
    play.observed.gone = true;
    play.settle();
    assert_eq!(play.take_log(), ["terminate Gone", "stop main PodEnds 30s", "term main"]);
    play.exit("main", 0);
    play.settle();
    assert_eq!(play.take_log(), ["terminated", "release", "forget"]);
}

#[test]
fn a_pod_deleted_while_it_pulls_ends_at_once() {
    let pod = simple("Always");
    let mut play = Play::new(pod);
    play.observed.volumes = Work::Done(());
    play.observed.network = success(&Action::AttachNetwork)
        .map(|outcome| match outcome {
            Outcome::Network(Ok(network)) => Work::Done(network),
            _ => Work::Todo,
        })
        .unwrap();
    play.observed.container_mut("main").image = Work::Doing;
    play.delete(30);
    play.settle();
    assert_eq!(play.take_log(), ["terminate Deleted", "abort main", "terminated", "release", "delete"]);
}

#[test]
fn failed_probes_restart_their_container_with_their_own_grace() {
    let probe = |grace: i64| json!({"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": grace});
    let mut play = Play::new(make_pod(json!({"containers": [
        {"name": "a", "livenessProbe": probe(7)}, {"name": "b", "startupProbe": probe(3)}]})));
    play.settle();
    play.take_log();
    play.observed.container_mut("a").probes.liveness = Some(false);
    play.observed.container_mut("b").probes.startup = Some(false);
    play.settle();
    let log = play.take_log();
    assert_eq!(log, ["stop a LivenessFailed 7s", "stop b StartupFailed 3s", "term a", "term b"]);
    play.exit("a", 143);
    play.settle();
    assert_eq!(play.take_log(), ["image a", "start a/1"]);
}

#[test]
fn a_changed_image_restarts_its_container() {
    let mut play = Play::new(make_pod(json!({"containers": [{"name": "main", "image": "x:1"}]})));
    play.settle();
    let hash = pod::spec_hash(&play.pod.spec.as_ref().unwrap().containers[0]);
    play.observed.container_mut("main").runs.get_mut(&0).unwrap().spec_hash = hash;
    play.take_log();
    play.settle();
    assert!(play.log.is_empty());
    play.pod.spec.as_mut().unwrap().containers[0].image = Some("x:2".into());
    play.settle();
    assert_eq!(play.take_log(), ["stop main SpecChanged 30s", "term main"]);
}

#[test]
fn a_deadline_ends_the_pod() {
    let mut play =
        Play::new(make_pod(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "main"}]})));
    assert_eq!(play.wake_in(), Some(60));
    play.pass(60);
    play.settle();
    assert_eq!(play.observed.stage, Stage::Terminating(TerminationReason::DeadlineExceeded));
}

#[test]
fn an_image_that_cannot_be_pulled_is_tried_again_later_and_others_go_on() {
    let mut play = Play::new(make_pod(json!({"containers": [{"name": "a"}, {"name": "b"}]})));
    play.observed.begin(&Action::EnsureImage { container: "a".into() }, play.now);
    let result = Err(Trouble::new("ErrImagePull", "no"));
    play.observed.finish(Outcome::Image { container: "a".into(), result }, play.now);
    assert_eq!(play.wake_in(), Some(1), "to say that it is backed off");
    assert_eq!(play.take_log(), ["volumes", "network", "image b", "start b/0"]);
    play.pass(1);
    assert_eq!(play.wake_in(), Some(9));
    play.pass(9);
    play.settle();
    assert_eq!(play.take_log(), ["image a", "start a/0"]);
}

#[test]
fn missing_configuration_is_tried_again_as_soon_as_it_changes() {
    let mut play = Play::new(simple("Always"));
    play.observed.container_mut("main").starting = Some(0);
    let trouble = Trouble { heals_by_change: true, ..Trouble::new("CreateContainerConfigError", "no cm") };
    let result = Err(StartFailure::NotMade(trouble));
    play.observed.finish(Outcome::Started { container: "main".into(), attempt: 0, result }, play.now);
    play.settle();
    assert_eq!(play.take_log(), ["volumes", "network"], "held back");
    play.observed.objects_changed(play.now);
    play.settle();
    assert_eq!(play.take_log(), ["image main", "start main/0"], "the same attempt");
}

#[test]
fn a_container_that_cannot_start_counts_as_a_run_and_backs_off() {
    let mut play = Play::new(simple("Always"));
    play.settle();
    play.exit("main", 1);
    for action in plan(&play.pod, &play.observed, play.now) {
        play.observed.begin(&action, play.now);
        if let Some(outcome) = success(&action) {
            play.observed.finish(outcome, play.now);
        }
    }
    play.observed.begin(&Action::Start { container: "main".into(), attempt: 1 }, play.now);
    let run = run(1, start_error("no such file", Timestamp::UNIX_EPOCH, play.now));
    let result =
        Err(StartFailure::NotStarted { run, trouble: Trouble::new("RunContainerError", "no such file") });
    play.observed.finish(Outcome::Started { container: "main".into(), attempt: 1, result }, play.now);
    play.take_log();
    assert_eq!(play.wake_in(), Some(1));
    play.pass(1);
    assert_eq!(play.wake_in(), Some(9));
    assert_eq!(play.observed.container("main").unwrap().restart_count(), 1);
}

#[test]
fn a_signal_that_was_not_sent_is_followed_by_a_kill_in_a_second() {
    let mut play = Play::new(simple("Always"));
    play.settle();
    play.delete(30);
    let container = "main".to_owned();
    for action in [
        Action::Terminate(TerminationReason::Deleted),
        Action::Stop {
            container: container.clone(),
            reason: StopReason::PodEnds,
            grace: Duration::from_secs(30),
        },
        Action::Signal { container: container.clone(), attempt: 0, kill: false },
    ] {
        play.observed.begin(&action, play.now);
    }
    play.observed.finish(Outcome::Signalled { container, attempt: 0, sent: false }, play.now);
    assert_eq!(play.wake_in(), Some(1));
    play.pass(1);
    play.take_log();
    play.settle();
    assert_eq!(play.take_log(), ["kill main"]);
}

#[test]
fn an_adopted_stop_does_not_run_its_hook_twice() {
    let mut play = Play::new(make_pod(json!({
        "containers": [{"name": "main", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}]})));
    play.settle();
    play.delete(30);
    play.settle();
    if let Some(stop) = &mut play.observed.container_mut("main").stop {
        stop.step = StopStep::ReadyToSignal;
    }
    play.take_log();
    play.settle();
    assert_eq!(play.take_log(), ["term main"]);
}

#[test]
fn failed_releases_are_tried_again_and_block_the_deletion() {
    let mut play = Play::new(simple("Never"));
    play.settle();
    play.delete(1);
    play.settle();
    play.exit("main", 0);
    play.observed.stage = Stage::Terminated(TerminationReason::Deleted);
    play.observed.finish(Outcome::Released(Err(Trouble::new("FailedKillPod", "busy"))), play.now);
    play.take_log();
    assert!(play.settle().is_some());
    assert!(play.log.is_empty());
    play.pass(1);
    play.settle();
    assert_eq!(play.take_log(), ["release", "delete"]);
}

#[test]
fn an_ephemeral_container_waits_for_no_init_container_and_never_starts_twice() {
    let mut play = Play::new(make_pod(json!({
        "initContainers": [{"name": "init"}], "containers": [{"name": "main"}],
        "ephemeralContainers": [{"name": "debug"}]})));
    play.settle();
    assert_eq!(
        play.take_log(),
        ["volumes", "network", "image init", "image debug", "start init/0", "start debug/0"]
    );
    play.exit("debug", 3);
    play.pass(600);
    play.settle();
    assert!(play.take_log().is_empty());
    play.delete(30);
    play.settle();
    assert_eq!(play.take_log(), ["terminate Deleted", "stop init PodEnds 30s", "drain", "term init"]);
}
