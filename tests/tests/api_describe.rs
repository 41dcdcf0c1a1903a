//! `kubectl describe` of workloads, their pods and nodes.
//!
//! In: one object of each kind. Out: what kubectl says of each. What is expected follows from the objects and from the
//! order and the words of kubectl's describers.

use xebec_tests::fixture::Api;
use xebec_tests::kubectl::shows;

const TEST: &str = "api_describe";

fn describe(api: &Api, object: &str) -> String {
    api.kubectl.ok(&["describe", "-n", "show", object])
}

/// An Event comes a moment after what it tells of.
fn event(api: &Api, object: &str, reason: &str) {
    let (kind, name) = object.split_once('/').expect("kind and name");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let told = || {
        let chosen = format!("involvedObject.kind={kind},involvedObject.name={name},reason={reason}");
        !api.kubectl
            .ok(&["get", "events", "-n", "show", "-o", "name", "--field-selector", &chosen])
            .is_empty()
    };
    while !told() {
        assert!(std::time::Instant::now() < deadline, "{object} has no event {reason}");
    }
}

#[tokio::test]
async fn a_deployment_and_its_replica_set() {
    let Some(api) = Api::showcase(TEST).await else { return };
    api.settled("deployment/web", "{.status.unavailableReplicas}=2");
    event(&api, "Deployment/web", "ScalingReplicaSet");
    let set = api.kubectl.ok(&[
        "get",
        "rs",
        "-n",
        "show",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ]);
    let hash = set.strip_prefix("web-").expect("named after its deployment").to_owned();
    shows(
        &describe(&api, "deployment/web"),
        &[
            "Name: web",
            "Namespace: show",
            "CreationTimestamp: …",
            "Labels: app=web",
            "Annotations: deployment.kubernetes.io/revision: 1",
            "Selector: app=web",
            "Replicas: 2 desired | 2 updated | 2 total | 0 available | 2 unavailable",
            "StrategyType: RollingUpdate",
            "MinReadySeconds: 0",
            "RollingUpdateStrategy: 25% max unavailable, 25% max surge",
            "Pod Template:",
            "Labels: app=web",
            "Containers:",
            "nginx:",
            "Image: nginx:1.27",
            "Port: 80/TCP",
            "Host Port: 0/TCP",
            "log:",
            "Image: busybox",
            "Port: <none>",
            "Volumes: <none>",
            "Node-Selectors: nowhere=true",
            "Conditions:",
            "Type Status Reason",
            "Available False MinimumReplicasUnavailable",
            "Progressing True …",
            "OldReplicaSets: <none>",
            &format!("NewReplicaSet: {set} (2/2 replicas created)"),
            "Events:",
            "Type Reason Age From Message",
            "Normal ScalingReplicaSet …",
        ],
    );
    event(&api, &format!("ReplicaSet/{set}"), "SuccessfulCreate");
    shows(
        &describe(&api, &format!("replicaset/{set}")),
        &[
            &format!("Name: {set}"),
            &format!("Selector: app=web,pod-template-hash={hash}"),
            "Labels: app=web",
            &format!("pod-template-hash={hash}"),
            "Annotations: deployment.kubernetes.io/desired-replicas: 2",
            "deployment.kubernetes.io/max-replicas: 3",
            "deployment.kubernetes.io/revision: 1",
            "Controlled By: Deployment/web",
            "Replicas: 2 current / 2 desired",
            "Pods Status: 0 Running / 2 Waiting / 0 Succeeded / 0 Failed",
            "Events:",
            "Normal SuccessfulCreate …",
        ],
    );
}

#[tokio::test]
async fn sets_and_jobs() {
    let Some(api) = Api::showcase(TEST).await else { return };
    api.settled("statefulset/db", "{.status.replicas}=1");
    event(&api, "StatefulSet/db", "SuccessfulCreate");
    shows(
        &describe(&api, "statefulset/db"),
        &[
            "Name: db",
            "Selector: app=db",
            "Service Name: db",
            "Pod Management Policy: OrderedReady",
            "Replicas: 1 desired | 1 total",
            "Update Strategy: RollingUpdate",
            "Partition: 0",
            "Persistent Volume Claim Retention Policy:",
            "WhenDeleted: Retain",
            "WhenScaled: Retain",
            "Pods Status: 0 Running / 1 Waiting / 0 Succeeded / 0 Failed",
            "Image: postgres",
            "Volume Claims: <none>",
            "Normal SuccessfulCreate …",
        ],
    );
    api.settled("daemonset/each", "{.status.observedGeneration}=1");
    shows(
        &describe(&api, "daemonset/each"),
        &[
            "Name: each",
            "Selector: app=each",
            "Node-Selector: nowhere=true",
            "Desired Number of Nodes Scheduled: 0",
            "Current Number of Nodes Scheduled: 0",
            "Number of Nodes Scheduled with Up-to-date Pods: 0",
            "Number of Nodes Scheduled with Available Pods: 0",
            "Number of Nodes Misscheduled: 0",
            "Pods Status: 0 Running / 0 Waiting / 0 Succeeded / 0 Failed",
        ],
    );
    api.settled("job/once", "{.status.active}=1");
    event(&api, "Job/once", "SuccessfulCreate");
    let uid = api.kubectl.ok(&["get", "job", "once", "-n", "show", "-o", "jsonpath={.metadata.uid}"]);
    shows(
        &describe(&api, "job/once"),
        &[
            &format!("Selector: batch.kubernetes.io/controller-uid={uid}"),
            "Parallelism: 1",
            "Completions: 3",
            "Completion Mode: NonIndexed",
            "Suspend: false",
            "Backoff Limit: 6",
            "Start Time: …",
            "Pods Statuses: 1 Active (0 Ready) / 0 Succeeded / 0 Failed",
            &format!("Labels: batch.kubernetes.io/controller-uid={uid}"),
            "batch.kubernetes.io/job-name=once",
            "Normal SuccessfulCreate …",
        ],
    );
    shows(
        &describe(&api, "cronjob/tick"),
        &[
            "Schedule: */5 * * * *",
            "Concurrency Policy: Forbid",
            "Suspend: True",
            "Time Zone: Etc/UTC",
            "Successful Job History Limit: 3",
            "Failed Job History Limit: 1",
            "Starting Deadline Seconds: 30s",
            "Selector: <unset>",
            "Last Schedule Time: <unset>",
            "Active Jobs: <none>",
        ],
    );
    shows(
        &describe(&api, "replicationcontroller/old"),
        &["Selector: app=old", "Labels: app=old", "Replicas: 0 current / 0 desired"],
    );
}

#[tokio::test]
async fn a_pod_and_its_node() {
    let Some(api) = Api::showcase(TEST).await else { return };
    let status = r#"{"status":{"phase":"Running","hostIP":"10.0.0.1","podIP":"10.244.0.5","podIPs":[{"ip":"10.244.0.5"}],
        "startTime":"2026-01-01T00:00:00Z","conditions":[{"type":"Ready","status":"True"}],
        "containerStatuses":[{"name":"main","ready":true,"restartCount":2,"image":"busybox:1.36","imageID":"sha256:1",
            "containerID":"containerd://abc","state":{"running":{"startedAt":"2026-01-01T00:00:02Z"}},
            "lastState":{"terminated":{"exitCode":3,"reason":"Error","startedAt":"2026-01-01T00:00:00Z",
                "finishedAt":"2026-01-01T00:00:01Z"}}}]}}"#;
    api.kubectl.ok(&[
        "patch",
        "pod",
        "box",
        "-n",
        "show",
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    ]);
    shows(
        &describe(&api, "pod/box"),
        &[
            "Name: box",
            "Namespace: show",
            "Priority: 1000",
            "Priority Class Name: high",
            "Service Account: robot",
            "Node: n1/10.0.0.1",
            "Start Time: Thu, 01 Jan 2026 00:00:00 +0000",
            "Labels: app=box",
            "Annotations: note: hello",
            "Status: Running",
            "IP: 10.244.0.5",
            "Init Containers:",
            "first:",
            "Containers:",
            "main:",
            "Container ID: containerd://abc",
            "Image: busybox:1.36",
            "Image ID: sha256:1",
            "Port: 80/TCP (http)",
            "Command:",
            "sh",
            "-c",
            "Args:",
            "sleep 1",
            "State: Running",
            "Started: Thu, 01 Jan 2026 00:00:02 +0000",
            "Last State: Terminated",
            "Reason: Error",
            "Exit Code: 3",
            "Ready: True",
            "Restart Count: 2",
            "Limits:",
            "cpu: 200m",
            "memory: 128Mi",
            "Requests:",
            "cpu: 100m",
            "memory: 64Mi",
            "Liveness: http-get http://:http/healthz delay=3s timeout=1s period=10s successThreshold=1 \
             failureThreshold=3",
            "Readiness: exec [cat /ready] delay=0s timeout=1s period=10s successThreshold=1 failureThreshold=3",
            "Startup: tcp-socket :80 delay=0s timeout=1s period=10s successThreshold=1 failureThreshold=30",
            "settings ConfigMap with prefix 'X_' Optional: false",
            "PLAIN: text",
            "NAME: box (v1:metadata.name)",
            "COLOUR: <set to the key 'colour' of config map 'settings'> Optional: false",
            "PASSWORD: <set to the key 'password' in secret 'keys'> Optional: true",
            "/conf from conf (ro)",
            "/room from room (rw,path=\"part\")",
            "Conditions:",
            "Ready True",
            "Volumes:",
            "Type: Secret (a volume populated by a Secret)",
            "SecretName: keys",
            "Type: EmptyDir (a temporary directory that shares a pod's lifetime)",
            "Medium: Memory",
            "SizeLimit: 1Mi",
            "TokenExpirationSeconds: 3607",
            "ConfigMapName: kube-root-ca.crt",
            "DownwardAPI: true",
            "QoS Class: Burstable",
            "Node-Selectors: kubernetes.io/os=linux",
            "Tolerations: dedicated=gpu:NoSchedule",
            "node.kubernetes.io/not-ready:NoExecute op=Exists for 300s",
            "node.kubernetes.io/unreachable:NoExecute op=Exists for 300s",
        ],
    );
    api.kubectl.ok(&["taint", "node", "n1", "dedicated=gpu:NoSchedule"]);
    let node = api.kubectl.ok(&["describe", "node", "n1"]);
    shows(
        &node,
        &[
            "Name: n1",
            "Roles: <none>",
            "Labels: kubernetes.io/hostname=n1",
            "Taints: dedicated=gpu:NoSchedule",
            "Unschedulable: false",
            "Conditions:",
            "Ready True …",
            "InternalIP: 10.0.0.1",
            "Hostname: n1",
            "Capacity:",
            "cpu: 4",
            "Allocatable:",
            "memory: 8Gi",
            "OS Image: Debian GNU/Linux 12",
            "Container Runtime Version: containerd://2.3.1",
            "Kubelet Version: v1.37.0",
            "PodCIDR: 10.244.0.0/24",
            "Non-terminated Pods: (1 in total)",
            "Namespace Name CPU Requests CPU Limits Memory Requests Memory Limits Age",
            "show box 100m (2%) 200m (5%) 64Mi (0%) 128Mi (1%) …",
            "Allocated resources:",
            "cpu 100m (2%) 200m (5%)",
            "memory 64Mi (0%) 128Mi (1%)",
        ],
    );
}
