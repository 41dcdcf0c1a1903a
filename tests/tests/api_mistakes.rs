//! Manifests that are wrong, and what their authors are told.
//!
//! In: real kubectl, one mistake at a time. Out: upstream's sentence, exit code 1, and nothing made.

use serde_json::{Value, json};
use xebec_tests::fixture::{APPLY, Api, CREATE};
use xebec_tests::kubectl::Kubectl;

const TEST: &str = "api_mistakes";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
     must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
     end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

fn pod(spec: &Value) -> String {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": spec }).to_string()
}

fn container(more: &Value) -> String {
    let mut container = json!({ "name": "a", "image": "x" });
    container.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    pod(&json!({ "containers": [container] }))
}

fn workload(kind: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": "web" },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": "x" }] },
            },
        },
    });
    change(&mut object);
    object.to_string()
}

fn service(spec: &Value) -> String {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" }, "spec": spec }).to_string()
}

fn config_map(metadata: &Value, more: &Value) -> String {
    let mut map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
    map.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    map.to_string()
}

fn refused(kubectl: &Kubectl, cases: &[(String, String)]) {
    for (manifest, said) in cases {
        assert_eq!(&kubectl.fails(CREATE, manifest), said, "{manifest}");
    }
}

#[tokio::test]
async fn values_of_the_wrong_type() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let begins = |kind: &str| {
        format!(
            "Error from server (BadRequest): error when creating \"STDIN\": {kind} in version \"v1\" cannot be handled as a \
             {kind}: "
        )
    };
    let go = |kind: &str, what: &str, field: &str, wanted: &str| {
        format!("{}json: cannot unmarshal {what} into Go struct field {field} of type {wanted}", begins(kind))
    };
    refused(
        &kubectl,
        &[
            (
                workload("Deployment", |object| object["spec"]["replicas"] = json!("two")),
                go("Deployment", "string", "DeploymentSpec.spec.replicas", "int32"),
            ),
            (
                service(&json!({ "ports": [{ "port": "http" }] })),
                go("Service", "string", "ServicePort.spec.ports.port", "int32"),
            ),
            (
                config_map(&json!({ "name": "c" }), &json!({ "data": { "a": 1 } })),
                go("ConfigMap", "number", "ConfigMap.data", "string"),
            ),
            (
                container(&json!({ "args": "x" })),
                go("Pod", "string", "Container.spec.containers.args", "[]string"),
            ),
            (
                container(&json!({ "resources": { "requests": { "cpu": "lots" } } })),
                format!(
                    "{}quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                    begins("Pod")
                ),
            ),
        ],
    );
    assert_eq!(kubectl.ok(&["get", "deployments,pods", "-o", "name"]), "");
}

#[tokio::test]
async fn fields_that_do_not_exist() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let strict = |kind: &str, fields: &str| {
        format!(
            "Error from server (BadRequest): error when creating \"STDIN\": {kind} in version \"v1\" cannot be handled as a \
             {kind}: strict decoding error: {fields}"
        )
    };
    refused(
        &kubectl,
        &[
            (
                workload("Deployment", |object| object["spec"]["replcas"] = json!(1)),
                strict("Deployment", "unknown field \"spec.replcas\""),
            ),
            (
                workload("Deployment", |object| {
                    object["spec"]["template"]["spec"]["containers"][0]["imagee"] = json!("y");
                }),
                strict("Deployment", "unknown field \"spec.template.spec.containers[0].imagee\""),
            ),
            (
                config_map(&json!({ "name": "c", "foo": 1 }), &json!({ "dta": {} })),
                strict("ConfigMap", "unknown field \"dta\", unknown field \"metadata.foo\""),
            ),
        ],
    );
    let misspelt = config_map(&json!({ "name": "c" }), &json!({ "dta": {} }));
    let server_side = ["apply", "--server-side", "-f", "-"];
    let told = kubectl.fails(&server_side, &misspelt);
    assert!(
        told.contains("failed to create typed patch object")
            && told.contains(".dta: field not declared in schema"),
        "{told}"
    );
    let warned = kubectl.run_with(&["create", "--validate=warn", "-f", "-"], &misspelt);
    assert_eq!((warned.code, &*warned.error), (Some(0), "Warning: unknown field \"dta\""));
}

#[tokio::test]
async fn names_that_are_none() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let long = "a".repeat(254);
    refused(
        &kubectl,
        &[
            (
                config_map(&json!({ "name": "Bad_Name" }), &json!({})),
                format!("The ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": {SUBDOMAIN}"),
            ),
            (
                config_map(&json!({ "name": long }), &json!({})),
                format!(
                    "The ConfigMap \"{long}\" is invalid: metadata.name: Invalid value: \"{long}\": must be no more than 253 \
                     characters"
                ),
            ),
            (
                config_map(&json!({}), &json!({})),
                "The ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required".into(),
            ),
            (
                service(&json!({ "ports": [{ "port": 80 }] })).replace("\"s\"", "\"1s\""),
                "The Service \"1s\" is invalid: metadata.name: Invalid value: \"1s\": a DNS-1035 label must consist of lower \
                 case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric \
                 character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
                    .into(),
            ),
            (
                workload("Deployment", |object| {
                    object["metadata"]["name"] = json!("Web");
                    object["spec"]["template"]["spec"]["containers"][0]["name"] = json!("Bad_C");
                }),
                format!(
                    "The Deployment \"Web\" is invalid: \n* metadata.name: Invalid value: \"Web\": {SUBDOMAIN}\n* \
                     spec.template.spec.containers[0].name: Invalid value: \"Bad_C\": {LABEL}"
                ),
            ),
            (
                config_map(&json!({ "name": "c", "labels": { "a": "b c" } }), &json!({})),
                "The ConfigMap \"c\" is invalid: metadata.labels: Invalid value: \"b c\": a valid label must be an empty \
                 string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
                 character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                 '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                    .into(),
            ),
            (
                config_map(&json!({ "name": "c" }), &json!({ "data": { "a/b": "" } })),
                "The ConfigMap \"c\" is invalid: data[a/b]: Invalid value: \"a/b\": a valid config key must consist of \
                 alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for \
                 validation is '[-._a-zA-Z0-9]+')"
                    .into(),
            ),
        ],
    );
}

#[tokio::test]
async fn numbers_out_of_range() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let mut cases: Vec<(String, String)> = ["Deployment", "ReplicaSet", "StatefulSet"]
        .iter()
        .map(|kind| {
            let said = format!(
                "The {kind} \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
            );
            (workload(kind, |object| object["spec"]["replicas"] = json!(-1)), said)
        })
        .collect();
    let range = "must be between 1 and 65535, inclusive";
    cases.extend([
        (
            container(&json!({ "ports": [{ "containerPort": 70000 }] })),
            format!("The Pod \"p\" is invalid: spec.containers[0].ports[0].containerPort: Invalid value: 70000: {range}"),
        ),
        (
            service(&json!({ "ports": [{ "port": 99999, "targetPort": 80 }] })),
            format!("The Service \"s\" is invalid: spec.ports[0].port: Invalid value: 99999: {range}"),
        ),
        (
            service(&json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 80 }] })),
            "The Service \"s\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid \
             range. The range of valid ports is 30000-32767"
                .into(),
        ),
        (
            container(&json!({ "resources": { "requests": { "cpu": "2" }, "limits": { "cpu": "1" } } })),
            "The Pod \"p\" is invalid: spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or \
             equal to cpu limit of 1"
                .into(),
        ),
    ]);
    refused(&kubectl, &cases);
}

#[tokio::test]
async fn objects_that_contradict_themselves() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let job = |spec: &Value| json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "j" }, "spec": spec });
    let template = |policy: &str| json!({ "template": { "spec": { "restartPolicy": policy, "containers": [{ "name": "a", "image": "x" }] } } });
    let cron = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "c" },
        "spec": { "schedule": "never ever", "jobTemplate": { "spec": template("Never") } },
    });
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "b" },
        "spec": { "minAvailable": 1, "maxUnavailable": 1 },
    });
    let mismatch = "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`";
    refused(
        &kubectl,
        &[
            (
                workload("Deployment", |object| object["spec"]["selector"]["matchLabels"]["app"] = json!("other")),
                format!("The Deployment \"web\" is invalid: {mismatch}"),
            ),
            (
                workload("Deployment", |object| object["spec"]["selector"] = Value::Null),
                format!("The Deployment \"web\" is invalid: \n* spec.selector: Required value\n* {mismatch}"),
            ),
            (pod(&json!({})), "The Pod \"p\" is invalid: spec.containers: Required value".into()),
            (
                pod(&json!({ "containers": [{ "name": "a" }] })),
                "The Pod \"p\" is invalid: spec.containers[0].image: Required value".into(),
            ),
            (
                pod(&json!({ "containers": [{ "name": "a", "image": "x" }, { "name": "a", "image": "x" }] })),
                "The Pod \"p\" is invalid: spec.containers[1].name: Duplicate value: \"a\"".into(),
            ),
            (
                container(&json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] })),
                "The Pod \"p\" is invalid: spec.containers[0].volumeMounts[0].name: Not found: \"v\"".into(),
            ),
            (
                pod(&json!({ "restartPolicy": "Sometimes", "containers": [{ "name": "a", "image": "x" }] })),
                "The Pod \"p\" is invalid: spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \
                 \"Always\", \"OnFailure\", \"Never\""
                    .into(),
            ),
            (
                job(&template("Always")).to_string(),
                "The Job \"j\" is invalid: spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \
                 \"Never\""
                    .into(),
            ),
            (
                cron.to_string(),
                "The CronJob \"c\" is invalid: spec.schedule: Invalid value: \"never ever\": expected exactly 5 fields, \
                 found 2: [never ever]"
                    .into(),
            ),
            (
                budget.to_string(),
                "The PodDisruptionBudget \"b\" is invalid: spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: \
                 minAvailable and maxUnavailable cannot be both set"
                    .into(),
            ),
            (service(&json!({ "selector": { "a": "b" } })), "The Service \"s\" is invalid: spec.ports: Required value".into()),
        ],
    );
}

#[tokio::test]
async fn places_and_kinds_that_do_not_exist() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let elsewhere = workload("Deployment", |object| object["metadata"]["namespace"] = json!("nope"));
    let nowhere =
        "Error from server (NotFound): error when creating \"STDIN\": namespaces \"nope\" not found";
    assert_eq!(kubectl.fails(CREATE, &elsewhere), nowhere);
    assert_eq!(kubectl.fails(APPLY, &elsewhere), nowhere);
    assert_eq!(
        kubectl.fails(&["apply", "--server-side", "-f", "-"], &elsewhere),
        "Error from server (NotFound): namespaces \"nope\" not found"
    );
    assert_eq!(
        kubectl.fails(&["create", "-n", "default", "-f", "-"], &elsewhere),
        "error: the namespace from the provided object \"nope\" does not match the namespace \"default\". You must pass \
         '--namespace=nope' to perform this operation."
    );
    for version in ["v1", "example.com/v1"] {
        let manifest = json!({ "apiVersion": version, "kind": "Nonsense", "metadata": { "name": "x" } });
        for verb in [APPLY, CREATE] {
            assert_eq!(
                kubectl.fails(verb, &manifest.to_string()),
                format!(
                    "error: resource mapping not found for name: \"x\" namespace: \"\" from \"STDIN\": no matches for kind \
                     \"Nonsense\" in version \"{version}\"\nensure CRDs are installed first"
                )
            );
        }
    }
    for (manifest, said) in [
        ("", "error: no objects passed to apply"),
        ("{\"kind\":\"ConfigMap\"}", "apiVersion not set"),
        ("{\"apiVersion\":\"v1\"}", "kind not set"),
        ("apiVersion: v1\nkind: ConfigMap\n metadata: x", "mapping values are not allowed in this context"),
    ] {
        let told = kubectl.fails(APPLY, manifest);
        assert!(told.contains(said), "{manifest}: {told}");
    }
    let missing = kubectl.fails(&["apply", "-f", "/nowhere/at/all.yaml"], "");
    assert_eq!(missing, "error: the path \"/nowhere/at/all.yaml\" does not exist");
    // Of several objects the good ones are made.
    let good = config_map(&json!({ "name": "good" }), &json!({}));
    let bad = config_map(&json!({ "name": "Bad" }), &json!({}));
    let both = kubectl.run_with(CREATE, &format!("{good}\n---\n{bad}\n"));
    assert_eq!((both.code, &*both.out), (Some(1), "configmap/good created"));
    assert!(both.error.starts_with("The ConfigMap \"Bad\" is invalid: "), "{both:?}");
}
