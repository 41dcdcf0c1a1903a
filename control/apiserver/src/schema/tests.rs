//! Expectations from upstream's wire format and the messages its decoder gives.

use serde_json::{Value, json};

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "a call reads as one literal")]
fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec})
}

fn problem(mut object: Value) -> String {
    let (group, version) = match object["apiVersion"].as_str().unwrap().split_once('/') {
        Some((group, version)) => (group.to_owned(), version.to_owned()),
        None => (String::new(), object["apiVersion"].as_str().unwrap().to_owned()),
    };
    let kind = object["kind"].as_str().unwrap().to_owned();
    decode(&Gvk::new(&group, &version, &kind), &mut object).unwrap_err().to_string()
}

#[test]
fn every_served_kind_has_a_definition() {
    let schema = Schema::global().unwrap();
    for resource in crate::kinds::builtin() {
        assert!(schema.kind(&resource.gvk).is_some(), "{}", resource.gvk);
        // What a connection begins with is a query, not a body.
        let options = |kind: &str| kind.ends_with("Options");
        for subresource in resource.subresources.iter().filter(|known| !options(&known.gvk.kind)) {
            assert!(schema.kind(&subresource.gvk).is_some(), "{}", subresource.gvk);
        }
    }
}

#[test]
fn merge_information_is_there() {
    let schema = Schema::global().unwrap();
    let pod_spec = schema.named("io.k8s.api.core.v1.PodSpec").unwrap();
    let containers = pod_spec.property("containers").unwrap();
    assert!(containers.patch.merge && containers.required);
    assert_eq!(containers.patch.merge_key.as_deref(), Some("name"));
    assert_eq!(containers.list, ListType::Map(["name".into()].into()));
    let volumes = pod_spec.property("volumes").unwrap();
    assert!(volumes.patch.merge && volumes.patch.retain_keys);
    let strategy = schema.named("io.k8s.api.apps.v1.DeploymentSpec").unwrap().property("strategy").unwrap();
    assert!(strategy.patch.retain_keys && !strategy.patch.merge);
    assert!(pod_spec.property("nodeSelector").unwrap().atomic);
}

#[test]
fn wrong_types_are_named_as_upstream_names_them() {
    let cases = [
        (
            deployment(json!({"replicas": "3"})),
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go \
             struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            deployment(json!({"replicas": 3_000_000_000_u64})),
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number \
             3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            deployment(json!([])),
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal array into Go \
             struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            deployment(
                json!({"template": {"spec": {"containers": [{"ports": [{"containerPort": "http"}]}]}}}),
            ),
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go \
             struct field ContainerPort.spec.template.spec.containers.ports.containerPort of type int32",
        ),
        (
            deployment(json!({"template": {"spec": {"containers": {"name": "a"}}}})),
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal object into Go \
             struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": 1}}}),
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field \
             ObjectMeta.metadata.labels of type string",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [
                {"resources": {"limits": {"cpu": "one"}}}]}}),
            "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "%"}}),
            "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"targetPort": true}]}}),
            "Service in version \"v1\" cannot be handled as a Service: json: cannot unmarshal bool into Go value of \
             type int32",
        ),
    ];
    for (object, expected) in cases {
        assert_eq!(problem(object), expected);
    }
}

#[test]
fn unknown_fields_are_dropped_and_reported() {
    let mut object = deployment(json!({
        "foo": 1,
        "template": {"spec": {"containers": [{"name": "a"}, {"imag": "b"}]}},
    }));
    let problems = decode(&Gvk::new("apps", "v1", "Deployment"), &mut object).unwrap();
    let expected = ["unknown field \"spec.foo\"", "unknown field \"spec.template.spec.containers[1].imag\""];
    assert_eq!(problems, expected);
    assert_eq!(object["spec"], json!({"template": {"spec": {"containers": [{"name": "a"}, {"name": ""}]}}}));
}

#[test]
fn values_take_their_stored_form() {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"creationTimestamp": null, "labels": {"a": null}, "annotations": {},
            "deletionTimestamp": "2024-01-02T03:04:05.678+01:00"},
        "spec": {"nodeName": null, "volumes": [], "containers": [
            {"resources": {"limits": {"cpu": 1.5, "memory": "1024Mi", "x/y": null}}}]},
    });
    assert!(decode(&Gvk::new("", "v1", "Pod"), &mut object).unwrap().is_empty());
    assert_eq!(
        object,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"labels": {"a": ""}, "deletionTimestamp": "2024-01-02T02:04:05Z"},
            "spec": {"containers": [
                {"name": "", "resources": {"limits": {"cpu": "1500m", "memory": "1Gi", "x/y": "0"}}}]},
        })
    );
    let mut lease = json!({"spec": {"renewTime": "2024-01-02T03:04:05.6Z"}});
    decode(&Gvk::new("coordination.k8s.io", "v1", "Lease"), &mut lease).unwrap();
    assert_eq!(lease["spec"]["renewTime"], "2024-01-02T03:04:05.600000Z");
}

#[test]
fn required_scalars_are_always_there() {
    let mut set = json!({"spec": {"selector": {}}, "status": {}});
    decode(&Gvk::new("apps", "v1", "ReplicaSet"), &mut set).unwrap();
    assert_eq!(set, json!({"spec": {"selector": {}}, "status": {"replicas": 0}}));
}

#[test]
fn base64_is_read_as_go_reads_it() {
    for (text, canonical) in [("YQ==", "YQ=="), ("YW\nJj\r\n", "YWJj"), ("YR==", "YQ=="), ("", "")] {
        let read = base64_text::canonical(text).unwrap();
        assert_eq!(read.as_deref().unwrap_or(text), canonical);
    }
    for (text, place) in
        [("a", 0), ("YWJjYQ", 4), ("YQ=", 3), ("YQ==YQ==", 4), ("Y=", 1), ("YW*j", 2), ("=", 0)]
    {
        let error = base64_text::canonical(text).unwrap_err();
        assert_eq!(error, format!("illegal base64 data at input byte {place}"), "{text}");
    }
}
