//! Statuses in typical situations, worded as upstream words them.

use std::time::Duration;

use k8s_openapi::api::core::v1::ContainerStatus;
use serde_json::{Value, json};
use xebec_network::types::PodNetwork;
use xebec_runtime::types::ContainerId;

use super::*;
use crate::machine::backoff::Backoff;
use crate::machine::observed::{Exit, Failure, Run, RunState, Work};

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 2},
        "spec": spec,
    }))
    .unwrap()
}

fn now() -> Now {
    Now { wall: Timestamp::from_second(1_700_000_000).unwrap(), mono: Instant::now() }
}

fn observed(now: Now) -> Observed {
    let mut observed = Observed::new(now.wall, now.mono);
    observed.network = Work::Done(PodNetwork {
        addresses: vec!["10.1.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
        netns: None,
        ipcns: None,
        utsns: None,
    });
    observed.volumes = Work::Done(());
    observed
}

fn add_run(observed: &mut Observed, name: &str, attempt: u32, state: RunState) {
    observed.container_mut(name).absorb(Run {
        id: ContainerId(format!("{name}{attempt}")),
        attempt,
        image_id: "repo@sha256:1".into(),
        image_name: "docker.io/library/x:1".into(),
        spec_hash: String::new(),
        state,
    });
}

fn running(now: Now) -> RunState {
    RunState::Running { started_at: now.wall }
}

fn exited(code: i32, reason: &str, now: Now) -> RunState {
    RunState::Exited(Exit {
        code,
        signal: None,
        started_at: Some(now.wall),
        finished_at: Some(now.wall),
        at: now.mono,
        reason: reason.into(),
        message: "bye".into(),
    })
}

fn status(pod: &Pod, observed: &Observed, previous: &PodStatus, now: Now) -> PodStatus {
    let context = StatusContext {
        node_addresses: vec!["192.0.2.1".parse().unwrap()],
        crash_backoff: BackoffPolicy::CRASH,
    };
    generate(pod, observed, previous, &context, now)
}

fn fresh(pod: &Pod, observed: &Observed, now: Now) -> PodStatus {
    status(pod, observed, &PodStatus::default(), now)
}

fn condition(status: &PodStatus, type_: &str) -> (String, String, String) {
    let list = status.conditions.as_ref().unwrap();
    let c = list.iter().find(|c| c.type_ == type_).unwrap();
    (c.status.clone(), c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default())
}

fn main_status(status: &PodStatus) -> &ContainerStatus {
    &status.container_statuses.as_ref().unwrap()[0]
}

fn waiting(status: &ContainerStatus) -> (String, String) {
    let waiting = status.state.as_ref().unwrap().waiting.as_ref().unwrap();
    (waiting.reason.clone().unwrap_or_default(), waiting.message.clone().unwrap_or_default())
}

fn triple(a: &str, b: &str, c: &str) -> (String, String, String) {
    (a.to_owned(), b.to_owned(), c.to_owned())
}

#[test]
fn a_new_pod_waits_for_its_containers() {
    let now = now();
    let plain = pod(json!({"containers": [{"name": "c", "image": "x:1"}]}));
    let status = fresh(&plain, &Observed::new(now.wall, now.mono), now);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(main_status(&status)).0, "ContainerCreating");
    assert_eq!(condition(&status, "PodReadyToStartContainers").0, "False");
    assert_eq!(condition(&status, "Initialized").0, "True");
    let unready = triple("False", "ContainersNotReady", "containers with unready status: [c]");
    assert_eq!(condition(&status, "Ready"), unready);
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(status.observed_generation, Some(2));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));

    let with_init = pod(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}));
    let status = fresh(&with_init, &observed(now), now);
    assert_eq!(waiting(main_status(&status)).0, "PodInitializing");
    let incomplete = triple("False", "ContainersNotInitialized", "containers with incomplete status: [i]");
    assert_eq!(condition(&status, "Initialized"), incomplete);
    assert_eq!(condition(&status, "PodReadyToStartContainers").0, "True");
}

#[test]
fn a_running_pod_is_ready_when_its_containers_are() {
    let now = now();
    let pod = pod(json!({"containers": [{"name": "c", "readinessProbe": {"tcpSocket": {"port": 1}}}]}));
    let mut observed = observed(now);
    add_run(&mut observed, "c", 0, running(now));
    let status = fresh(&pod, &observed, now);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&status, "Ready").0, "False");
    assert_eq!(main_status(&status).started, Some(true));
    observed.container_mut("c").probes.readiness = Some(true);
    let status = fresh(&pod, &observed, now);
    assert_eq!(condition(&status, "Ready").0, "True");
    let c = main_status(&status);
    assert!(c.ready);
    assert_eq!(c.container_id.as_deref(), Some("containerd://c0"));
    assert_eq!((c.image.as_str(), c.image_id.as_str()), ("docker.io/library/x:1", "repo@sha256:1"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.1.0.5"));
    assert_eq!(status.pod_ips.as_ref().unwrap()[1].ip, "fd00::5");
}

#[test]
fn readiness_gates_are_asked_last() {
    let now = now();
    let pod =
        pod(json!({"readinessGates": [{"conditionType": "example.com/g"}], "containers": [{"name": "c"}]}));
    let mut observed = observed(now);
    add_run(&mut observed, "c", 0, running(now));
    let status = fresh(&pod, &observed, now);
    assert_eq!(condition(&status, "ContainersReady").0, "True");
    let missing = "corresponding condition of pod readiness gate \"example.com/g\" does not exist.";
    assert_eq!(condition(&status, "Ready"), triple("False", "ReadinessGatesNotReady", missing));
}

#[test]
fn transition_times_and_foreign_conditions_stay() {
    let before = now();
    let pod = pod(json!({"containers": [{"name": "c"}]}));
    let mut observed = observed(before);
    add_run(&mut observed, "c", 0, running(before));
    let mut first = fresh(&pod, &observed, before);
    let foreign: PodCondition =
        serde_json::from_value(json!({"type": "DisruptionTarget", "status": "True"})).unwrap();
    first.conditions.as_mut().unwrap().push(foreign);
    let later = Now { wall: before.wall + jiff::SignedDuration::from_secs(60), ..before };
    assert_eq!(status(&pod, &observed, &first, later), first);
}

#[test]
fn a_crashing_container_says_how_long_it_waits_and_how_it_ended() {
    let now = now();
    let pod = pod(json!({"containers": [{"name": "c"}]}));
    let mut observed = observed(now);
    add_run(&mut observed, "c", 3, exited(137, "OOMKilled", now));
    let seen = observed.container_mut("c");
    seen.backoff = Backoff::restore(Duration::from_secs(80), now.mono);
    let status = fresh(&pod, &observed, now);
    let c = main_status(&status);
    let message = "back-off 1m20s restarting failed container=c pod=p_n(u)";
    assert_eq!(waiting(c), ("CrashLoopBackOff".to_owned(), message.to_owned()));
    let last = c.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("OOMKilled")));
    assert_eq!(last.message.as_deref(), Some("bye"));
    assert_eq!(c.restart_count, 3);
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[test]
fn image_failures_turn_from_error_to_backoff() {
    let now = now();
    let pod = pod(json!({"containers": [{"name": "c", "image": "x:1"}]}));
    let mut observed = observed(now);
    observed.container_mut("c").image = Work::Failed(Failure {
        reason: "ErrImagePull",
        message: "not found".into(),
        at: now.mono,
        retry_at: now.mono + Duration::from_secs(10),
        heals_by_change: false,
    });
    let status = fresh(&pod, &observed, now);
    assert_eq!(waiting(main_status(&status)), ("ErrImagePull".into(), "not found".into()));
    let later = Now { mono: now.mono + Duration::from_secs(1), ..now };
    let status = fresh(&pod, &observed, later);
    let message = "Back-off pulling image \"x:1\": ErrImagePull: not found";
    assert_eq!(waiting(main_status(&status)), ("ImagePullBackOff".into(), message.into()));
    assert_eq!(status.phase.as_deref(), Some("Pending"));
}

#[test]
fn phases_follow_policy_and_exit_codes() {
    // policy, exit codes of two containers (None = runs), stage ended, phase
    let cases = [
        ("Always", [Some(0), Some(0)], false, "Running"),
        ("OnFailure", [Some(0), Some(0)], false, "Succeeded"),
        ("OnFailure", [Some(0), Some(1)], false, "Running"),
        ("Never", [Some(0), Some(1)], false, "Failed"),
        ("Never", [Some(0), None], false, "Running"),
        ("Always", [Some(0), Some(0)], true, "Succeeded"),
        ("Always", [Some(0), Some(143)], true, "Failed"),
    ];
    for (policy, codes, ended, expected) in cases {
        let now = now();
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}));
        let mut observed = observed(now);
        for (name, code) in ["a", "b"].into_iter().zip(codes) {
            let state = code.map_or(running(now), |code| exited(code, "Error", now));
            add_run(&mut observed, name, 0, state);
        }
        if ended {
            observed.stage = Stage::Terminated(TerminationReason::Deleted);
        }
        let status = fresh(&pod, &observed, now);
        assert_eq!(status.phase.as_deref(), Some(expected), "{policy} {codes:?} {ended}");
    }
}

#[test]
fn a_pod_that_ends_before_it_ran_has_all_containers_terminated() {
    let now = now();
    let pod = pod(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}));
    let mut observed = observed(now);
    observed.stage = Stage::Terminated(TerminationReason::Deleted);
    let status = fresh(&pod, &observed, now);
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let ended = main_status(&status).state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    assert_eq!(condition(&status, "Ready").1, "PodFailed");
}

#[test]
fn a_terminal_phase_stays_although_all_records_are_gone() {
    let now = now();
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "c"}]}));
    let mut seen = observed(now);
    add_run(&mut seen, "c", 0, exited(0, "Completed", now));
    seen.stage = Stage::Terminated(TerminationReason::Completed);
    let first = fresh(&pod, &seen, now);
    assert_eq!(first.phase.as_deref(), Some("Succeeded"));
    assert_eq!(condition(&first, "Initialized"), triple("True", "PodCompleted", ""));
    let mut adopted = Observed::new(now.wall, now.mono);
    adopted.stage = Stage::Terminating(TerminationReason::Completed);
    let again = status(&pod, &adopted, &first, now);
    assert_eq!(again.phase, first.phase);
    assert_eq!(again.container_statuses, first.container_statuses);
    assert_eq!(again.pod_ip, first.pod_ip);
}

#[test]
fn a_deadline_is_told_as_reason() {
    let now = now();
    let pod = pod(json!({"activeDeadlineSeconds": 1, "containers": [{"name": "c"}]}));
    let mut observed = observed(now);
    observed.stage = Stage::Terminating(TerminationReason::DeadlineExceeded);
    let status = fresh(&pod, &observed, now);
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
}
