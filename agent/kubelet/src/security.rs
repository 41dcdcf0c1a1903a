//! Security settings of a container: its own before its pod's.
//!
//! Pure. In: Pod, Container. Out: [`Security`], or the sentence why the container must not start.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};
use xebec_runtime::types::{Image, Seccomp, Security};

/// Sysctls that touch nothing outside their pod; all others are refused.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

pub fn of_container(pod: &Pod, container: &Container) -> Result<Security, String> {
    let pods = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let mut groups = pods.supplemental_groups.unwrap_or_default();
    groups.extend(pods.fs_group);
    groups.sort_unstable();
    groups.dedup();
    let privileged = own.privileged.unwrap_or(false);
    let capabilities = own.capabilities.unwrap_or_default();
    check_sysctls(pod)?;
    let sysctls = pods.sysctls.into_iter().flatten().map(|s| (dotted(&s.name), s.value)).collect();
    Ok(Security {
        run_as_user: own.run_as_user.or(pods.run_as_user),
        run_as_group: own.run_as_group.or(pods.run_as_group),
        run_as_non_root: own.run_as_non_root.or(pods.run_as_non_root).unwrap_or(false),
        supplemental_groups: groups,
        privileged,
        read_only_root_filesystem: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        seccomp: seccomp(own.seccomp_profile.or(pods.seccomp_profile).as_ref(), privileged)?,
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
        sysctls,
    })
}

/// Sysctls of a pod must be safe, and belong to a namespace that is the pod's own.
pub fn check_sysctls(pod: &Pod) -> Result<(), String> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let host_network = spec.host_network.unwrap_or(false);
    let host_ipc = spec.host_ipc.unwrap_or(false);
    for sysctl in spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten()) {
        let name = dotted(&sysctl.name);
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return Err(format!("forbidden sysctl: {name:?} not allowlisted"));
        }
        if host_network && name.starts_with("net.") {
            return Err(format!("forbidden sysctl: {name:?} not allowed with host net enabled"));
        }
        if host_ipc && name.starts_with("kernel.shm") {
            return Err(format!("forbidden sysctl: {name:?} not allowed with host ipc enabled"));
        }
    }
    Ok(())
}

/// `net/ipv4/x` may be written for `net.ipv4.x`; then a dot is part of a name.
fn dotted(name: &str) -> String {
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name.chars().map(swap).collect(),
        _ => name.to_owned(),
    }
}

fn seccomp(profile: Option<&SeccompProfile>, privileged: bool) -> Result<Seccomp, String> {
    Ok(match profile.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())) {
        None if privileged => Seccomp::Unconfined,
        None | Some(("RuntimeDefault", _)) => Seccomp::RuntimeDefault,
        Some(("Unconfined", _)) => Seccomp::Unconfined,
        // An empty path must never mean "no profile" (CVE-2023-2431).
        Some(("Localhost", None | Some(""))) => {
            return Err("localhostProfile must be set if seccompProfile type is Localhost.".to_owned());
        }
        Some(("Localhost", Some(path))) => Seccomp::Localhost(PathBuf::from(path)),
        Some((other, _)) => return Err(format!("seccomp profile type {other:?} is not known")),
    })
}

/// `runAsNonRoot` against the user the container would get. Asked before every start, not only the first.
pub fn verify_non_root(pod: &str, container: &str, security: &Security, image: &Image) -> Result<(), String> {
    if !security.run_as_non_root {
        return Ok(());
    }
    let what = format!("(pod: \"{pod}\", container: {container})");
    match security.run_as_user {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {what}")),
        Some(_) => Ok(()),
        None => {
            let user = image.user.split(':').next().unwrap_or_default();
            match user.parse::<i64>() {
                Ok(0) => Err(format!("container has runAsNonRoot and image will run as root {what}")),
                Ok(_) => Ok(()),
                Err(_) if user.is_empty() => {
                    Err(format!("container has runAsNonRoot and image will run as root {what}"))
                }
                Err(_) => Err(format!(
                    "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root {what}"
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(pods: serde_json::Value, own: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"spec": {
            "securityContext": pods,
            "containers": [{"name": "c", "securityContext": own}],
        }}))
        .unwrap()
    }

    fn of(pods: serde_json::Value, own: serde_json::Value) -> Result<Security, String> {
        let pod = pod(pods, own);
        of_container(&pod, &pod.spec.as_ref().unwrap().containers[0])
    }

    #[test]
    fn a_container_overrides_its_pod() {
        let security = of(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 7, "supplementalGroups": [9, 7]}),
            json!({"runAsUser": 5, "capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": false}),
        )
        .unwrap();
        assert_eq!((security.run_as_user, security.run_as_group), (Some(5), Some(2)));
        assert_eq!(security.supplemental_groups, [7, 9]);
        assert!(security.no_new_privileges);
        assert_eq!(security.drop_capabilities, ["ALL"]);
    }

    #[test]
    fn an_empty_localhost_profile_is_refused() {
        let profile = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": ""}});
        assert!(of(json!({}), profile).is_err());
    }

    #[test]
    fn unsafe_sysctls_are_refused() {
        assert!(of(json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}), json!({})).is_err());
        let slashes = json!({"sysctls": [{"name": "net/ipv4/tcp_syncookies", "value": "1"}]});
        let security = of(slashes, json!({})).unwrap();
        assert_eq!(security.sysctls.keys().collect::<Vec<_>>(), ["net.ipv4.tcp_syncookies"]);
        let mut host =
            pod(json!({"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}), json!({}));
        host.spec.as_mut().unwrap().host_network = Some(true);
        assert!(check_sysctls(&host).is_err());
    }

    #[test]
    fn non_root_is_verified_against_runtime_user_then_image_user() {
        let image = |user: &str| Image {
            id: String::new(),
            names: vec![],
            repo_digest: String::new(),
            size: 0,
            user: user.to_owned(),
            entrypoint: vec![],
            cmd: vec![],
            env: vec![],
            working_dir: String::new(),
            stop_signal: None,
        };
        // runAsUser, image user, allowed
        let cases = [
            (None, "", false),
            (None, "0", false),
            (None, "root", false),
            (None, "nginx", false),
            (None, "101:0", true),
            (Some(0), "101", false),
            (Some(7), "", true),
        ];
        for (run_as_user, user, allowed) in cases {
            let security = Security { run_as_user, run_as_non_root: true, ..Security::default() };
            let verdict = verify_non_root("p", "c", &security, &image(user));
            assert_eq!(verdict.is_ok(), allowed, "{run_as_user:?} {user}");
        }
    }
}
