//! Objects that are refused, and the causes that say why.

use super::*;
use crate::defaults;
use serde_json::json;

/// An object as the registry hands it over: in the schema's form, with its defaults.
fn object(gvk: &Gvk, value: Value) -> Value {
    let mut value = value;
    value["kind"] = (*gvk.kind).into();
    value["apiVersion"] = gvk.api_version().into();
    crate::schema::decode(gvk, &mut value).expect("fits the schema");
    defaults::apply(gvk, &mut value);
    value
}

fn patched(base: &Value, patch: &Value) -> Value {
    let mut value = base.clone();
    json_patch::merge(&mut value, patch);
    value
}

fn created(gvk: &Gvk, value: Value) -> Vec<String> {
    validate_create(gvk, &object(gvk, value)).iter().map(ToString::to_string).collect()
}

fn updated(gvk: &Gvk, new: Value, old: Value) -> Vec<String> {
    let (new, old) = (object(gvk, new), object(gvk, old));
    validate_update(gvk, &new, &old).iter().map(ToString::to_string).collect()
}

/// Each row: a merge patch on a valid object, and the sentences it earns.
fn creations(gvk: &Gvk, base: &Value, rows: &[(Value, &[&str])]) {
    assert_eq!(created(gvk, base.clone()), Vec::<String>::new(), "the base is valid");
    for (patch, expected) in rows {
        assert_eq!(created(gvk, patched(base, patch)), *expected, "{patch}");
    }
}

fn updates(gvk: &Gvk, base: &Value, rows: &[(Value, &[&str])]) {
    assert_eq!(updated(gvk, base.clone(), base.clone()), Vec::<String>::new(), "nothing changes");
    for (patch, expected) in rows {
        assert_eq!(updated(gvk, patched(base, patch), base.clone()), *expected, "{patch}");
    }
}

fn pod() -> Value {
    json!({
        "metadata": { "name": "a", "namespace": "default" },
        "spec": { "containers": [{ "name": "c", "image": "nginx" }] },
    })
}

fn deployment() -> Value {
    json!({
        "metadata": { "name": "a", "namespace": "default" },
        "spec": {
            "selector": { "matchLabels": { "app": "a" } },
            "template": {
                "metadata": { "labels": { "app": "a" } },
                "spec": { "containers": [{ "name": "c", "image": "nginx" }] },
            },
        },
    })
}

fn service() -> Value {
    json!({
        "metadata": { "name": "a", "namespace": "default" },
        "spec": { "ports": [{ "port": 80 }], "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"] },
    })
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                         and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
                         validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

#[test]
fn metadata_of_new_objects() {
    let gvk = Gvk::new("", "v1", "ConfigMap");
    let base = json!({ "metadata": { "name": "a", "namespace": "default" } });
    creations(
        &gvk,
        &base,
        &[
            (
                json!({"metadata": {"name": null}}),
                &["metadata.name: Required value: name or generateName is required"],
            ),
            (
                json!({"metadata": {"name": "A_b"}}),
                &[&format!("metadata.name: Invalid value: \"A_b\": {SUBDOMAIN}")],
            ),
            (
                json!({"metadata": {"annotations": {"a": "x".repeat(256 * 1024)}}}),
                &["metadata.annotations: Too long: may not be more than 262144 bytes"],
            ),
            (
                json!({"metadata": {"finalizers": ["x"]}}),
                &[
                    "metadata.finalizers: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully \
                   qualified",
                ],
            ),
            (
                json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "u"}]}}),
                &["metadata.ownerReferences[0].name: Required value: must not be empty"],
            ),
        ],
    );
}

#[test]
fn metadata_of_changed_objects() {
    let gvk = Gvk::new("", "v1", "ConfigMap");
    let base = json!({ "metadata": {
        "name": "a", "namespace": "default", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["example.com/a"],
    } });
    updates(
        &gvk,
        &base,
        &[
            (json!({"metadata": {"uid": "v"}}), &["metadata.uid: Invalid value: \"v\": field is immutable"]),
            (
                json!({"metadata": {"finalizers": ["example.com/a", "example.com/b"]}}),
                &[
                    "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found \
                   new finalizers []string{\"example.com/b\"}",
                ],
            ),
            (json!({"metadata": {"finalizers": null}}), &[]),
        ],
    );
}

#[test]
fn new_pods() {
    let container = |fields: Value| {
        let mut container = json!({"name": "c", "image": "nginx"});
        json_patch::merge(&mut container, &fields);
        json!({"spec": {"containers": [container]}})
    };
    creations(
        &Gvk::new("", "v1", "Pod"),
        &pod(),
        &[
            (json!({"spec": {"containers": []}}), &["spec.containers: Required value"]),
            (container(json!({"image": ""})), &["spec.containers[0].image: Required value"]),
            (
                json!({"spec": {"containers": [{"name": "c", "image": "a"}, {"name": "c", "image": "b"}]}}),
                &["spec.containers[1].name: Duplicate value: \"c\""],
            ),
            (
                json!({"spec": {"restartPolicy": "Sometimes"}}),
                &[
                    "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \
                   \"Never\"",
                ],
            ),
            (
                container(json!({"ports": [{"containerPort": 70000}]})),
                &[
                    "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, \
                   inclusive",
                ],
            ),
            (
                container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
                &["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
            ),
            (
                container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
                &[
                    "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit \
                   of 1",
                ],
            ),
            (
                container(json!({"resources": {"requests": {"memory": "-1"}}})),
                &[
                    "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal \
                   to 0",
                ],
            ),
            (
                container(json!({"livenessProbe": {"httpGet": {"port": 80}, "exec": {"command": ["x"]}}})),
                &[
                    "spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
                ],
            ),
            (
                container(
                    json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]}),
                ),
                &[
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nope\": error \
                   converting fieldPath: field label not supported: spec.nope",
                ],
            ),
            (
                json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}}]}}),
                &["spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
            ),
            (
                json!({"spec": {"activeDeadlineSeconds": 0}}),
                &[
                    "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
                ],
            ),
        ],
    );
}

#[test]
fn a_running_pod_hardly_changes() {
    let gvk = Gvk::new("", "v1", "Pod");
    let image =
        json!({"spec": {"containers": [{"name": "c", "image": "nginx:2", "imagePullPolicy": "Always"}]}});
    assert_eq!(updated(&gvk, patched(&pod(), &image), pod()), Vec::<String>::new());
    let errors = updated(&gvk, patched(&pod(), &json!({"spec": {"hostNetwork": true}})), pod());
    assert_eq!(errors.len(), 1, "{errors:?}");
    let text = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,";
    assert!(errors[0].starts_with(text), "{errors:?}");
    let more = json!({"spec": {"containers": [{"name": "c", "image": "a"}, {"name": "d", "image": "b"}]}});
    assert_eq!(
        updated(&gvk, patched(&pod(), &more), pod()),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
}

#[test]
fn deployments() {
    let gvk = Gvk::new("apps", "v1", "Deployment");
    creations(
        &gvk,
        &deployment(),
        &[
            (
                json!({"spec": {"replicas": -1}}),
                &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"spec": {"template": {"metadata": {"labels": {"app": "b"}}}}}),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template \
                   `labels`",
                ],
            ),
            (
                json!({"spec": {"selector": {"matchLabels": null}}}),
                &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
            ),
            (
                // A selector that is missing selects nothing, as upstream has it.
                json!({"spec": {"selector": null}}),
                &[
                    "spec.selector: Required value",
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}}),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}}),
                &[
                    "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                ],
            ),
            (
                json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
                &[
                    "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ],
            ),
            (
                json!({"spec": {"minReadySeconds": 600, "progressDeadlineSeconds": 600}}),
                &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
            ),
        ],
    );
    let other = json!({"spec": {
        "selector": {"matchLabels": {"app": "b"}}, "template": {"metadata": {"labels": {"app": "b"}}},
    }});
    let sentence = "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable";
    updates(&gvk, &deployment(), &[(json!({"spec": {"replicas": 3}}), &[]), (other, &[sentence])]);
}

#[test]
fn new_services() {
    creations(
        &Gvk::new("", "v1", "Service"),
        &service(),
        &[
            (json!({"spec": {"ports": []}}), &["spec.ports: Required value"]),
            (
                json!({"spec": {"ports": [{"port": 0}]}}),
                &[
                    "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                json!({"spec": {"ports": [{"port": 80, "nodePort": 30080}]}}),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                json!({"spec": {"ports": [{"port": 80}, {"port": 81}]}}),
                &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
            ),
            (
                json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}}),
                &["spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}"],
            ),
            (
                json!({"spec": {"type": "ExternalName"}}),
                &[
                    "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
                    "spec.externalName: Required value",
                ],
            ),
            (
                json!({"spec": {"type": "NodePort", "clusterIP": "None", "clusterIPs": ["None"]}}),
                &[
                    "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
                ],
            ),
            (
                json!({"spec": {"clusterIP": "10.96.0.300", "clusterIPs": ["10.96.0.300"]}}),
                &[
                    "spec.clusterIPs[0]: Invalid value: \"10.96.0.300\": must be a valid IP address, (e.g. 10.9.8.7 or \
                   2001:db8::ffff)",
                ],
            ),
            (
                json!({"spec": {"externalIPs": ["127.0.0.1"]}}),
                &[
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, \
                   ::1/128)",
                ],
            ),
            (
                json!({"spec": {"sessionAffinity": "ClientIP", "sessionAffinityConfig":
                    {"clientIP": {"timeoutSeconds": 86401}}}}),
                &[
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and \
                   less than 86400",
                ],
            ),
            (
                json!({"spec": {"clusterIPs": ["10.96.0.7", "10.96.0.8"]}}),
                &[
                    "spec.clusterIPs: Invalid value: [\"10.96.0.7\",\"10.96.0.8\"]: may specify no more than one IP for \
                   each IP family",
                ],
            ),
            (
                json!({"metadata": {"name": "1a"}}),
                &[
                    "metadata.name: Invalid value: \"1a\": a DNS-1035 label must consist of lower case alphanumeric \
                   characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. \
                   'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
        ],
    );
}

#[test]
fn a_service_keeps_its_addresses() {
    let dual = patched(
        &service(),
        &json!({"spec": {
            "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "clusterIPs": ["10.96.0.7", "fd00::7"],
        }}),
    );
    updates(
        &Gvk::new("", "v1", "Service"),
        &dual,
        &[
            (
                json!({"spec": {"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8", "fd00::7"]}}),
                &["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\",\"fd00::7\"]: may not change once set"],
            ),
            (
                json!({"spec": {"clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"]}}),
                &[
                    "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when \
                     releasing the secondary clusterIP",
                    "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when \
                     releasing the secondary ipFamily",
                ],
            ),
            (
                json!({"spec": {"clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}}),
                &[],
            ),
            (
                json!({"spec": {"type": "ExternalName", "externalName": "example.com", "clusterIP": null,
                    "clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null}}),
                &[],
            ),
        ],
    );
}

#[test]
fn config_maps_and_secrets() {
    let map = Gvk::new("", "v1", "ConfigMap");
    let base = json!({"metadata": {"name": "a", "namespace": "default"}, "data": {"k": "v"}});
    let key = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
               'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
    creations(
        &map,
        &base,
        &[
            (json!({"data": {"a b": "x"}}), &[&format!("data[a b]: Invalid value: \"a b\": {key}")]),
            (
                json!({"binaryData": {"k": "eA=="}}),
                &["data[k]: Invalid value: \"k\": duplicate of key present in binaryData"],
            ),
            (
                json!({"data": {"k": "x".repeat(1024 * 1024 + 1)}}),
                &["[]: Too long: may not be more than 1048576 bytes"],
            ),
        ],
    );
    let frozen = patched(&base, &json!({"immutable": true}));
    updates(
        &map,
        &frozen,
        &[
            (json!({"data": {"k": "w"}}), &["data: Forbidden: field is immutable when `immutable` is set"]),
            (
                json!({"immutable": null}),
                &["immutable: Forbidden: field is immutable when `immutable` is set"],
            ),
            (json!({"metadata": {"labels": {"a": "b"}}}), &[]),
        ],
    );
    let secret = Gvk::new("", "v1", "Secret");
    let base = json!({"metadata": {"name": "a", "namespace": "default"}, "data": {"k": "dg=="}});
    creations(
        &secret,
        &base,
        &[
            (
                json!({"type": "kubernetes.io/tls"}),
                &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
            ),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
            (json!({"type": "kubernetes.io/dockerconfigjson"}), &["data[.dockerconfigjson]: Required value"]),
        ],
    );
    let sentence = "type: Invalid value: \"example.com/x\": field is immutable";
    updates(&secret, &base, &[(json!({"type": "example.com/x"}), &[sentence])]);
}

#[test]
fn nodes() {
    let gvk = Gvk::new("", "v1", "Node");
    let base =
        json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.1.0.0/24"], "podCIDR": "10.1.0.0/24"}});
    let taint = json!({"key": "a", "effect": "NoSchedule"});
    creations(
        &gvk,
        &base,
        &[
            (
                json!({"spec": {"taints": [taint.clone(), taint]}}),
                &[
                    "metadata.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be unique by \
                   key and effect pair",
                ],
            ),
            (
                json!({"spec": {"podCIDRs": ["10.1.0.0/24", "10.2.0.0/24"]}}),
                &[
                    "spec.podCIDRs: Invalid value: [\"10.1.0.0/24\",\"10.2.0.0/24\"]: may specify no more than one CIDR for \
                   each IP family",
                ],
            ),
            (
                json!({"status": {"allocatable": {"cpu": "-1"}}}),
                &["status.allocatable.cpu: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
        ],
    );
    let changed = "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid";
    updates(
        &gvk,
        &base,
        &[
            (json!({"spec": {"podCIDRs": ["10.2.0.0/24"]}}), &[changed]),
            (json!({"spec": {"unschedulable": true}}), &[]),
        ],
    );
}

#[test]
fn endpoint_slices_name_no_node_local_address() {
    let gvk = Gvk::new("discovery.k8s.io", "v1", "EndpointSlice");
    let base = json!({
        "metadata": {"name": "a", "namespace": "default"}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}],
    });
    creations(&gvk, &base, &[]);
    for (kind, addresses) in [
        (
            "IPv4",
            &["0.0.0.0", "127.0.0.1", "127.8.8.8", "169.254.169.254", "224.0.0.1", "010.0.0.1", "fd00::1"][..],
        ),
        ("IPv6", &["::", "::1", "::ffff:127.0.0.1", "fe80::1", "ff02::1", "10.0.0.1"][..]),
    ] {
        for address in addresses {
            let patch = json!({"addressType": kind, "endpoints": [{"addresses": [address]}]});
            let errors = created(&gvk, patched(&base, &patch));
            let place = format!("endpoints[0].addresses[0]: Invalid value: \"{address}\": ");
            assert!(errors.iter().any(|error| error.starts_with(&place)), "{address}: {errors:?}");
        }
    }
    let sentence = "addressType: Invalid value: \"FQDN\": field is immutable";
    let patch = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.example.com"]}]});
    updates(&gvk, &base, &[(patch, &[sentence])]);
}

#[test]
fn small_kinds() {
    let lease = json!({"metadata": {"name": "a", "namespace": "x"}, "spec": {"leaseDurationSeconds": 0}});
    assert_eq!(
        created(&Gvk::new("coordination.k8s.io", "v1", "Lease"), lease),
        ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]
    );
    let event = json!({
        "metadata": {"name": "a", "namespace": "x"}, "involvedObject": {"namespace": "y", "name": "p"},
    });
    assert_eq!(
        created(&Gvk::new("", "v1", "Event"), event),
        ["involvedObject.namespace: Invalid value: \"y\": does not match event.namespace"]
    );
    let namespace = json!({"metadata": {"name": "a.b"}});
    assert_eq!(created(&Gvk::new("", "v1", "Namespace"), namespace).len(), 1);
    let account = json!({"metadata": {"name": "a", "namespace": "x"}});
    assert_eq!(created(&Gvk::new("", "v1", "ServiceAccount"), account), Vec::<String>::new());
}

#[test]
fn a_status_does_not_revive_what_ended() {
    let gvk = Gvk::new("", "v1", "Pod");
    let with = |state: Value| {
        let statuses = json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
        object(
            &gvk,
            patched(
                &pod(),
                &json!({
                    "spec": {"restartPolicy": "Never"}, "status": {"containerStatuses": statuses},
                }),
            ),
        )
    };
    let (ended, running) = (with(json!({"terminated": {"exitCode": 1}})), with(json!({"running": {}})));
    assert_eq!(validate_status(&gvk, &ended, &running), []);
    assert_eq!(
        validate_status(&gvk, &running, &ended)[0].to_string(),
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    );
}
