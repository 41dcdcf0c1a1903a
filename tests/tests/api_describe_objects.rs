//! `kubectl describe` of what pods are reached by and given, of rights, definitions and events.
//!
//! In: one object of each kind. Out: what kubectl says of each. What is expected follows from the objects and from the
//! order and the words of kubectl's describers.

use xebec_tests::fixture::{APPLY, Api};
use xebec_tests::kubectl::{shows, squeezed};

const TEST: &str = "api_describe_objects";

fn describe(api: &Api, object: &str) -> String {
    api.kubectl.ok(&["describe", "-n", "show", object])
}

#[tokio::test]
async fn what_pods_are_reached_by() {
    let Some(api) = Api::showcase(TEST).await else { return };
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
    api.settled("endpoints/box", "{.subsets[0].addresses[0].ip}=10.244.0.5");
    let slice = api.slice();
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
    let Some(api) = Api::showcase(TEST).await else { return };
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
    api.settled("pdb/web", "{.status.expectedPods}=2");
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
    api.settled("resourcequota/room", "{.status.used.secrets}=1");
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
    let Some(api) = Api::showcase(TEST).await else { return };
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
    let Some(api) = Api::showcase(TEST).await else { return };
    let kubectl = &api.kubectl;
    assert_eq!(
        kubectl.fails(&["describe", "pod", "nope", "-n", "show"], ""),
        "Error from server (NotFound): pods \"nope\" not found"
    );
    assert_eq!(squeezed(&kubectl.ok(&["describe", "pod", "bo", "-n", "show"]))[0], "Name: box");
    let none = kubectl.run(&["describe", "pods", "-n", "default"]);
    assert_eq!((none.code, &*none.error), (Some(0), "No resources found in default namespace."));
}
