//! Pods against levels; what the restricted level lets through the baseline lets through, too.

use super::*;
use serde_json::json;

fn told(level: Level, spec: &Value) -> Vec<&'static str> {
    let metadata = json!({});
    let pod = Pod::new(&metadata, spec);
    violations(&Policy { level, minor: None }, &pod).into_iter().map(|violation| violation.reason).collect()
}

fn careful() -> Value {
    json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "c", "image": "x",
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }],
        "volumes": [{"name": "v", "emptyDir": {}}],
    })
}

fn with(path: &str, value: Value) -> Value {
    let mut spec = careful();
    let (parent, field) = path.rsplit_once('/').unwrap();
    spec.pointer_mut(parent).unwrap()[field] = value;
    spec
}

#[test]
fn a_careful_pod_passes_everywhere() {
    for level in [Level::Privileged, Level::Baseline, Level::Restricted] {
        assert_eq!(told(level, &careful()), Vec::<&str>::new());
    }
}

#[test]
fn each_rule_is_told_by_its_name() {
    let container = "/containers/0/securityContext";
    for (spec, baseline, restricted) in [
        (with("/hostNetwork", json!(true)), &["host namespaces"][..], &["host namespaces"][..]),
        (with(&format!("{container}/privileged"), json!(true)), &["privileged"], &["privileged"]),
        (
            with(&format!("{container}/capabilities"), json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]})),
            &["non-default capabilities"],
            &["unrestricted capabilities"],
        ),
        (
            with("/volumes", json!([{"name": "v", "hostPath": {"path": "/"}}])),
            &["hostPath volumes"],
            &["restricted volume types"],
        ),
        (with("/volumes", json!([{"name": "v", "nfs": {"path": "/"}}])), &[], &["restricted volume types"]),
        (
            with("/containers/0/ports", json!([{"containerPort": 1, "hostPort": 1}])),
            &["hostPort"],
            &["hostPort"],
        ),
        (with(&format!("{container}/procMount"), json!("Unmasked")), &["procMount"], &["procMount"]),
        (
            with("/securityContext/seccompProfile", json!({"type": "Unconfined"})),
            &["seccompProfile"],
            &["seccompProfile"],
        ),
        (
            with("/securityContext/sysctls", json!([{"name": "kernel.msgmax", "value": "1"}])),
            &["forbidden sysctls"],
            &["forbidden sysctls"],
        ),
        (
            with("/securityContext/seLinuxOptions", json!({"user": "x"})),
            &["seLinuxOptions"],
            &["seLinuxOptions"],
        ),
        (with("/securityContext/runAsNonRoot", Value::Null), &[], &["runAsNonRoot != true"]),
        (with("/securityContext/runAsUser", json!(0)), &[], &["runAsUser=0"]),
        (
            with(&format!("{container}/allowPrivilegeEscalation"), Value::Null),
            &[],
            &["allowPrivilegeEscalation != false"],
        ),
        (
            with("/containers/0/livenessProbe", json!({"httpGet": {"host": "x", "port": 1}})),
            &["probe or lifecycle host"],
            &["probe or lifecycle host"],
        ),
    ] {
        assert_eq!(told(Level::Baseline, &spec), baseline, "{spec}");
        let mut all = told(Level::Restricted, &spec);
        all.dedup();
        assert_eq!(all, restricted, "{spec}");
        assert_eq!(told(Level::Privileged, &spec), Vec::<&str>::new());
    }
}

#[test]
fn ephemeral_and_init_containers_count() {
    for list in ["initContainers", "ephemeralContainers"] {
        let spec = with(&format!("/{list}"), json!([{"name": "e", "securityContext": {"privileged": true}}]));
        assert!(told(Level::Baseline, &spec).contains(&"privileged"), "{list}");
    }
}

#[test]
fn sentences_are_upstreams() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let metadata = json!({});
    let policy = Policy { level: Level::Restricted, minor: None };
    assert_eq!(
        breaks(&policy, &Pod::new(&metadata, &spec)).unwrap(),
        "\"restricted:latest\": allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \"a\", \"b\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or containers \"a\", \"b\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or containers \"a\", \"b\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
}
