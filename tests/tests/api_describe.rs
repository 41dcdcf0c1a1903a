//! `kubectl describe` of every kind in use.
//!
//! In: one object of each kind. Out: what kubectl says of each. What is expected follows from the objects and from the
//! order and the words of kubectl's describers.

use xebec_tests::api::{APPLY, Api};
use xebec_tests::kubectl::{shows, squeezed};

const TEST: &str = "api_describe";
const SHOWCASE: &str = include_str!("data/showcase.yaml");

async fn showcase() -> Option<Api> {
    let api = Api::start(TEST).await?;
    api.node("n1", "10.0.0.1");
    api.kubectl.ok_with(APPLY, SHOWCASE);
    Some(api)
}

fn describe(api: &Api, object: &str) -> String {
    api.kubectl.ok(&["describe", "-n", "show", object])
}

fn settled(api: &Api, object: &str, wanted: &str) {
    let condition = format!("--for=jsonpath={wanted}");
    api.kubectl.ok(&["wait", "-n", "show", object, &condition, "--timeout=30s"]);
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
    let Some(api) = showcase().await else { return };
    settled(&api, "deployment/web", "{.status.unavailableReplicas}=2");
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
    let Some(api) = showcase().await else { return };
    settled(&api, "statefulset/db", "{.status.replicas}=1");
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
    settled(&api, "daemonset/each", "{.status.observedGeneration}=1");
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
    settled(&api, "job/once", "{.status.active}=1");
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
    let Some(api) = showcase().await else { return };
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

#[tokio::test]
async fn what_pods_are_reached_by() {
    let Some(api) = showcase().await else { return };
    let status = r#"{"status":{"phase":"Running","podIP":"10.244.0.5","podIPs":[{"ip":"10.244.0.5"}],
        "conditions":[{"type":"Ready","status":"True"}]}}"#;
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
    settled(&api, "endpoints/box", "{.subsets[0].addresses[0].ip}=10.244.0.5");
    let slice = api.kubectl.ok(&["get", "endpointslices", "-n", "show", "-o", "name"]);
    settled(&api, &slice, "{.endpoints[0].conditions.ready}=true");
    let address =
        api.kubectl.ok(&["get", "service", "box", "-n", "show", "-o", "jsonpath={.spec.clusterIP}"]);
    shows(
        &describe(&api, "service/box"),
        &[
            "Name: box",
            "Selector: app=box",
            "Type: NodePort",
            "IP Family Policy: SingleStack",
            "IP Families: IPv4",
            &format!("IP: {address}"),
            &format!("IPs: {address}"),
            "Port: http 8080/TCP",
            "TargetPort: http/TCP",
            "NodePort: http 30080/TCP",
            "Endpoints: 10.244.0.5:80",
            "Session Affinity: None",
            "External Traffic Policy: Cluster",
            "Internal Traffic Policy: Cluster",
        ],
    );
    shows(
        &describe(&api, &slice),
        &[
            "Labels: endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io",
            "kubernetes.io/service-name=box",
            "AddressType: IPv4",
            "http 80 TCP",
            "- Addresses: 10.244.0.5",
            "Ready: true",
            "TargetRef: Pod/box",
            "NodeName: n1",
        ],
    );
    shows(
        &describe(&api, "endpoints/box"),
        &["Subsets:", "Addresses: 10.244.0.5", "NotReadyAddresses: <none>", "http 80 TCP"],
    );
    shows(
        &describe(&api, "ingress/door"),
        &["Ingress Class: <none>", "Default backend: <default>", "a.example", "/ box:8080 (10.244.0.5:80)"],
    );
    shows(
        &describe(&api, "networkpolicy/closed"),
        &[
            "PodSelector: app=box",
            "Allowing ingress traffic:",
            "<none> (Selected pods are isolated for ingress connectivity)",
            "Not affecting egress traffic",
            "Policy Types: Ingress",
        ],
    );
}

#[tokio::test]
async fn what_pods_are_given() {
    let Some(api) = showcase().await else { return };
    shows(
        &describe(&api, "configmap/settings"),
        &[
            "Name: settings",
            "Data",
            "====",
            "colour:",
            "----",
            "blue",
            "lines:",
            "one",
            "two",
            "BinaryData",
            "raw: 3 bytes",
        ],
    );
    let secret = describe(&api, "secret/keys");
    shows(&secret, &["Name: keys", "Type: Opaque", "Data", "====", "password: 7 bytes"]);
    assert!(!secret.contains("hunter2"), "{secret}");
    shows(
        &describe(&api, "serviceaccount/robot"),
        &["Name: robot", "Namespace: show", "Image pull secrets: keys"],
    );
    settled(&api, "pdb/web", "{.status.expectedPods}=2");
    shows(
        &describe(&api, "pdb/web"),
        &[
            "Min available: 1",
            "Selector: app=web",
            "Allowed disruptions: 0",
            "Current: 0",
            "Desired: 1",
            "Total: 2",
        ],
    );
    settled(&api, "resourcequota/room", "{.status.used.secrets}=1");
    let quota = ["Resource Used Hard", "requests.storage 1Gi 5Gi", "secrets 1 10"];
    shows(&describe(&api, "resourcequota/room"), &[&["Name: room", "Namespace: show"], &quota[..]].concat());
    let sizes = [
        "Type Resource Min Max Default Request Default Limit Max Limit/Request Ratio",
        "PersistentVolumeClaim storage 1Mi 2Gi - - -",
    ];
    shows(&describe(&api, "limitrange/sizes"), &sizes);
    shows(
        &api.kubectl.ok(&["describe", "namespace", "show"]),
        &[
            &[
                "Name: show",
                "Labels: kubernetes.io/metadata.name=show",
                "team=red",
                "Annotations: note: hello",
            ][..],
            &["Status: Active", "Resource Quotas", "Name: room"],
            &quota,
            &["Resource Limits"],
            &sizes,
        ]
        .concat(),
    );
    shows(
        &api.kubectl.ok(&["describe", "namespace", "default"]),
        &["Status: Active", "No resource quota.", "No LimitRange resource."],
    );
    shows(
        &api.kubectl.ok(&["describe", "priorityclass", "high"]),
        &[
            "Name: high",
            "Value: 1000",
            "GlobalDefault: false",
            "PreemptionPolicy: PreemptLowerPriority",
            "Description: Goes first.",
        ],
    );
    shows(
        &describe(&api, "pvc/disk"),
        &["StorageClass: slow", "Status: Pending", "VolumeMode: Filesystem", "Used By: <none>"],
    );
    shows(
        &api.kubectl.ok(&["describe", "pv", "disk1"]),
        &[
            "StorageClass: slow",
            "Reclaim Policy: Retain",
            "Access Modes: RWO",
            "Capacity: 1Gi",
            "Path: /tmp/disk1",
        ],
    );
    shows(
        &api.kubectl.ok(&["describe", "storageclass", "slow"]),
        &["IsDefaultClass: No", "Provisioner: example.com/disk", "VolumeBindingMode: Immediate"],
    );
    shows(
        &describe(&api, "lease/turn"),
        &["Kind: Lease", "Holder Identity: me", "Lease Duration Seconds: 15"],
    );
}

#[tokio::test]
async fn who_may_do_what() {
    let Some(api) = showcase().await else { return };
    let rules = ["PolicyRule:", "Resources Non-Resource URLs Resource Names Verbs"];
    shows(
        &describe(&api, "role/reads"),
        &[&["Name: reads"], &rules[..], &["pods [] [] [get list]", "deployments.apps [] [web] [get]"]]
            .concat(),
    );
    shows(
        &describe(&api, "rolebinding/reads"),
        &[
            "Role:",
            "Kind: Role",
            "Name: reads",
            "Subjects:",
            "Kind Name Namespace",
            "ServiceAccount robot show",
            "User jane",
        ],
    );
    shows(
        &api.kubectl.ok(&["describe", "clusterrole", "cluster-admin"]),
        &[
            &["Labels: kubernetes.io/bootstrapping=rbac-defaults"],
            &["Annotations: rbac.authorization.kubernetes.io/autoupdate: true"],
            &rules[..],
            &["*.* [] [] [*]", "[*] [] [*]"],
        ]
        .concat(),
    );
    shows(
        &api.kubectl.ok(&["describe", "clusterrolebinding", "cluster-admin"]),
        &["Role:", "Kind: ClusterRole", "Name: cluster-admin", "Subjects:", "Group system:masters"],
    );
}

#[tokio::test]
async fn definitions_custom_objects_and_events() {
    let Some(api) = Api::start(TEST).await else { return };
    let definition = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: ships, singular: ship, kind: Ship}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {flag: {type: string}}}}}}}
";
    let kubectl = &api.kubectl;
    kubectl.ok_with(APPLY, definition);
    kubectl.ok(&["wait", "--for=condition=established", "crd/ships.example.com", "--timeout=30s"]);
    shows(
        &kubectl.ok(&["describe", "crd", "ships.example.com"]),
        &[
            "Name: ships.example.com",
            "API Version: apiextensions.k8s.io/v1",
            "Kind: CustomResourceDefinition",
            "Group: example.com",
            "Kind: Ship",
            "List Kind: ShipList",
            "Scope: Namespaced",
            "Status:",
            "Accepted Names:",
            "Type: NamesAccepted",
            "Type: Established",
            "Stored Versions:",
            "v1",
        ],
    );
    kubectl
        .ok_with(APPLY, "{apiVersion: example.com/v1, kind: Ship, metadata: {name: a}, spec: {flag: red}}");
    shows(
        &kubectl.ok(&["describe", "ship", "a"]),
        &["Name: a", "Namespace: default", "API Version: example.com/v1", "Kind: Ship", "Spec:", "Flag: red"],
    );
    let event = "
apiVersion: v1
kind: Event
metadata: {name: a.1, namespace: default}
involvedObject: {apiVersion: example.com/v1, kind: Ship, name: a, namespace: default}
type: Normal
reason: Sailed
message: off it went
source: {component: harbour}
firstTimestamp: 2026-01-01T00:00:00Z
lastTimestamp: 2026-01-01T00:00:00Z
count: 3
";
    kubectl.ok_with(APPLY, event);
    shows(
        &kubectl.ok(&["describe", "event", "a.1"]),
        &[
            "Count: 3",
            "Involved Object:",
            "Kind: Ship",
            "Message: off it went",
            "Reason: Sailed",
            "Component: harbour",
        ],
    );
    // Events are found by what they are about.
    let uid = kubectl.ok(&["get", "ship", "a", "-o", "jsonpath={.metadata.uid}"]);
    kubectl.ok(&["delete", "event", "a.1"]);
    kubectl.ok_with(APPLY, &event.replace("name: a, namespace", &format!("uid: {uid}, name: a, namespace")));
    shows(
        &kubectl.ok(&["describe", "ship", "a"]),
        &["Events:", "Type Reason Age From Message", "Normal Sailed …"],
    );
}

#[tokio::test]
async fn what_is_not_there_is_told_and_beginnings_of_names_suffice() {
    let Some(api) = showcase().await else { return };
    let kubectl = &api.kubectl;
    assert_eq!(
        kubectl.fails(&["describe", "pod", "nope", "-n", "show"], ""),
        "Error from server (NotFound): pods \"nope\" not found"
    );
    assert_eq!(squeezed(&kubectl.ok(&["describe", "pod", "bo", "-n", "show"]))[0], "Name: box");
    let none = kubectl.run(&["describe", "pods", "-n", "default"]);
    assert_eq!((none.code, &*none.error), (Some(0), "No resources found in default namespace."));
}
