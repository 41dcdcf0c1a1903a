//! The specification as a whole: what a plain, a hardened and a privileged container get.

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::host::HostFacts;
use super::*;
use crate::types::{ContainerKey, Image, PodSandbox, Security};

pub(super) fn host() -> HostFacts {
    HostFacts {
        unified_cgroups: false,
        swap_accounting: true,
        capabilities: (1 << 41) - 1,
        lowest_oom_score_adj: Some(0),
    }
}

pub(crate) fn config() -> ContainerConfig {
    ContainerConfig {
        key: ContainerKey { pod_uid: "uid-1".into(), container: "main".into(), attempt: 0 },
        pod_namespace: "default".into(),
        pod_name: "web".into(),
        sandbox: PodSandbox {
            netns: Some("/run/netns/web".into()),
            cgroup_parent: "/kubepods/pod1".into(),
            ..Default::default()
        },
        image: Image {
            id: "sha256:0".into(),
            names: Vec::new(),
            repo_digest: String::new(),
            size: 0,
            user: String::new(),
            entrypoint: Vec::new(),
            cmd: vec!["sh".into()],
            env: Vec::new(),
            working_dir: String::new(),
            stop_signal: None,
        },
        command: Vec::new(),
        args: Vec::new(),
        working_dir: String::new(),
        env: Vec::new(),
        mounts: Vec::new(),
        resources: Resources::default(),
        security: Security::default(),
        stdin: false,
        tty: false,
        log_path: "/var/log/pods/x/main/0.log".into(),
        log_max_size: 10 << 20,
        log_max_files: 5,
        labels: std::collections::BTreeMap::new(),
    }
}

fn facts() -> Facts {
    Facts {
        host: host(),
        user: User::default(),
        pid_namespace: None,
        seccomp_profile: None,
        devices: Vec::new(),
        cgroup: "/kubepods/pod1/abc".into(),
    }
}

fn spec(change: impl FnOnce(&mut ContainerConfig)) -> Spec {
    let mut config = config();
    change(&mut config);
    build(&config, &facts()).unwrap()
}

fn kinds(spec: &Spec) -> Vec<LinuxNamespaceType> {
    let namespaces = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
    namespaces.iter().map(LinuxNamespace::typ).collect()
}

#[test]
fn a_plain_container_is_confined() {
    let spec = spec(|_| {});
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.seccomp().is_some());
    assert!(linux.masked_paths().as_ref().unwrap().iter().any(|path| path == "/proc/kcore"));
    assert!(linux.readonly_paths().as_ref().unwrap().iter().any(|path| path == "/proc/sys"));
    let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
    assert_eq!((rules.len(), rules[0].allow()), (1, false));
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 14);
    assert!(process.capabilities().as_ref().unwrap().inheritable().is_none());
    assert!(process.rlimits().is_none());
    assert!(spec.hostname().is_none());
    assert_eq!(
        kinds(&spec),
        [LinuxNamespaceType::Mount, LinuxNamespaceType::Network, LinuxNamespaceType::Pid]
    );
}

#[test]
fn the_json_names_no_field_that_was_not_meant() {
    let json = serde_json::to_value(spec(|_| {})).unwrap();
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["linux", "mounts", "ociVersion", "process", "root"]);
    assert_eq!(json["root"]["path"], "rootfs");
    assert_eq!(json["linux"]["cgroupsPath"], "/kubepods/pod1/abc");
    assert_eq!(json["process"]["noNewPrivileges"], false);
    assert_eq!(json["process"]["args"], serde_json::json!(["sh"]));
}

#[test]
fn a_privileged_container_is_not() {
    let spec = spec(|config| config.security.privileged = true);
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.seccomp().is_none());
    assert!(linux.masked_paths().as_ref().unwrap().is_empty());
    assert!(linux.resources().as_ref().unwrap().devices().as_ref().unwrap()[0].allow());
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 41);
}

#[test]
fn namespaces_follow_the_sandbox() {
    let host = spec(|config| {
        config.sandbox = PodSandbox { host_pid: true, ..Default::default() };
    });
    assert_eq!(kinds(&host), [LinuxNamespaceType::Mount]);
    let mut shared = facts();
    shared.pid_namespace = Some("/proc/7/ns/pid".into());
    shared.host.unified_cgroups = true;
    let spec = build(&config(), &shared).unwrap();
    assert_eq!(kinds(&spec)[2..], [LinuxNamespaceType::Pid, LinuxNamespaceType::Cgroup]);
    let namespaces = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
    assert_eq!(namespaces[2].path().as_deref(), Some(Path::new("/proc/7/ns/pid")));
}

#[test]
fn limits_are_handed_to_both_cgroup_versions() {
    let spec = spec(|config| {
        config.resources = Resources {
            cpu_shares: Some(102),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            memory_limit: Some(64 << 20),
            oom_score_adj: Some(-997),
            pids_limit: Some(100),
        };
    });
    let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    assert_eq!(resources.unified(), &None, "there is no such file on v1");
    assert_eq!(resources.cpu().as_ref().unwrap().shares(), Some(102));
    assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(50_000));
    let memory = resources.memory().unwrap();
    assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(64 << 20)));
    assert_eq!(resources.pids().unwrap().limit(), 100);
    assert_eq!(spec.process().as_ref().unwrap().oom_score_adj(), Some(0), "clamped to what can be set");
}

#[test]
fn memory_kills_the_whole_container_on_cgroup_v2() {
    let mut unified = facts();
    unified.host.unified_cgroups = true;
    let mut config = config();
    let group = |config: &ContainerConfig| {
        let spec = build(config, &unified).unwrap();
        spec.linux().as_ref().unwrap().resources().as_ref().unwrap().unified().clone()
    };
    assert_eq!(group(&config), None);
    config.resources.memory_limit = Some(1 << 20);
    assert_eq!(group(&config).unwrap()["memory.oom.group"], "1");
}
