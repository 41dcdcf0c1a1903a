//! The baseline: nothing by which a pod is known to take over its node.
//!
//! In: a pod, the minor version of the policy. Out: the rules it breaks.

use serde_json::Value;

use super::Violation;
use super::pod::{Pod, quoted, security, subject};
use crate::meta;

pub(super) const CAPABILITIES: &str = "non-default capabilities";
pub(super) const HOST_PATH: &str = "hostPath volumes";

const FREE_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Kernel parameters of a pod's own namespaces, and the policy version that frees them.
const FREE_SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
const SELINUX_TYPES: &[&str] =
    &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

pub(super) fn check(pod: &Pod<'_>, minor: u32, found: &mut Vec<Violation>) {
    let mut tell = |reason: &'static str, detail: Option<String>| {
        found.extend(detail.map(|detail| Violation { reason, detail }));
    };
    tell("forbidden AppArmor profile", app_armor(pod));
    tell(CAPABILITIES, capabilities(pod));
    tell("host namespaces", host_namespaces(pod));
    tell(HOST_PATH, host_path(pod));
    tell("hostPort", host_port(pod));
    if minor >= 34 {
        tell("probe or lifecycle host", probe_host(pod));
    }
    tell(
        "privileged",
        pod.those(|container| security(container, &["privileged"]) == Some(&Value::Bool(true)))
            .map(|those| format!("{those} must not set securityContext.privileged=true")),
    );
    tell("procMount", proc_mount(pod, minor));
    tell("seccompProfile", seccomp(pod));
    tell("seLinuxOptions", se_linux(pod));
    tell("forbidden sysctls", sysctls(pod, minor));
    tell("hostProcess", host_process(pod));
}

fn app_armor(pod: &Pod<'_>) -> Option<String> {
    const FREE: &[&str] = &["RuntimeDefault", "Localhost"];
    let bad = |kind: Option<&Value>| kind.and_then(Value::as_str).is_some_and(|kind| !FREE.contains(&kind));
    if bad(pod.security(&["appArmorProfile", "type"])) {
        return Some("pod must not set AppArmor profile type to \"Unconfined\"".into());
    }
    if let Some(those) = pod.those(|container| bad(security(container, &["appArmorProfile", "type"]))) {
        return Some(format!("{those} must not set AppArmor profile type to \"Unconfined\""));
    }
    let annotations = meta::at(pod.metadata, &["annotations"]).and_then(Value::as_object);
    let forbidden: Vec<String> = annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
        .filter(|(_, value)| {
            let value = value.as_str().unwrap_or_default();
            !(value.is_empty() || value == "runtime/default" || value.starts_with("localhost/"))
        })
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    (!forbidden.is_empty()).then(|| forbidden.join(", "))
}

fn capabilities(pod: &Pod<'_>) -> Option<String> {
    let added = |container: &Value| -> Vec<String> {
        let list = security(container, &["capabilities", "add"]).and_then(Value::as_array);
        let names = list.into_iter().flatten().filter_map(Value::as_str);
        names.filter(|name| !FREE_CAPABILITIES.contains(name)).map(ToOwned::to_owned).collect()
    };
    let all: Vec<String> = pod.containers().flat_map(added).collect();
    let those = pod.those(|container| !added(container).is_empty())?;
    Some(format!(
        "{those} must not include {} in securityContext.capabilities.add",
        quoted(all.iter().map(String::as_str))
    ))
}

fn host_namespaces(pod: &Pod<'_>) -> Option<String> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| meta::at(pod.spec, &[field]) == Some(&Value::Bool(true)))
        .map(|field| format!("{field}=true"))
        .collect();
    (!shared.is_empty()).then(|| shared.join(", "))
}

fn host_path(pod: &Pod<'_>) -> Option<String> {
    let names: Vec<&str> = meta::items(pod.spec, &["volumes"])
        .filter(|volume| meta::at(volume, &["hostPath"]).is_some())
        .map(|volume| meta::text(volume, &["name"]))
        .collect();
    (!names.is_empty()).then(|| subject("volume", &names))
}

fn host_port(pod: &Pod<'_>) -> Option<String> {
    let ports = |container: &Value| -> Vec<i64> {
        let ports = meta::items(container, &["ports"]);
        ports.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0).collect()
    };
    let mut all: Vec<i64> = pod.containers().flat_map(ports).collect();
    all.sort_unstable();
    all.dedup();
    let those = pod.those(|container| !ports(container).is_empty())?;
    let (noun, list): (_, Vec<String>) = (
        if all.len() == 1 { "hostPort" } else { "hostPorts" },
        all.iter().map(ToString::to_string).collect(),
    );
    Some(format!("{those} uses {noun} {}", list.join(", ")))
}

fn probe_host(pod: &Pod<'_>) -> Option<String> {
    let has_host = |container: &Value| {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].into_iter();
        let handlers = probes
            .map(|probe| &container[probe])
            .chain(["preStop", "postStart"].into_iter().map(|hook| &container["lifecycle"][hook]));
        handlers.into_iter().any(|handler| {
            ["httpGet", "tcpSocket"]
                .into_iter()
                .any(|action| !meta::text(handler, &[action, "host"]).is_empty())
        })
    };
    pod.those(has_host)
        .map(|those| format!("{those} must not set the host field of probes or lifecycle hooks"))
}

fn proc_mount(pod: &Pod<'_>, minor: u32) -> Option<String> {
    if minor >= 35 && pod.has_user_namespace() {
        return None;
    }
    let other = |container: &Value| {
        security(container, &["procMount"])
            .and_then(Value::as_str)
            .is_some_and(|mount| !mount.is_empty() && mount != "Default")
    };
    pod.those(other).map(|those| format!("{those} must not set securityContext.procMount to \"Unmasked\""))
}

fn seccomp(pod: &Pod<'_>) -> Option<String> {
    let bad = |kind: Option<&Value>| kind.and_then(Value::as_str) == Some("Unconfined");
    let mut setters = Vec::new();
    if bad(pod.security(&["seccompProfile", "type"])) {
        setters.push("pod".to_owned());
    }
    setters.extend(pod.those(|container| bad(security(container, &["seccompProfile", "type"]))));
    (!setters.is_empty()).then(|| {
        format!(
            "{} must not set securityContext.seccompProfile.type to \"Unconfined\"",
            setters.join(" and ")
        )
    })
}

fn se_linux(pod: &Pod<'_>) -> Option<String> {
    let bad = |options: Option<&Value>| {
        options.is_some_and(|options| {
            !SELINUX_TYPES.contains(&meta::text(options, &["type"]))
                || !meta::text(options, &["user"]).is_empty()
                || !meta::text(options, &["role"]).is_empty()
        })
    };
    let mut setters = Vec::new();
    if bad(pod.security(&["seLinuxOptions"])) {
        setters.push("pod".to_owned());
    }
    setters.extend(pod.those(|container| bad(security(container, &["seLinuxOptions"]))));
    (!setters.is_empty())
        .then(|| format!("{} set forbidden securityContext.seLinuxOptions", setters.join(" and ")))
}

fn sysctls(pod: &Pod<'_>, minor: u32) -> Option<String> {
    let set = pod.security(&["sysctls"]).and_then(Value::as_array);
    let names: Vec<&str> = set
        .into_iter()
        .flatten()
        .map(|sysctl| meta::text(sysctl, &["name"]))
        .filter(|name| !FREE_SYSCTLS.iter().any(|(free, since)| free == name && minor >= *since))
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn host_process(pod: &Pod<'_>) -> Option<String> {
    let is_true = |value: Option<&Value>| value == Some(&Value::Bool(true));
    let mut setters = Vec::new();
    if is_true(pod.security(&["windowsOptions", "hostProcess"])) {
        setters.push("pod".to_owned());
    }
    setters.extend(pod.those(|container| is_true(security(container, &["windowsOptions", "hostProcess"]))));
    (!setters.is_empty()).then(|| {
        format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.join(" and "))
    })
}
