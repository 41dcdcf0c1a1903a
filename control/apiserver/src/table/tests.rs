//! Expectations from what kubectl shows for objects in the documented states.

use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-02T03:04:05Z";
const CREATED: &str = "2026-01-02T02:04:05Z";

fn cells(group: &str, kind: &str, mut object: Value) -> Vec<Value> {
    if object.get("metadata").is_none() {
        object["metadata"] = json!({});
    }
    object["metadata"]["name"] = "a".into();
    object["metadata"]["creationTimestamp"] = CREATED.into();
    let table = render(&Gvk::new(group, "v1", kind), &[object], NOW.parse().unwrap(), Include::None);
    assert_eq!(
        table["columnDefinitions"].as_array().unwrap().len(),
        table["rows"][0]["cells"].as_array().unwrap().len(),
        "{kind}"
    );
    table["rows"][0]["cells"].as_array().unwrap().clone()
}

fn pod(object: Value) -> Vec<Value> {
    cells("", "Pod", object).into_iter().skip(1).take(3).collect()
}

#[test]
fn every_kind_has_a_cell_for_each_column() {
    for resource in crate::kinds::builtin() {
        cells(&resource.gvk.group, &resource.gvk.kind, json!({}));
    }
}

#[test]
fn pods_in_their_states() {
    let two = json!([{"name": "x"}, {"name": "y"}]);
    assert_eq!(
        pod(json!({"spec": {"containers": two}, "status": {"phase": "Pending"}})),
        ["0/2", "Pending", "0"]
    );
    assert_eq!(
        pod(json!({"spec": {"containers": two}, "status": {"phase": "Running", "containerStatuses": [
            {"name": "x", "ready": true, "restartCount": 2, "state": {"running": {}},
                "lastState": {"terminated": {"finishedAt": "2026-01-02T03:00:05Z"}}},
            {"name": "y", "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"finishedAt": "2026-01-02T03:03:05Z"}}}]}})),
        ["1/2", "CrashLoopBackOff", "5 (60s ago)"]
    );
    let completed = json!([
        {"name": "x", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
        {"name": "y", "ready": true, "state": {"running": {}}}]);
    assert_eq!(
        pod(
            json!({"spec": {"containers": two}, "status": {"phase": "Running", "containerStatuses": completed,
            "conditions": [{"type": "Ready", "status": "True"}]}})
        ),
        ["1/2", "Running", "0"]
    );
    assert_eq!(
        pod(
            json!({"spec": {"containers": two}, "status": {"phase": "Running", "containerStatuses": completed}})
        ),
        ["1/2", "NotReady", "0"]
    );
    assert_eq!(
        pod(json!({"spec": {"containers": [{}]}, "status": {"phase": "Succeeded", "containerStatuses": [
            {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}})),
        ["0/1", "Completed", "0"]
    );
    assert_eq!(
        pod(json!({"spec": {"containers": [{}]}, "status": {"phase": "Failed", "containerStatuses": [
            {"state": {"terminated": {"exitCode": 3}}}]}})),
        ["0/1", "ExitCode:3", "0"]
    );
    assert_eq!(
        pod(json!({"metadata": {"deletionTimestamp": NOW}, "spec": {"containers": [{}]},
            "status": {"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]}})),
        ["1/1", "Terminating", "0"]
    );
    assert_eq!(
        pod(json!({"spec": {"containers": [{}]}, "status": {"phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}})),
        ["0/1", "SchedulingGated", "0"]
    );
    assert_eq!(
        pod(json!({"spec": {"containers": [{}]}, "status": {"phase": "Failed", "reason": "Evicted"}})),
        ["0/1", "Evicted", "0"]
    );
}

#[test]
fn pods_while_they_initialize() {
    let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "x"}]});
    let status = |statuses: Value| {
        json!({"phase": "Pending", "initContainerStatuses": statuses,
        "containerStatuses": [{"name": "x", "state": {"waiting": {"reason": "PodInitializing"}}}]})
    };
    assert_eq!(
        pod(json!({"spec": spec, "status": status(json!([{"name": "i", "state": {"running": {}}}]))})),
        ["0/1", "Init:0/2", "0"]
    );
    assert_eq!(
        pod(json!({"spec": spec, "status": status(json!([
            {"name": "i", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
            {"name": "j", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]))})),
        ["0/1", "Init:Error", "0"]
    );
    assert_eq!(
        pod(json!({"spec": spec, "status": status(json!([
            {"name": "i", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]))})),
        ["0/1", "Init:CrashLoopBackOff", "4"]
    );
    let sidecar =
        json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "x"}]});
    assert_eq!(
        pod(json!({"spec": sidecar, "status": {"phase": "Running",
            "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1,
                "state": {"running": {}}}],
            "containerStatuses": [{"name": "x", "ready": true, "restartCount": 0, "state": {"running": {}}}]}})),
        ["2/2", "Running", "1"]
    );
}

#[test]
fn wide_pod_columns_and_conditions() {
    let object = json!({"metadata": {"creationTimestamp": CREATED}, "spec": {"nodeName": "n", "readinessGates": [
        {"conditionType": "g"}]}, "status": {"phase": "Succeeded", "podIPs": [{"ip": "10.0.0.1"}]}});
    let table = render(&Gvk::new("", "v1", "Pod"), &[object], NOW.parse().unwrap(), Include::Metadata);
    let row = &table["rows"][0];
    let wide: Vec<&Value> = row["cells"].as_array().unwrap().iter().skip(4).collect();
    assert_eq!(wide, ["60m", "10.0.0.1", "n", "<none>", "0/1"]);
    assert_eq!(row["conditions"][0]["type"], "Completed");
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(table["columnDefinitions"][5]["priority"], 1);
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
}

#[test]
fn services() {
    let ports = json!([{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]);
    assert_eq!(
        cells(
            "",
            "Service",
            json!({"spec": {"type": "NodePort", "clusterIPs": ["10.1.2.3"], "ports": ports,
            "selector": {"b": "2", "a": "1"}}})
        ),
        ["a", "NodePort", "10.1.2.3", "<none>", "80:30080/TCP,53/UDP", "60m", "a=1,b=2"]
    );
    let balancer =
        |status: Value| cells("", "Service", json!({"spec": {"type": "LoadBalancer"}, "status": status}));
    assert_eq!(balancer(json!({}))[3], "<pending>");
    assert_eq!(
        balancer(json!({"loadBalancer": {"ingress": [{"hostname": "h"}, {"ip": "1.2.3.4"}]}}))[3],
        "1.2.3.4,h"
    );
    assert_eq!(
        cells("", "Service", json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}))[2..5],
        ["<none>", "a.b", "<none>"]
    );
}

#[test]
fn workloads() {
    let template =
        json!({"spec": {"containers": [{"name": "x", "image": "i:1"}, {"name": "y", "image": "j"}]}});
    assert_eq!(
        cells(
            "apps",
            "Deployment",
            json!({"spec": {"replicas": 3, "template": template,
            "selector": {"matchLabels": {"app": "x"}}},
            "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}})
        ),
        [
            json!("a"),
            json!("1/3"),
            json!(2),
            json!(1),
            json!("60m"),
            json!("x,y"),
            json!("i:1,j"),
            json!("app=x")
        ]
    );
    assert_eq!(
        cells("apps", "ReplicaSet", json!({"spec": {"replicas": 3}, "status": {"replicas": 2}}))[1..4],
        [json!(3), json!(2), json!(0)]
    );
    assert_eq!(
        cells(
            "batch",
            "Job",
            json!({"spec": {"completions": 5}, "status": {"succeeded": 2, "startTime": CREATED}})
        )[1..4],
        ["Running", "2/5", "60m"]
    );
    assert_eq!(
        cells("batch", "CronJob", json!({"spec": {"schedule": "* * * * *", "suspend": false}}))[1..6],
        [json!("* * * * *"), json!("<none>"), json!("False"), json!(0), json!("<none>")]
    );
}

#[test]
fn nodes() {
    let node = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "x"}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian", "kernelVersion": "6.1"}}});
    assert_eq!(
        cells("", "Node", node),
        [
            "a",
            "Ready,SchedulingDisabled",
            "control-plane,x",
            "60m",
            "v1.37.0",
            "10.0.0.1",
            "<none>",
            "Debian",
            "6.1",
            "<unknown>"
        ]
    );
    assert_eq!(cells("", "Node", json!({}))[1..3], ["Unknown", "<none>"]);
}

#[test]
fn lists_are_shortened() {
    let slice = json!({"addressType": "IPv4", "ports": [{"name": "p", "port": 80}, {"name": "q"}],
        "endpoints": [{"addresses": ["1"]}, {"addresses": ["2", "3", "4"]}, {"addresses": ["5"]}]});
    assert_eq!(
        cells("discovery.k8s.io", "EndpointSlice", slice)[1..4],
        ["IPv4", "80,q", "1,2,3 + 2 more..."]
    );
    assert_eq!(cells("discovery.k8s.io", "EndpointSlice", json!({}))[2..4], ["<unset>", "<unset>"]);
    let ingress =
        json!({"spec": {"rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}], "tls": [{}]}});
    assert_eq!(
        cells("networking.k8s.io", "Ingress", ingress)[1..5],
        ["<none>", "a,b,c + 1 more...", "", "80, 443"]
    );
}

#[test]
fn events_of_both_versions() {
    let old = json!({"involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"}, "type": "Normal",
        "reason": "Started", "message": " hi\n", "firstTimestamp": CREATED, "lastTimestamp": NOW, "count": 3,
        "source": {"component": "kubelet", "host": "n"}});
    assert_eq!(
        cells("", "Event", old),
        [
            json!("0s"),
            json!("Normal"),
            json!("Started"),
            json!("pod/p"),
            json!("spec"),
            json!("kubelet, n"),
            json!("hi"),
            json!("60m"),
            json!(3),
            json!("a")
        ]
    );
    let new =
        json!({"regarding": {"kind": "Node"}, "note": "x", "eventTime": CREATED, "reportingController": "c"});
    assert_eq!(
        cells("events.k8s.io", "Event", new),
        [
            json!("60m"),
            json!(""),
            json!(""),
            json!("node"),
            json!(""),
            json!("c"),
            json!("x"),
            json!("60m"),
            json!(1),
            json!("a")
        ]
    );
}

#[test]
fn autoscalers() {
    let object = json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1,
        "maxReplicas": 5, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}},
            {"type": "Pods", "pods": {"target": {"averageValue": "1k"}}}, {"type": "Pods", "pods": {"target": {}}}]},
        "status": {"currentReplicas": 2, "currentMetrics": [
            {"resource": {"current": {"averageUtilization": 30}}}]}});
    assert_eq!(
        cells("autoscaling", "HorizontalPodAutoscaler", object)[1..6],
        [
            json!("Deployment/d"),
            json!("cpu: 30%/80%, <unknown>/1k + 1 more..."),
            json!("1"),
            json!(5),
            json!(2)
        ]
    );
}

#[test]
fn volumes() {
    let volume = json!({"spec": {"capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "n", "name": "c"},
        "storageClassName": "s", "volumeMode": "Filesystem"}, "status": {"phase": "Bound"}});
    assert_eq!(
        cells("", "PersistentVolume", volume),
        ["a", "5Gi", "RWO,RWX", "Retain", "Bound", "n/c", "s", "<unset>", "", "60m", "Filesystem"]
    );
    assert_eq!(
        cells("", "PersistentVolumeClaim", json!({"status": {"phase": "Pending"}}))[1..5],
        ["Pending", "", "", ""]
    );
    let class = json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    assert_eq!(cells("storage.k8s.io", "StorageClass", class)[0], "a (default)");
}

#[test]
fn other_kinds_show_name_and_creation() {
    assert_eq!(cells("rbac.authorization.k8s.io", "Role", json!({})), ["a", CREATED]);
    assert_eq!(cells("example.com", "Thing", json!({})), ["a", CREATED]);
}
