//! Expectations from upstream's documented defaults.

use serde_json::{Value, json};

use super::*;

fn defaulted(group: &str, kind: &str, mut object: Value) -> Value {
    apply(&Gvk::new(group, "v1", kind), &mut object);
    object
}

#[test]
fn a_minimal_pod_is_filled() {
    let pod = defaulted(
        "",
        "Pod",
        json!({"spec": {"serviceAccount": "sa", "containers": [{"name": "a", "image": "nginx",
            "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "100m", "memory": "1Mi"}, "requests": {"cpu": "0.1m"}},
            "livenessProbe": {"httpGet": {"port": 80}}, "readinessProbe": {"grpc": {"port": 1}}}],
            "volumes": [{"name": "e"}, {"name": "c", "configMap": {"name": "x"}}, {"name": "h", "hostPath": {"path": "/"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}}),
    );
    assert_eq!(
        pod["spec"],
        json!({
            "serviceAccount": "sa", "serviceAccountName": "sa",
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
            "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "enableServiceLinks": true,
            "containers": [{"name": "a", "image": "nginx", "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "100m", "memory": "1Mi"}, "requests": {"cpu": "1m", "memory": "1Mi"}},
                "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                    "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                "readinessProbe": {"grpc": {"port": 1, "service": ""}, "timeoutSeconds": 1, "periodSeconds": 10,
                    "successThreshold": 1, "failureThreshold": 3}}],
            "volumes": [{"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x", "defaultMode": 420}},
                {"name": "h", "hostPath": {"path": "/", "type": ""}},
                {"name": "p", "projected": {"defaultMode": 420,
                    "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}}],
        })
    );
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:0", "IfNotPresent"),
        ("nginx:latest@sha256:0", "Always"),
        ("", "IfNotPresent"),
    ] {
        assert_eq!(container::pull_policy(image), policy, "{image}");
    }
}

#[test]
fn host_network_ports_are_host_ports() {
    let spec =
        json!({"hostNetwork": true, "containers": [{"image": "a:1", "ports": [{"containerPort": 80}]}]});
    let pod = defaulted("", "Pod", json!({"spec": spec.clone()}));
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
    let template = defaulted("apps", "Deployment", json!({"spec": {"template": {"spec": spec}}}));
    assert!(template.pointer("/spec/template/spec/containers/0/ports/0/hostPort").is_none());
    assert!(template.pointer("/spec/template/spec/enableServiceLinks").is_none());
}

#[test]
fn pod_level_requests_follow_containers_then_limits() {
    let pod = defaulted(
        "",
        "Pod",
        json!({"spec": {"resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
            "initContainers": [{"restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"resources": {"requests": {"cpu": "1"}}}],
            "containers": [{"resources": {"requests": {"cpu": "200m"}}}]}}),
    );
    assert_eq!(pod["spec"]["resources"]["requests"], json!({"cpu": "1100m", "memory": "1Gi"}));
}

#[test]
fn services() {
    let plain = defaulted("", "Service", json!({"spec": {"ports": [{"port": 80}]}}));
    assert_eq!(
        plain,
        json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "type": "ClusterIP",
            "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}, "status": {"loadBalancer": {}}})
    );
    let balancer =
        defaulted("", "Service", json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}}));
    assert_eq!(
        balancer["spec"],
        json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}, "internalTrafficPolicy": "Cluster",
            "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true})
    );
    let name = defaulted("", "Service", json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}));
    assert!(name["spec"].get("internalTrafficPolicy").is_none());
}

#[test]
fn workloads() {
    let deployment =
        defaulted("apps", "Deployment", json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}}}));
    assert_eq!(
        deployment["spec"],
        json!({"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}}})
    );
    let recreate =
        defaulted("apps", "Deployment", json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}}));
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
    assert_eq!(recreate["spec"]["replicas"], 0);
    let daemon = defaulted("apps", "DaemonSet", json!({"spec": {}}));
    assert_eq!(
        daemon["spec"]["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
    );
    let stateful =
        defaulted("apps", "StatefulSet", json!({"spec": {"volumeClaimTemplates": [{"spec": {}}]}}));
    assert_eq!(
        stateful["spec"],
        json!({"replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "volumeClaimTemplates": [{"spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}]})
    );
}

#[test]
fn jobs() {
    let job = defaulted("batch", "Job", json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}));
    assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!((&job["spec"]["completions"], &job["spec"]["parallelism"]), (&json!(1), &json!(1)));
    assert_eq!(job["spec"]["backoffLimit"], 6);
    assert_eq!(job["spec"]["podReplacementPolicy"], "TerminatingOrFailed");
    let queue = defaulted("batch", "Job", json!({"spec": {"parallelism": 2, "backoffLimitPerIndex": 1}}));
    assert!(queue["spec"].get("completions").is_none());
    assert_eq!(queue["spec"]["backoffLimit"], i32::MAX);
}

#[test]
fn small_kinds() {
    let namespace = defaulted("", "Namespace", json!({"metadata": {"name": "a"}}));
    assert_eq!(namespace["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(defaulted("", "Secret", json!({}))["type"], "Opaque");
    let policy = defaulted("networking.k8s.io", "NetworkPolicy", json!({"spec": {"egress": [{}]}}));
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    let binding =
        json!({"roleRef": {"kind": "Role"}, "subjects": [{"kind": "User"}, {"kind": "ServiceAccount"}]});
    let binding = defaulted("rbac.authorization.k8s.io", "RoleBinding", binding);
    assert_eq!(binding["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    assert!(binding["subjects"][1].get("apiGroup").is_none());
    let range =
        json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}});
    let range = defaulted("", "LimitRange", range);
    assert_eq!(range["spec"]["limits"][0]["default"], json!({"cpu": "2"}));
    assert_eq!(range["spec"]["limits"][0]["defaultRequest"], json!({"cpu": "2", "memory": "1Mi"}));
    let slice = defaulted("discovery.k8s.io", "EndpointSlice", json!({"ports": [{"port": 80}]}));
    assert_eq!(slice["ports"][0], json!({"port": 80, "name": "", "protocol": "TCP"}));
}

#[test]
fn defaults_are_stable() {
    for (group, kind, object) in [
        ("", "Pod", json!({"spec": {"containers": [{"image": "a"}], "volumes": [{"name": "v"}]}})),
        ("", "Service", json!({"spec": {"type": "NodePort", "ports": [{"port": 1}]}})),
        ("apps", "Deployment", json!({"spec": {"template": {"spec": {"containers": [{}]}}}})),
        ("batch", "CronJob", json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {}}}}}})),
    ] {
        let once = defaulted(group, kind, object);
        assert_eq!(defaulted(group, kind, once.clone()), once);
    }
}
