//! The kubelet's four pod conditions.
//!
//! Pure. In: pod, observation, the status made so far, the previous status. Out: all conditions, foreign ones as they were.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Now, OWN_CONDITIONS};
use crate::machine::observed::{Observed, Stage};
use crate::pod::{self, ContainerKind};

struct Verdict {
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    const TRUE: Self = Self { status: true, reason: None, message: None };

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Self { status: false, reason: Some(reason), message }
    }
}

pub(super) fn generate(
    pod: &Pod,
    observed: &Observed,
    status: &PodStatus,
    previous: &PodStatus,
    now: Now,
) -> Vec<PodCondition> {
    let before = previous.conditions.as_deref().unwrap_or_default();
    let containers_ready = containers_ready(pod, status);
    let verdicts = [
        ("PodReadyToStartContainers", has_network(observed)),
        ("Initialized", initialized(pod, status)),
        ("Ready", ready(pod, before, &containers_ready)),
        ("ContainersReady", containers_ready),
    ];
    let mut conditions: Vec<PodCondition> = verdicts
        .into_iter()
        .map(|(type_, verdict)| condition(type_, verdict, before, pod.metadata.generation, now))
        .collect();
    let foreign = before.iter().filter(|c| !OWN_CONDITIONS.contains(&c.type_.as_str()));
    conditions.extend(foreign.cloned());
    if !conditions.iter().any(|c| c.type_ == "PodScheduled") {
        conditions.push(condition("PodScheduled", Verdict::TRUE, before, pod.metadata.generation, now));
    }
    conditions
}

fn condition(
    type_: &str,
    verdict: Verdict,
    before: &[PodCondition],
    generation: Option<i64>,
    now: Now,
) -> PodCondition {
    let status = if verdict.status { "True" } else { "False" };
    let since = before
        .iter()
        .find(|c| c.type_ == type_ && c.status == status)
        .and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_probe_time: None,
        last_transition_time: Some(since.unwrap_or(Time(now.wall))),
        observed_generation: generation,
    }
}

fn has_network(observed: &Observed) -> Verdict {
    let released = matches!(observed.stage, Stage::Terminated(_)) && observed.release.done().is_some();
    Verdict { status: observed.network.done().is_some() && !released, reason: None, message: None }
}

fn status_of<'a>(list: Option<&'a Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    list?.iter().find(|s| s.name == name)
}

fn initialized(pod: &Pod, status: &PodStatus) -> Verdict {
    if status.phase.as_deref() == Some("Succeeded") {
        return Verdict { status: true, reason: Some("PodCompleted"), message: None };
    }
    let began = status
        .container_statuses
        .iter()
        .flatten()
        .any(|s| s.started == Some(true) || s.state.as_ref().is_some_and(|s| s.running.is_some()));
    if began {
        return Verdict::TRUE;
    }
    let incomplete: Vec<&str> = pod::containers(pod)
        .filter(|c| c.kind != ContainerKind::Main)
        .filter(|c| {
            status_of(status.init_container_statuses.as_ref(), &c.container.name).is_none_or(|s| {
                match c.kind {
                    ContainerKind::Sidecar => s.started != Some(true),
                    _ => !s.ready,
                }
            })
        })
        .map(|c| c.container.name.as_str())
        .collect();
    if incomplete.is_empty() {
        return Verdict::TRUE;
    }
    Verdict::no("ContainersNotInitialized", Some(listed("containers with incomplete status", &incomplete)))
}

fn listed(what: &str, names: &[&str]) -> String {
    format!("{what}: [{}]", names.join(" "))
}

fn containers_ready(pod: &Pod, status: &PodStatus) -> Verdict {
    match status.phase.as_deref() {
        Some("Succeeded") => return Verdict::no("PodCompleted", None),
        Some("Failed") => return Verdict::no("PodFailed", None),
        _ => {}
    }
    let unready: Vec<&str> = pod::containers(pod)
        .filter(|c| c.kind != ContainerKind::Init)
        .filter(|c| {
            let list = match c.kind {
                ContainerKind::Main => &status.container_statuses,
                _ => &status.init_container_statuses,
            };
            !status_of(list.as_ref(), &c.container.name).is_some_and(|s| s.ready)
        })
        .map(|c| c.container.name.as_str())
        .collect();
    if unready.is_empty() {
        return Verdict::TRUE;
    }
    Verdict::no("ContainersNotReady", Some(listed("containers with unready status", &unready)))
}

fn ready(pod: &Pod, before: &[PodCondition], containers_ready: &Verdict) -> Verdict {
    if !containers_ready.status {
        return Verdict {
            status: false,
            reason: containers_ready.reason,
            message: containers_ready.message.clone(),
        };
    }
    let gates = pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten());
    let messages: Vec<String> = gates
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match before.iter().find(|c| c.type_ == *name) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate \"{name}\" does not exist."))
                }
                Some(c) if c.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                    c.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if messages.is_empty() {
        return Verdict::TRUE;
    }
    Verdict::no("ReadinessGatesNotReady", Some(messages.join(", ")))
}
