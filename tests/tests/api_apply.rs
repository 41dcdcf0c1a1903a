//! `kubectl apply`, `diff`, `replace`, `patch` and `edit`: what they change, what they leave, who owns a field.
//!
//! In: kubectl 1.37, a control plane. Out: kubectl's words and exit codes, and the objects afterwards.

use serde_json::{Value, json};
use xebec_tests::fixture::{APPLY, Api, CREATE};
use xebec_tests::kubectl::Kubectl;

const TEST: &str = "api_apply";

fn map(data: &Value) -> String {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "shared" }, "data": data })
        .to_string()
}

fn deployment(containers: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "replicas": 0, "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": containers } },
        },
    })
}

fn data(kubectl: &Kubectl) -> Value {
    kubectl.json(&["get", "configmap", "shared"])["data"].clone()
}

fn version(kubectl: &Kubectl, object: &str) -> String {
    kubectl.ok(&["get", object, "-o", "jsonpath={.metadata.resourceVersion}"])
}

fn server_side<'a>(manager: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["apply", "--server-side", "--field-manager", manager], more, &["-f", "-"]].concat()
}

fn fields(kubectl: &Kubectl, object: &str, manager: &str) -> Value {
    let object = kubectl.json(&["get", object, "--show-managed-fields"]);
    let entries = object["metadata"]["managedFields"].as_array().expect("a record").clone();
    let entry =
        entries.into_iter().find(|entry| entry["manager"] == manager && entry.get("subresource").is_none());
    entry.map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

#[tokio::test]
async fn what_left_the_manifest_leaves_the_object_and_others_fields_stay() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    kubectl.ok_with(APPLY, &map(&json!({ "a": "1", "b": "2" })));
    kubectl.ok(&["patch", "configmap", "shared", "--type=merge", "-p", r#"{"data":{"c":"theirs"}}"#]);
    assert_eq!(kubectl.ok_with(APPLY, &map(&json!({ "a": "1" }))), "configmap/shared configured");
    assert_eq!(data(&kubectl), json!({ "a": "1", "c": "theirs" }));
    let last = "jsonpath={.metadata.annotations.kubectl\\.kubernetes\\.io/last-applied-configuration}";
    let last: Value =
        serde_json::from_str(&kubectl.ok(&["get", "configmap", "shared", "-o", last])).expect("JSON");
    assert_eq!(last["data"], json!({ "a": "1" }));
    let viewed = kubectl.ok(&["apply", "view-last-applied", "configmap/shared", "-o", "json"]);
    assert!(viewed.contains("\"a\": \"1\""), "{viewed}");

    let two = deployment(&json!([{ "name": "one", "image": "i" }, { "name": "two", "image": "i" }]));
    kubectl.ok_with(APPLY, &two.to_string());
    kubectl.ok(&["scale", "deployment", "web", "--replicas=3"]);
    let mut one =
        deployment(&json!([{ "name": "one", "image": "j", "env": [{ "name": "A", "value": "b" }] }]));
    one["spec"].as_object_mut().expect("a spec").remove("replicas");
    assert_eq!(kubectl.ok_with(APPLY, &one.to_string()), "deployment.apps/web configured");
    let live = kubectl.json(&["get", "deployment", "web"]);
    let containers = live["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
    assert_eq!(containers.len(), 1, "{containers:?}");
    assert_eq!((&containers[0]["image"], &containers[0]["env"][0]["value"]), (&json!("j"), &json!("b")));
    assert_eq!(live["spec"]["replicas"], 1, "what was given up goes back to its default");
    let adopted = kubectl.run_with(&["create", "-f", "-"], &map(&json!({})).replace("shared", "bare"));
    assert_eq!(adopted.code, Some(0), "{adopted:?}");
    let warned = kubectl.run_with(APPLY, &map(&json!({ "a": "1" })).replace("shared", "bare"));
    assert_eq!((warned.code, &*warned.out), (Some(0), "configmap/bare configured"));
    let begins = "Warning: resource configmaps/bare is missing the kubectl.kubernetes.io/last-applied-configuration \
                  annotation";
    assert!(warned.error.starts_with(begins), "{}", warned.error);
}

#[tokio::test]
async fn a_second_apply_writes_nothing() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let manifests = [
        map(&json!({ "a": "1" })),
        // Spelt otherwise than it is kept: quantities, defaults, a port without its protocol.
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "pod" },
            "spec": { "nodeSelector": { "nowhere": "true" }, "containers": [{
                "name": "c", "image": "i", "ports": [{ "containerPort": 80 }],
                "resources": { "limits": { "cpu": "0.5", "memory": "1024Mi" } },
            }] },
        })
        .to_string(),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "svc" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] },
        })
        .to_string(),
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys" }, "stringData": { "a": "b" },
        })
        .to_string(),
    ];
    let objects = ["configmap/shared", "pod/pod", "service/svc", "secret/keys"];
    for (manifest, object) in manifests.iter().zip(objects) {
        assert_eq!(kubectl.ok_with(APPLY, manifest), format!("{object} created"));
    }
    kubectl.ok(&[
        "wait",
        "--for=jsonpath={.status.conditions[0].type}=PodScheduled",
        "pod/pod",
        "--timeout=30s",
    ]);
    for (manifest, object) in manifests.iter().zip(objects) {
        let before = version(&kubectl, object);
        // kubectl sends what is spelt otherwise again: the server sees that nothing changes.
        let said = kubectl.ok_with(APPLY, manifest);
        let is_spelt_otherwise = ["secret/keys", "pod/pod"].contains(&object);
        let expected = if is_spelt_otherwise { "configured" } else { "unchanged" };
        assert_eq!(said, format!("{object} {expected}"));
        assert_eq!(version(&kubectl, object), before, "{object}");
    }
    for manifest in &manifests[..3] {
        kubectl.ok_with(&server_side("other", &["--force-conflicts"]), manifest);
    }
    for (manifest, object) in manifests[..3].iter().zip(objects) {
        let before = version(&kubectl, object);
        let said = kubectl.ok_with(&server_side("other", &[]), manifest);
        assert_eq!(said, format!("{object} serverside-applied"));
        assert_eq!(version(&kubectl, object), before, "{object} server-side");
    }
}

#[tokio::test]
async fn two_appliers_conflict_and_the_causes_are_told() {
    let Some(api) = Api::start(TEST).await else { return };
    let kubectl = &api.kubectl;
    kubectl.ok_with(&server_side("one", &[]), &map(&json!({ "a": "1", "b": "2" })));
    let conflict = kubectl.fails(&server_side("two", &[]), &map(&json!({ "a": "9", "b": "9" })));
    let lines: Vec<&str> = conflict.lines().collect();
    assert_eq!(
        lines[..3],
        ["error: Apply failed with 2 conflicts: conflicts with \"one\":", "- .data.a", "- .data.b"]
    );
    assert!(
        conflict.contains("re-run the apply\n  command with the `--force-conflicts` flag."),
        "{conflict}"
    );
    assert_eq!(data(kubectl), json!({ "a": "1", "b": "2" }));

    // What tools read: the status itself.
    let client = api.control.client().await;
    let path = "/api/v1/namespaces/default/configmaps/shared?fieldManager=two";
    let request = http::Request::patch(path)
        .header("content-type", "application/apply-patch+yaml")
        .body(map(&json!({ "a": "9" })).into_bytes())
        .expect("a request");
    let Err(kube::Error::Api(status)) = client.request::<Value>(request).await else {
        panic!("it conflicts")
    };
    assert_eq!((status.code, &*status.reason), (409, "Conflict"));
    let causes = status.details.expect("details").causes;
    let cause = &causes[0];
    assert_eq!((&*cause.reason, &*cause.field), ("FieldManagerConflict", ".data.a"));
    assert_eq!(cause.message, "conflict with \"one\"");

    let forced = kubectl.ok_with(&server_side("two", &["--force-conflicts"]), &map(&json!({ "a": "9" })));
    assert_eq!(forced, "configmap/shared serverside-applied");
    assert_eq!(data(kubectl), json!({ "a": "9", "b": "2" }));
    assert_eq!(fields(kubectl, "configmap/shared", "one"), json!({ "f:data": { "f:b": {} } }));
    assert_eq!(fields(kubectl, "configmap/shared", "two"), json!({ "f:data": { "f:a": {} } }));

    // Agreeing is no conflict; then the field has two owners and stays until both drop it.
    kubectl.ok_with(&server_side("three", &[]), &map(&json!({ "a": "9" })));
    kubectl.ok_with(&server_side("two", &[]), &map(&json!({ "d": "4" })));
    assert_eq!(data(kubectl), json!({ "a": "9", "b": "2", "d": "4" }));
    kubectl.ok_with(&server_side("three", &[]), &map(&json!({ "e": "5" })));
    assert_eq!(
        data(kubectl),
        json!({ "b": "2", "d": "4", "e": "5" }),
        "a field dropped by its only owner goes"
    );
    let plain = map(&json!({ "e": "5" }));
    let labelled = plain.replace("\"name\"", "\"labels\":{\"tier\":\"front\"},\"name\"");
    kubectl.ok_with(&server_side("three", &[]), &labelled);
    assert_eq!(kubectl.ok(&["get", "configmaps", "-l", "tier=front", "-o", "name"]), "configmap/shared");
    kubectl.ok_with(&server_side("three", &[]), &plain);
    assert_eq!(kubectl.ok(&["get", "configmaps", "-l", "tier=front", "-o", "name"]), "");
    assert_eq!(
        kubectl.fails(&["apply", "--force-conflicts", "-f", "-"], &map(&json!({}))),
        "error: --force-conflicts only works with --server-side"
    );
}

#[tokio::test]
async fn owners_survive_a_round_trip() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let mut web = deployment(&json!([{ "name": "one", "image": "i", "ports": [{ "containerPort": 80 }] }]));
    web["spec"]["template"]["spec"]["volumes"] = json!([{ "name": "v", "emptyDir": {} }]);
    kubectl.ok_with(&server_side("one", &[]), &web.to_string());
    let owned = fields(&kubectl, "deployment/web", "one");
    let containers = &owned["f:spec"]["f:template"]["f:spec"]["f:containers"];
    assert_eq!(
        containers,
        &json!({ "k:{\"name\":\"one\"}": {
            ".": {}, "f:image": {}, "f:name": {},
            "f:ports": { "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {} } },
        } })
    );
    let volumes = &owned["f:spec"]["f:template"]["f:spec"]["f:volumes"];
    assert_eq!(volumes, &json!({ "k:{\"name\":\"v\"}": { ".": {}, "f:emptyDir": {}, "f:name": {} } }));

    // The whole object goes out and comes in again: nothing changes, no owner is lost.
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=30s"]);
    let out = kubectl.ok(&["get", "deployment", "web", "-o", "yaml", "--show-managed-fields"]);
    let before = kubectl.json(&["get", "deployment", "web", "--show-managed-fields"]);
    assert_eq!(kubectl.ok_with(&["replace", "-f", "-"], &out), "deployment.apps/web replaced");
    assert_eq!(kubectl.json(&["get", "deployment", "web", "--show-managed-fields"]), before);
    kubectl.ok(&["scale", "deployment", "web", "--replicas=2"]);
    let scaled = kubectl.json(&["get", "deployment", "web", "--show-managed-fields"]);
    let entries = scaled["metadata"]["managedFields"].as_array().expect("a record");
    let scale = entries.iter().find(|entry| entry["subresource"] == "scale").expect("who scaled");
    assert_eq!(
        (&scale["operation"], &scale["fieldsV1"]),
        (&json!("Update"), &json!({ "f:spec": { "f:replicas": {} } }))
    );
    let conflict = kubectl.fails(&server_side("one", &[]), &web.to_string());
    assert!(conflict.contains(".spec.replicas"), "{conflict}");
    web["spec"].as_object_mut().expect("a spec").remove("replicas");
    kubectl.ok_with(&server_side("one", &[]), &web.to_string());
    assert_eq!(kubectl.json(&["get", "deployment", "web"])["spec"]["replicas"], 2, "left to whoever scales");

    // From client-side to server-side: what kubectl applied before is its own.
    kubectl.ok_with(APPLY, &map(&json!({ "a": "1", "b": "2" })));
    let moved = kubectl.run_with(&["apply", "--server-side", "-f", "-"], &map(&json!({ "a": "3" })));
    assert_eq!((moved.code, &*moved.out), (Some(0), "configmap/shared serverside-applied"), "{moved:?}");
    assert_eq!(data(&kubectl), json!({ "a": "3" }));
}

#[tokio::test]
async fn differences_are_shown_and_counted_in_the_exit_code() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let diff =
        |more: &[&str], manifest: &str| kubectl.run_with(&[&["diff"], more, &["-f", "-"]].concat(), manifest);
    let new = diff(&[], &map(&json!({ "a": "1" })));
    assert_eq!(new.code, Some(1), "{new:?}");
    assert!(new.out.lines().any(|line| line == "+  a: \"1\""), "{}", new.out);
    kubectl.ok_with(APPLY, &map(&json!({ "a": "1" })));
    let same = diff(&[], &map(&json!({ "a": "1" })));
    assert_eq!((same.code, &*same.out, &*same.error), (Some(0), "", ""));
    let before = version(&kubectl, "configmap/shared");
    for more in [&[][..], &["--server-side", "--force-conflicts"]] {
        let changed = diff(more, &map(&json!({ "a": "2", "b": "3" })));
        assert_eq!(changed.code, Some(1), "{changed:?}");
        let changes: Vec<&str> = changed
            .out
            .lines()
            .filter(|line| ["+  a", "+  b", "-  a", "-  b"].iter().any(|begins| line.starts_with(begins)))
            .collect();
        assert_eq!(changes, ["-  a: \"1\"", "+  a: \"2\"", "+  b: \"3\""], "{more:?}");
    }
    assert_eq!(version(&kubectl, "configmap/shared"), before, "a difference writes nothing");
    let broken = diff(&[], &map(&json!({ "a": "1" })).replace("\"data\"", "\"dta\""));
    assert!(broken.code.is_some_and(|code| code > 1) || broken.code == Some(1), "{broken:?}");
    assert!(broken.error.contains("unknown field \"dta\""), "{broken:?}");
}

#[tokio::test]
async fn replacing_takes_the_whole_object() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    assert_eq!(
        kubectl.fails(&["replace", "-f", "-"], &map(&json!({}))),
        "Error from server (NotFound): error when replacing \"STDIN\": configmaps \"shared\" not found"
    );
    kubectl.ok_with(CREATE, &map(&json!({ "a": "1", "b": "2" })));
    assert_eq!(
        kubectl.ok_with(&["replace", "-f", "-"], &map(&json!({ "c": "3" }))),
        "configmap/shared replaced"
    );
    assert_eq!(data(&kubectl), json!({ "c": "3" }));
    let uid = || kubectl.ok(&["get", "configmap", "shared", "-o", "jsonpath={.metadata.uid}"]);
    let before = uid();
    let forced = kubectl.ok_with(&["replace", "--force", "-f", "-"], &map(&json!({ "d": "4" })));
    assert_eq!(forced, "configmap \"shared\" deleted from default namespace\nconfigmap/shared replaced");
    assert_ne!(uid(), before, "--force makes a new one");
    let mut old = kubectl.json(&["get", "configmap", "shared"]);
    old["metadata"]["uid"] = json!("11111111-1111-1111-1111-111111111111");
    let refused = kubectl.fails(&["replace", "-f", "-"], &old.to_string());
    assert!(refused.contains("Precondition failed: UID in precondition: 11111111-"), "{refused}");
    let web = deployment(&json!([{ "name": "one", "image": "i" }]));
    kubectl.ok_with(CREATE, &web.to_string());
    let moved = web.to_string().replace("\"app\":\"web\"", "\"app\":\"other\"");
    let immutable = kubectl.fails(&["replace", "-f", "-"], &moved);
    assert!(
        immutable.starts_with("The Deployment \"web\" is invalid: spec.selector: Invalid value: ")
            && immutable.ends_with(": field is immutable"),
        "{immutable}"
    );
}

#[tokio::test]
async fn patches_that_do_not_fit_are_refused() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    kubectl.ok_with(CREATE, &map(&json!({ "a": "1" })));
    let fails = |kind: &str, patch: &str| {
        kubectl.fails(&["patch", "configmap", "shared", "--type", kind, "-p", patch], "")
    };
    let test = fails("json", r#"[{"op":"test","path":"/data/a","value":"2"}]"#);
    assert_eq!(test, "The request is invalid: : testing value /data/a failed: test failed");
    assert_eq!(
        fails("json", r#"[{"op":"remove","path":"/data/z"}]"#),
        "The request is invalid: : error in remove for path: '/data/z': Unable to remove nonexistent key: z: missing \
         value"
    );
    let decoding = "Error from server (BadRequest): error decoding patch: ";
    assert!(fails("json", r#"{"data":{}}"#).starts_with(decoding));
    assert!(fails("merge", "{").starts_with(decoding));
    assert!(fails("merge", r#"{"data":{"a":5}}"#).contains("cannot unmarshal number"));
    let renamed = fails("merge", r#"{"metadata":{"name":"other"}}"#);
    assert!(
        renamed.contains("the name of the object (other) does not match the name on the URL (shared)"),
        "{renamed}"
    );
    assert_eq!(
        kubectl.fails(&["patch", "configmap", "nope", "-p", "{}"], ""),
        "Error from server (NotFound): configmaps \"nope\" not found"
    );
    assert_eq!(
        kubectl.fails(&["patch", "configmap", "shared"], ""),
        "error: must specify --patch or --patch-file containing the contents of the patch"
    );
    let json = r#"[{"op":"add","path":"/data/b","value":"2"},{"op":"copy","from":"/data/b","path":"/data/c"},
        {"op":"move","from":"/data/a","path":"/data/d"},{"op":"remove","path":"/data/b"}]"#;
    kubectl.ok(&["patch", "configmap", "shared", "--type=json", "-p", json]);
    assert_eq!(data(&kubectl), json!({ "c": "2", "d": "1" }));
    kubectl.ok(&["patch", "configmap", "shared", "--type=merge", "-p", r#"{"data":{"c":null}}"#]);
    assert_eq!(data(&kubectl), json!({ "d": "1" }));
    let web = deployment(&json!([{ "name": "one", "image": "i" }, { "name": "two", "image": "i" }]));
    kubectl.ok_with(CREATE, &web.to_string());
    let gone = r#"{"spec":{"template":{"spec":{"containers":[{"name":"two","$patch":"delete"}]}}}}"#;
    kubectl.ok(&["patch", "deployment", "web", "-p", gone]);
    let left =
        kubectl.ok(&["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[*].name}"]);
    assert_eq!(left, "one", "a strategic patch deletes by name");
    let dry = ["patch", "deployment", "web", "--dry-run=server", "-p", r#"{"spec":{"replicas":7}}"#];
    assert_eq!(kubectl.ok(&dry), "deployment.apps/web patched");
    assert_eq!(kubectl.json(&["get", "deployment", "web"])["spec"]["replicas"], 0);
}

#[tokio::test]
async fn dry_runs_change_nothing() {
    let Some(Api { kubectl, control: _control, .. }) = Api::start(TEST).await else { return };
    let manifest = map(&json!({ "a": "1" }));
    for (how, said) in [
        ("server", "configmap/shared created (server dry run)"),
        ("client", "configmap/shared created (dry run)"),
    ] {
        assert_eq!(kubectl.ok_with(&["apply", &format!("--dry-run={how}"), "-f", "-"], &manifest), said);
        assert_eq!(kubectl.ok_with(&["create", &format!("--dry-run={how}"), "-f", "-"], &manifest), said);
    }
    assert_eq!(kubectl.run(&["get", "configmap", "shared"]).code, Some(1));
    kubectl.ok_with(APPLY, &manifest);
    let before = version(&kubectl, "configmap/shared");
    let deleted = kubectl.ok(&["delete", "configmap", "shared", "--dry-run=server"]);
    assert_eq!(deleted, "configmap \"shared\" deleted from default namespace (server dry run)");
    let shown = kubectl.ok_with(
        &["apply", "--dry-run=server", "-o", "jsonpath={.data.a}", "-f", "-"],
        &map(&json!({ "a": "2" })),
    );
    assert_eq!(shown, "2", "what would be is shown");
    assert_eq!(version(&kubectl, "configmap/shared"), before);
}
