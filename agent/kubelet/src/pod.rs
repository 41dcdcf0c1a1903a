//! What the kubelet reads from a Pod, with upstream's defaults where the API server left a field out.
//!
//! In: `Pod`. Out: typed answers (kinds of containers, restart rules, grace periods). No I/O.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, EphemeralContainer, Pod};

/// `metadata.uid`: what a pod worker, its folder and its cgroup are named after.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid(pub String);

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Namespace, name and uid: enough to speak about a pod that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: PodUid,
}

impl PodRef {
    pub fn of(pod: &Pod) -> Self {
        Self { namespace: namespace(pod).to_owned(), name: name(pod).to_owned(), uid: uid(pod) }
    }
}

impl fmt::Display for PodRef {
    /// `name_namespace(uid)`, as upstream words pods in messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}({})", self.name, self.namespace, self.uid)
    }
}

/// The part a container plays in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerKind {
    /// Runs to its end before the next one starts.
    Init,
    /// Init container with `restartPolicy: Always`: starts in order, stays, stops last.
    Sidecar,
    Main,
    /// Added to a running pod for debugging: starts once, at any time, and counts for nothing.
    Ephemeral,
}

/// A container of the spec with its part.
#[derive(Clone, Copy, Debug)]
pub struct ContainerSpec<'a> {
    pub kind: ContainerKind,
    pub container: &'a Container,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

pub fn uid(pod: &Pod) -> PodUid {
    PodUid(pod.metadata.uid.clone().unwrap_or_default())
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Init containers and sidecars in order, then the main ones; without ephemeral ones.
pub fn containers(pod: &Pod) -> impl DoubleEndedIterator<Item = ContainerSpec<'_>> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let main = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    init.iter()
        .map(|container| {
            let sidecar = container.restart_policy.as_deref() == Some("Always");
            let kind = if sidecar { ContainerKind::Sidecar } else { ContainerKind::Init };
            ContainerSpec { kind, container }
        })
        .chain(main.iter().map(|container| ContainerSpec { kind: ContainerKind::Main, container }))
}

/// Ephemeral containers in the shape of all others.
pub fn ephemeral(pod: &Pod) -> Vec<Container> {
    pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten()).map(as_container).collect()
}

/// [`containers`], then those of [`ephemeral`].
pub fn with_ephemeral<'a>(
    pod: &'a Pod,
    ephemeral: &'a [Container],
) -> impl DoubleEndedIterator<Item = ContainerSpec<'a>> {
    let kind = ContainerKind::Ephemeral;
    containers(pod).chain(ephemeral.iter().map(move |container| ContainerSpec { kind, container }))
}

pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<ContainerSpec<'a>> {
    containers(pod).find(|c| c.container.name == name)
}

/// A container of any kind by its name.
pub fn find(pod: &Pod, name: &str) -> Option<Container> {
    let spec = container(pod, name).map(|s| s.container.clone());
    spec.or_else(|| ephemeral(pod).into_iter().find(|c| c.name == name))
}

/// The container whose processes an ephemeral container is to see.
pub fn target_of<'a>(pod: &'a Pod, ephemeral: &str) -> Option<&'a str> {
    let mut list = pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten());
    list.find(|c| c.name == ephemeral)?.target_container_name.as_deref().filter(|name| !name.is_empty())
}

/// Every field by name, so that a new one is not overlooked.
fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let e = ephemeral.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        lifecycle: e.lifecycle,
        liveness_probe: e.liveness_probe,
        name: e.name,
        ports: e.ports,
        readiness_probe: e.readiness_probe,
        resize_policy: e.resize_policy,
        resources: e.resources,
        restart_policy: e.restart_policy,
        restart_policy_rules: e.restart_policy_rules,
        security_context: e.security_context,
        startup_probe: e.startup_probe,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
    }
}

/// A container's own policy (`containers[].restartPolicy`) before the pod's.
pub fn restart_policy(pod: &Pod, spec: ContainerSpec<'_>) -> RestartPolicy {
    let pods = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    let policy = match spec.kind {
        ContainerKind::Sidecar => Some("Always"),
        ContainerKind::Ephemeral => Some("Never"),
        _ => spec.container.restart_policy.as_deref().or(pods),
    };
    match (policy, spec.kind) {
        (Some("Never"), _) => RestartPolicy::Never,
        (Some("OnFailure"), _) => RestartPolicy::OnFailure,
        // An init container that succeeded is done, whatever the pod's policy.
        (_, ContainerKind::Init) => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

/// Whether a container that ended with `code` is to run again: its own rules come before any policy.
pub fn restarts(pod: &Pod, spec: ContainerSpec<'_>, code: i32) -> bool {
    let rules = spec.container.restart_policy_rules.iter().flatten();
    if rules.filter(|rule| rule.action == "Restart").any(|rule| rule_matches(rule, code)) {
        return true;
    }
    match restart_policy(pod, spec) {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => code != 0,
        RestartPolicy::Never => false,
    }
}

fn rule_matches(rule: &ContainerRestartRule, code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else { return false };
    let listed = codes.values.iter().flatten().any(|value| *value == code);
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

/// A kubelet took it up, or it ends: its admission is not asked any more.
pub fn has_begun(pod: &Pod) -> bool {
    let started = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
    started || is_terminal(pod) || is_deleting(pod)
}

/// `status.phase` says that the pod will never run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Grace for stopping the pod: the deletion's, else the spec's; at least a second, so that even a forced deletion
/// lets a process see its signal.
pub fn grace_period(pod: &Pod) -> Duration {
    let asked = pod
        .metadata
        .deletion_grace_period_seconds
        .filter(|_| is_deleting(pod))
        .or_else(|| pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds))
        .unwrap_or(30);
    Duration::from_secs(u64::try_from(asked).unwrap_or(0).max(1))
}

/// Grace when a container is stopped while its pod stays.
pub fn container_grace_period(pod: &Pod, of_probe: Option<i64>) -> Duration {
    let seconds =
        of_probe.or_else(|| pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds)).unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
}

/// Fingerprint of what makes a running container outdated: its image, which is the one field of a container that may
/// change in place.
pub fn spec_hash(container: &Container) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in container.name.bytes().chain([0]).chain(container.image.as_deref().unwrap_or("").bytes()) {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn containers_come_in_starting_order_with_their_kind() {
        let pod = pod(json!({
            "initContainers": [{"name": "a"}, {"name": "b", "restartPolicy": "Always"}],
            "containers": [{"name": "c"}],
        }));
        let kinds: Vec<_> = containers(&pod).map(|c| (c.container.name.as_str(), c.kind)).collect();
        assert_eq!(
            kinds,
            [("a", ContainerKind::Init), ("b", ContainerKind::Sidecar), ("c", ContainerKind::Main)]
        );
    }

    #[test]
    fn restart_depends_on_policy_kind_and_exit_code() {
        // pod policy, container kind and own policy, code, restarts
        let cases = [
            ("Always", "main", None, 0, true),
            ("OnFailure", "main", None, 0, false),
            ("OnFailure", "main", None, 3, true),
            ("Never", "main", None, 3, false),
            ("Never", "main", Some("Always"), 0, true),
            ("Always", "init", None, 0, false),
            ("Always", "init", None, 1, true),
            ("Never", "init", None, 1, false),
            ("Never", "init", Some("Always"), 0, true),
        ];
        for (policy, list, own, code, expected) in cases {
            let mut c = json!({"name": "x"});
            if let Some(own) = own {
                c["restartPolicy"] = json!(own);
            }
            let spec = if list == "main" {
                json!({"restartPolicy": policy, "containers": [c]})
            } else {
                json!({"restartPolicy": policy, "initContainers": [c], "containers": []})
            };
            let pod = pod(spec);
            let spec = container(&pod, "x").unwrap();
            assert_eq!(restarts(&pod, spec, code), expected, "{policy} {list} {own:?} {code}");
        }
    }

    #[test]
    fn rules_for_exit_codes_come_before_the_policy() {
        let rule = |operator: &str| json!({"action": "Restart", "exitCodes": {"operator": operator, "values": [3, 42]}});
        for (rules, code, expected) in [
            (json!([rule("In")]), 42, true),
            (json!([rule("In")]), 1, false),
            (json!([rule("NotIn")]), 1, true),
            (json!([rule("NotIn")]), 3, false),
            (json!([rule("In"), rule("NotIn")]), 9, true),
            (json!([]), 42, false),
        ] {
            let container = json!({"name": "x", "restartPolicy": "Never", "restartPolicyRules": rules});
            let pod = pod(json!({"restartPolicy": "Never", "containers": [container]}));
            assert_eq!(restarts(&pod, container_of(&pod), code), expected, "{rules} {code}");
        }
    }

    fn container_of(pod: &Pod) -> ContainerSpec<'_> {
        container(pod, "x").unwrap()
    }
}
