//! `kubectl get` in all its forms: columns, rows, orders, templates.
//!
//! In: one object of each kind. Out: what kubectl prints of them. The columns are those of upstream's printers.

use serde_json::Value;
use xebec_tests::fixture::{Api, CREATE};
use xebec_tests::kubectl::{Kubectl, squeezed};

const TEST: &str = "api_output";

/// Resource, columns, further columns of `-o wide`. Blanks in a name are spelt `_`.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("pods", "NAME READY STATUS RESTARTS AGE", "IP NODE NOMINATED_NODE READINESS_GATES"),
    ("deployments", "NAME READY UP-TO-DATE AVAILABLE AGE", "CONTAINERS IMAGES SELECTOR"),
    ("replicasets", "NAME DESIRED CURRENT READY AGE", "CONTAINERS IMAGES SELECTOR"),
    ("replicationcontrollers", "NAME DESIRED CURRENT READY AGE", "CONTAINERS IMAGES SELECTOR"),
    (
        "daemonsets",
        "NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE_SELECTOR AGE",
        "CONTAINERS IMAGES SELECTOR",
    ),
    ("statefulsets", "NAME READY AGE", "CONTAINERS IMAGES"),
    ("jobs", "NAME STATUS COMPLETIONS DURATION AGE", "CONTAINERS IMAGES SELECTOR"),
    ("cronjobs", "NAME SCHEDULE TIMEZONE SUSPEND ACTIVE LAST_SCHEDULE AGE", "CONTAINERS IMAGES SELECTOR"),
    ("services", "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE", "SELECTOR"),
    ("endpoints", "NAME ENDPOINTS AGE", ""),
    ("endpointslices", "NAME ADDRESSTYPE PORTS ENDPOINTS AGE", ""),
    ("ingresses", "NAME CLASS HOSTS ADDRESS PORTS AGE", ""),
    ("networkpolicies", "NAME POD-SELECTOR AGE", ""),
    ("configmaps", "NAME DATA AGE", ""),
    ("secrets", "NAME TYPE DATA AGE", ""),
    ("serviceaccounts", "NAME SECRETS AGE", ""),
    ("namespaces", "NAME STATUS AGE", ""),
    (
        "nodes",
        "NAME STATUS ROLES AGE VERSION",
        "INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME",
    ),
    ("poddisruptionbudgets", "NAME MIN_AVAILABLE MAX_UNAVAILABLE ALLOWED_DISRUPTIONS AGE", ""),
    ("priorityclasses", "NAME VALUE GLOBAL-DEFAULT AGE PREEMPTIONPOLICY", ""),
    ("resourcequotas", "NAME REQUEST LIMIT AGE", ""),
    ("limitranges", "NAME CREATED_AT", ""),
    ("roles", "NAME CREATED_AT", ""),
    ("clusterroles", "NAME CREATED_AT", ""),
    ("rolebindings", "NAME ROLE AGE", "USERS GROUPS SERVICEACCOUNTS"),
    ("clusterrolebindings", "NAME ROLE AGE", "USERS GROUPS SERVICEACCOUNTS"),
    ("leases", "NAME HOLDER AGE", ""),
    ("controllerrevisions", "NAME CONTROLLER REVISION AGE", ""),
    (
        "persistentvolumeclaims",
        "NAME STATUS VOLUME CAPACITY ACCESS_MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE",
        "VOLUMEMODE",
    ),
    (
        "persistentvolumes",
        "NAME CAPACITY ACCESS_MODES RECLAIM_POLICY STATUS CLAIM STORAGECLASS VOLUMEATTRIBUTESCLASS REASON AGE",
        "VOLUMEMODE",
    ),
    ("storageclasses", "NAME PROVISIONER RECLAIMPOLICY VOLUMEBINDINGMODE ALLOWVOLUMEEXPANSION AGE", ""),
];

/// Everything there is to show, the pod of the node running.
async fn showcase() -> Option<Api> {
    let api = Api::showcase(TEST).await?;
    let kubectl = &api.kubectl;
    let status = r#"{"status":{"phase":"Running","hostIP":"10.0.0.1","podIP":"10.244.0.5","podIPs":[{"ip":"10.244.0.5"}],
        "conditions":[{"type":"Ready","status":"True"}],
        "containerStatuses":[{"name":"main","ready":true,"restartCount":0,"image":"busybox:1.36","imageID":"x",
            "state":{"running":{"startedAt":"2026-01-01T00:00:00Z"}}}]}}"#;
    kubectl.ok(&["patch", "pod", "box", "-n", "show", "--subresource=status", "--type=merge", "-p", status]);
    api.settled("deployment/web", "{.status.replicas}=2");
    api.settled("endpoints/box", "{.subsets[0].addresses[0].ip}=10.244.0.5");
    api.slice();
    api.settled("statefulset/db", "{.status.replicas}=1");
    api.settled("job/once", "{.status.active}=1");
    Some(api)
}

/// The columns' names. Two blanks part them, one stands inside of a name.
fn header(table: &str) -> String {
    let line = table.lines().next().unwrap_or_default();
    let columns: Vec<String> = line
        .split("  ")
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| name.replace(' ', "_"))
        .collect();
    columns.join(" ")
}

#[tokio::test]
async fn every_kind_has_upstreams_columns() {
    let Some(api) = showcase().await else { return };
    for (resource, plain, wide) in COLUMNS {
        let get = |more: &[&str]| api.kubectl.ok(&[&["get", resource, "-A"], more].concat());
        let columns = |table: &str| header(table).trim_start_matches("NAMESPACE ").to_owned();
        assert_eq!(columns(&get(&[])), *plain, "{resource}");
        let all = format!("{plain} {wide}");
        assert_eq!(columns(&get(&["-o", "wide"])), all.trim(), "{resource} -o wide");
    }
    let events = header(&api.kubectl.ok(&["get", "events", "-n", "show"]));
    assert_eq!(events, "LAST_SEEN TYPE REASON OBJECT MESSAGE");
    let events = header(&api.kubectl.ok(&["get", "events", "-n", "show", "-o", "wide"]));
    assert_eq!(events, "LAST_SEEN TYPE REASON OBJECT SUBOBJECT SOURCE MESSAGE FIRST_SEEN COUNT NAME");
}

/// The one row of an object, without its age.
fn row(kubectl: &Kubectl, arguments: &[&str]) -> String {
    let arguments = [&["get", "-n", "show", "--no-headers"], arguments].concat();
    squeezed(&kubectl.ok(&arguments)).join("\n")
}

#[tokio::test]
async fn rows_say_what_upstreams_say() {
    let Some(api) = showcase().await else { return };
    let starts = |arguments: &[&str], wanted: &str| {
        let found = row(&api.kubectl, arguments);
        assert!(found.starts_with(wanted), "{arguments:?}: {wanted:?} in {found:?}");
    };
    let ends = |arguments: &[&str], wanted: &str| {
        let found = row(&api.kubectl, &[arguments, &["-o", "wide"]].concat());
        assert!(found.ends_with(wanted), "{arguments:?}: {wanted:?} in {found:?}");
    };
    starts(&["pod", "box"], "box 1/1 Running 0 ");
    ends(&["pod", "box"], " 10.244.0.5 n1 <none> <none>");
    starts(&["deployment", "web"], "web 0/2 2 0 ");
    ends(&["deployment", "web"], " nginx,log nginx:1.27,busybox app=web");
    starts(&["replicationcontroller", "old"], "old 0 0 0 ");
    starts(&["daemonset", "each"], "each 0 0 0 0 0 nowhere=true ");
    starts(&["statefulset", "db"], "db 0/1 ");
    ends(&["statefulset", "db"], " c postgres");
    starts(&["job", "once"], "once Running 0/3 ");
    starts(&["cronjob", "tick"], "tick */5 * * * * Etc/UTC True 0 <none> ");
    starts(&["service", "box"], "box NodePort 10.96.");
    assert!(row(&api.kubectl, &["service", "box"]).contains(" <none> 8080:30080/TCP "));
    ends(&["service", "box"], " app=box");
    starts(&["endpoints", "box"], "box 10.244.0.5:80 ");
    let slice = row(&api.kubectl, &["endpointslices", "-l", "kubernetes.io/service-name=box"]);
    assert!(slice.starts_with("box-") && slice.contains(" IPv4 80 10.244.0.5 "), "{slice}");
    starts(&["ingress", "door"], "door <none> a.example 80 ");
    starts(&["networkpolicy", "closed"], "closed app=box ");
    starts(&["configmap", "settings"], "settings 3 ");
    starts(&["secret", "keys"], "keys Opaque 1 ");
    starts(&["serviceaccount", "robot"], "robot 0 ");
    starts(&["namespace", "show"], "show Active ");
    starts(&["node", "n1"], "n1 Ready <none> ");
    ends(&["node", "n1"], " v1.37.0 10.0.0.1 <none> Debian GNU/Linux 12 6.18.0 containerd://2.3.1");
    starts(&["pdb", "web"], "web 1 N/A 0 ");
    starts(&["priorityclass", "high"], "high 1000 false ");
    ends(&["priorityclass", "high"], " PreemptLowerPriority");
    starts(&["resourcequota", "room"], "room requests.storage: 1Gi/5Gi, secrets: 1/10 ");
    starts(&["rolebinding", "reads"], "reads Role/reads ");
    ends(&["rolebinding", "reads"], " jane show/robot");
    starts(&["lease", "turn"], "turn me ");
    starts(&["persistentvolumeclaim", "disk"], "disk Pending slow <unset> ");
    starts(&["persistentvolume", "disk1"], "disk1 1Gi RWO Retain ");
    starts(&["storageclass", "slow"], "slow example.com/disk Delete Immediate false ");
    let revision = row(&api.kubectl, &["controllerrevisions", "-l", "app=db"]);
    assert!(revision.contains(" statefulset.apps/db 1 "), "{revision}");
    api.kubectl.ok(&["cordon", "n1"]);
    starts(&["node", "n1"], "n1 Ready,SchedulingDisabled <none> ");
    api.kubectl.ok(&["label", "node", "n1", "node-role.kubernetes.io/control-plane="]);
    starts(&["node", "n1"], "n1 Ready,SchedulingDisabled control-plane ");
}

#[tokio::test]
async fn labels_kinds_and_namespaces_are_further_columns() {
    let Some(api) = showcase().await else { return };
    let get = |more: &[&str]| api.kubectl.ok(&[&["get", "-n", "show"], more].concat());
    let labelled = get(&["pod", "box", "--show-labels", "-L", "app"]);
    assert_eq!(header(&labelled), "NAME READY STATUS RESTARTS AGE APP LABELS");
    assert!(squeezed(&labelled)[1].ends_with(" box app=box"), "{labelled}");
    let kinds = squeezed(&get(&["configmap,secret", "--show-kind", "--no-headers"]));
    assert!(kinds.iter().any(|line| line.starts_with("configmap/settings 3 ")), "{kinds:?}");
    assert!(kinds.iter().any(|line| line.starts_with("secret/keys Opaque ")), "{kinds:?}");
    let everywhere = api.kubectl.ok(&["get", "pods", "-A", "--field-selector=metadata.name=box"]);
    assert_eq!(header(&everywhere), "NAMESPACE NAME READY STATUS RESTARTS AGE");
    assert!(squeezed(&everywhere)[1].starts_with("show box 1/1 Running 0 "), "{everywhere}");
    let names = get(&["all", "-o", "name"]);
    for name in [
        "pod/box",
        "service/box",
        "daemonset.apps/each",
        "deployment.apps/web",
        "statefulset.apps/db",
        "job.batch/once",
    ] {
        assert!(names.lines().any(|line| line == name), "{name} is one of all: {names}");
    }
    assert!(!names.contains("secret/") && !names.contains("configmap/"), "{names}");
}

#[tokio::test]
async fn formats_print_what_is_asked_for() {
    let Some(api) = showcase().await else { return };
    let get = |more: &[&str]| api.kubectl.ok(&[&["get", "-n", "show"], more].concat());
    let path = |template: &str| get(&["pod", "box", "-o", &format!("jsonpath={template}")]);
    assert_eq!(path("{.spec.containers[0].ports[?(@.name==\"http\")].containerPort}"), "80");
    assert_eq!(path("{range .spec.containers[*]}{.name}={.image};{end}"), "main=busybox:1.36;");
    assert_eq!(
        get(&["pod", "box", "-o", "jsonpath-as-json={.metadata.labels}"]),
        "[\n    {\n        \"app\": \"box\"\n    }\n]"
    );
    let columns = get(&[
        "pods",
        "-l",
        "app=box",
        "-o",
        "custom-columns=NAME:.metadata.name,IMAGES:.spec.containers[*].image,NO:.spec.nothing",
    ]);
    assert_eq!(squeezed(&columns), ["NAME IMAGES NO", "box busybox:1.36 <none>"]);
    let file = api.file("columns", "WHO          WHERE\nmetadata.name spec.nodeName\n");
    let from_file = format!("custom-columns-file={}", file.display());
    assert_eq!(squeezed(&get(&["pod", "box", "-o", &from_file])), ["WHO WHERE", "box n1"]);
    let template = "go-template={{range .items}}{{.metadata.name}} {{end}}";
    assert_eq!(get(&["statefulsets", "-o", template]), "db");
    let yaml = get(&["configmap", "settings", "-o", "yaml"]);
    let lines: Vec<&str> = yaml.lines().collect();
    assert_eq!(
        lines[..7],
        ["apiVersion: v1", "binaryData:", "  raw: AAEC", "data:", "  colour: blue", "  lines: |", "    one"]
    );
    assert!(!yaml.contains("managedFields"), "{yaml}");
    assert!(get(&["configmap", "settings", "-o", "yaml", "--show-managed-fields"]).contains("managedFields"));
    let list: Value = serde_json::from_str(&get(&["configmaps,secrets", "-o", "json"])).expect("JSON");
    assert_eq!((&list["kind"], &list["apiVersion"]), (&"List".into(), &"v1".into()));
    let kinds: Vec<&str> =
        list["items"].as_array().expect("items").iter().filter_map(|i| i["kind"].as_str()).collect();
    assert_eq!(kinds, ["ConfigMap", "ConfigMap", "Secret"]);
}

#[tokio::test]
async fn lists_are_ordered_chosen_and_watched() {
    let Some(api) = showcase().await else { return };
    let kubectl = &api.kubectl;
    for (name, replicas) in [("b", 2), ("a", 3), ("c", 1)] {
        let map = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, labels: {{size: \"{replicas}\"}}}}}}"
        );
        kubectl.ok_with(CREATE, &map);
    }
    let names = |more: &[&str]| {
        let listed = kubectl.ok(&[&["get", "configmaps", "-o", "name"], more].concat());
        let names: Vec<String> = listed.lines().map(|name| name.replace("configmap/", "")).collect();
        names.into_iter().filter(|name| name.len() == 1).collect::<String>()
    };
    assert_eq!(names(&[]), "abc");
    assert_eq!(names(&["--sort-by=.metadata.labels.size"]), "cba");
    assert_eq!(names(&["--sort-by={.metadata.name}"]), "abc");
    assert_eq!(names(&["-l", "size notin (1,2)"]), "a");
    assert_eq!(names(&["-l", "size,size!=3"]), "bc");
    assert_eq!(names(&["--field-selector=metadata.name!=a"]), "bc");
    let refused = kubectl.fails(&["get", "pods", "--field-selector=spec.colour=red"], "");
    assert_eq!(
        refused,
        "Error from server (BadRequest): Unable to find \"/v1, Resource=pods\" that match label selector \"\", field \
         selector \"spec.colour=red\": field label not supported: spec.colour"
    );
    let nothing = kubectl.run(&["get", "configmap", "z", "--ignore-not-found"]);
    assert_eq!((nothing.code, &*nothing.out, &*nothing.error), (Some(0), "", ""));
    let partly = kubectl.run(&["get", "configmap", "a", "z"]);
    assert_eq!(partly.code, Some(1), "what is there is printed, what is not is told");
    assert!(
        partly.out.contains("\na ") && partly.error.ends_with("configmaps \"z\" not found"),
        "{partly:?}"
    );

    let mut watch = kubectl.start(&["get", "configmaps", "-l", "size", "-w", "--no-headers"]);
    let listed: Vec<String> = (0..3).map(|_| watch.line()).collect();
    assert!(["a ", "b ", "c "].iter().zip(&listed).all(|(name, line)| line.starts_with(name)), "{listed:?}");
    kubectl.ok(&["label", "configmap", "b", "size-"]);
    assert!(watch.line().starts_with("b "), "what leaves the selection is printed a last time");
    let mut only = kubectl.start(&["get", "configmaps", "-l", "size", "--watch-only", "--no-headers"]);
    // Nothing tells when the watch has begun; changes go on until one is seen.
    let seen = std::thread::scope(|scope| {
        let (done, until) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let mut round = 0;
            while until.recv_timeout(std::time::Duration::from_millis(200)).is_err() {
                round += 1;
                kubectl.ok(&["annotate", "configmap", "c", "--overwrite", &format!("round={round}")]);
            }
        });
        let line = only.line();
        done.send(()).expect("the other end waits");
        line
    });
    assert!(seen.starts_with("c "), "{seen}");
}
