//! Bodies that are broken, hostile, or merely too much: each is refused by the right status, soon, for little memory, and
//! leaves nothing behind.
//!
//! In: the real program. Out: a verdict per kind of bad input. What needs no process of its own is in the API server's suite.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request};
use serde_json::{Value, json};
use xebec_tests::api::{APPLY_PATCH, JSON, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Sender, YAML};
use xebec_tests::control::Control;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
/// What controllers make in every namespace.
const ROOT_CA: &str = "kube-root-ca.crt";
const MIB: usize = 1024 * 1024;

fn map(name: &str, metadata: &Value, data: &Value) -> String {
    let mut map = json!({"metadata": metadata, "data": data});
    map["metadata"]["name"] = name.into();
    map.to_string()
}

fn pod(name: &str, container: &Value) -> String {
    let mut container = container.clone();
    container["name"] = "c".into();
    container["image"] = "x".into();
    json!({"metadata": {"name": name}, "spec": {"containers": [container]}}).to_string()
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "x", "env": [{"name": "E", "value": "1"}]}]},
        },
    }})
}

/// Nothing of what was refused is there.
async fn nothing_was_stored(sender: &Sender<'_>) {
    let mut maps = sender.names(MAPS).await;
    maps.retain(|name| name != ROOT_CA);
    let others = [sender.names(PODS).await, sender.names(SECRETS).await, sender.names(DEPLOYMENTS).await];
    assert_eq!((maps, others.concat()), (Vec::new(), Vec::new()));
    assert_eq!(sender.get("/readyz").await.code, 200);
}

#[tokio::test]
async fn depth_is_bounded() {
    let Some(control) = Control::start("api_bad_input").await else { return };
    let sender = Sender::new(&control).await;
    for depth in [1_000, 10_000, 100_000, 1_000_000] {
        let body =
            format!("{{\"metadata\":{{\"name\":\"a\"}},\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        sender.post(MAPS, JSON, body.clone()).await.refused("JSON", &[400]);
        sender.post(MAPS, YAML, body).await.refused("YAML", &[400]);
        let merge = format!("{}1{}", "{\"x\":".repeat(depth), "}".repeat(depth));
        sender.patch(&format!("{MAPS}/{ROOT_CA}"), MERGE_PATCH, merge).await.refused("merge", &[400, 413]);
    }
    let block: String = (0..2000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    sender.post(MAPS, YAML, block).await.refused("block", &[400]);
    // As deep as schemas of custom resources go, in either format.
    for (depth, media_type) in [(100, JSON), (400, JSON), (400, APPLY_PATCH), (400, YAML)] {
        let deep = format!("\"x\":{}{}", "[".repeat(depth), "]".repeat(depth));
        let body = format!("{{\"metadata\":{{\"name\":\"a\"}},{deep}}}");
        if media_type == APPLY_PATCH {
            let body = format!("{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",{}", &body[1..]);
            let read = sender.patch(&format!("{MAPS}/a?fieldManager=x"), media_type, body).await;
            assert!(read.refused("an unknown field", &[400]).contains("not declared in schema"), "{read:?}");
            continue;
        }
        let taken = sender.post(&format!("{MAPS}?dryRun=All"), media_type, body).await;
        assert_eq!(taken.code, 201, "{media_type} {depth}: {taken:?}");
    }
    nothing_was_stored(&sender).await;
}

/// CVE-2019-11253, CVE-2019-11254.
#[tokio::test]
async fn cve_2019_11253_yaml_does_not_grow() {
    let Some(control) = Control::start("api_bad_input").await else { return };
    let sender = Sender::new(&control).await;
    let mut laughs =
        "a: &a [\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\"]\n".to_owned();
    for (from, to) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        let nine = vec![format!("*{from}"); 9].join(",");
        laughs.push_str(&format!("{to}: &{to} [{nine}]\n"));
    }
    assert!(laughs.len() < 1024, "one kilobyte");
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(MIB), vec!["*a"; 400_000].join(","));
    let fields: Vec<String> = (0..2000).map(|n| format!("k{n}: v")).collect();
    let merged: String = (0..9000).map(|n| format!("b{n}: {{<<: *a}}\n")).collect();
    let merged = format!("a: &a {{{}}}\n{merged}", fields.join(","));
    let listed = format!("a: &a {{{}}}\nb: {{<<: [{}]}}\n", fields.join(","), vec!["*a"; 50_000].join(","));
    for (what, bomb) in [("laughs", laughs), ("text", text), ("merge keys", merged), ("merged list", listed)]
    {
        let body = format!("metadata: {{name: bomb}}\n{bomb}");
        let answer = sender.post(MAPS, YAML, body.clone()).await;
        answer.refused(what, &[400]);
        assert!(answer.grown < 64, "{what}: {} MiB", answer.grown);
        let body = format!("apiVersion: v1\nkind: ConfigMap\n{body}");
        let path = format!("{MAPS}/bomb?fieldManager=x");
        sender.patch(&path, APPLY_PATCH, body).await.refused(what, &[400]);
    }
    // CVE-2019-11254: text that is slow to scan.
    for (what, text) in [
        ("a key without an end", format!("{}: 1", "a".repeat(2 * MIB))),
        ("colons", format!("a: {}", ":".repeat(2 * MIB))),
        ("braces", "{".repeat(2 * MIB)),
        ("dashes", "- ".repeat(MIB)),
        ("comments", "#\n".repeat(MIB)),
        ("quotes", format!("a: \"{}", "\n".repeat(2 * MIB))),
        ("breaks", format!("a: |\n{}", "\n".repeat(2 * MIB))),
        ("documents", "---\n".repeat(MIB / 2)),
        ("items", format!("metadata: {{name: items}}\nx:\n{}", "- a\n".repeat(700_000))),
    ] {
        sender.post(MAPS, YAML, text).await.refused(what, &[400, 422]);
    }
    nothing_was_stored(&sender).await;
}

#[tokio::test]
async fn yaml_is_read_as_upstream_reads_it() {
    let Some(control) = Control::start("api_bad_input").await else { return };
    let sender = Sender::new(&control).await;
    let path = format!("{MAPS}?dryRun=All");
    let of = |value: &str| format!("metadata: {{name: s}}\ndata: {{k: {value}}}\n");
    // Not texts in YAML 1.1, so not values of a ConfigMap.
    for value in
        ["yes", "no", "on", "off", "True", "014", "0x1f", "1e3", "1_000", ".inf", ".nan", "[a]", "{a: b}"]
    {
        sender.post(&path, YAML, of(value)).await.refused(value, &[400]);
    }
    for (value, text) in
        [("'yes'", "yes"), ("!!str 1", "1"), ("!!binary aGk=", "hi"), ("12:30:45", "12:30:45")]
    {
        let taken = sender.post(&path, YAML, of(value)).await;
        assert_eq!(taken.json()["data"]["k"], text, "{value}: {taken:?}");
    }
    let merged = "x: &x {k: v}\nmetadata: {name: s}\ndata: {<<: *x, l: w}\n";
    assert_eq!(sender.post(&path, YAML, merged).await.json()["data"], json!({"k": "v", "l": "w"}));
    let volumes = "metadata: {name: p}\nspec:\n  containers: [{name: c, image: x}]\n  volumes:\n  \
                   - {name: v, secret: {secretName: s, defaultMode: 0400}}\n";
    let octal = sender.post(&format!("{PODS}?dryRun=All"), YAML, volumes).await.json();
    let modes: Vec<&Value> = octal["spec"]["volumes"].as_array().expect("volumes").iter().collect();
    assert_eq!(modes[0]["secret"]["defaultMode"], 256, "{octal}");
    for (what, text) in [
        ("two documents", "metadata: {name: s}\n---\nmetadata: {name: t}\n"),
        ("a tab", "metadata:\n\tname: s\n"),
        ("a list for a key", "metadata: {name: s}\ndata: {[1]: a}\n"),
        ("itself inside", "a: &a [*a]\n"),
        ("an unknown anchor", "a: *b\n"),
        ("nothing", ""),
        ("a list", "- a\n"),
    ] {
        let told = sender.post(MAPS, YAML, text).await.refused(what, &[400]);
        assert!(
            !told.contains('\n') && !told.contains("Policy") && !told.contains("from_str"),
            "{what}: {told}"
        );
    }
    sender.post(MAPS, YAML, &b"a: \xff\n"[..]).await.refused("no UTF-8", &[400]);
    let twice = "metadata: {name: s}\ndata: {a: \"1\", a: \"2\"}\n";
    let warned = sender.post(&path, YAML, twice).await;
    assert_eq!((warned.code, &warned.json()["data"]["a"]), (201, &json!("2")), "the last one counts");
    let warning = warned.headers["warning"].to_str().expect("text").to_owned();
    assert_eq!(warning, "299 - \"duplicate field \\\"data.a\\\"\"");
    let strict = sender.post(&format!("{path}&fieldValidation=Strict"), YAML, twice).await;
    assert!(strict.refused("strict", &[400]).contains("duplicate field \"data.a\""));
    nothing_was_stored(&sender).await;
}

#[tokio::test]
async fn sizes_are_bounded() {
    let Some(control) = Control::start("api_bad_input").await else { return };
    let sender = Sender::new(&control).await;
    let with = |size: usize| map("big", &json!({}), &json!({"k": "x".repeat(size)}));
    for (size, code) in [
        (MIB + 1, 422),
        (14 * MIB / 10, 422),
        (16 * MIB / 10, 422),
        (2 * MIB, 422),
        (3 * MIB, 413),
        (31 * MIB / 10, 413),
    ] {
        sender.post(MAPS, JSON, with(size)).await.refused(&size.to_string(), &[code]);
    }
    let secret = json!({"metadata": {"name": "s"}, "data": {"k": STANDARD.encode("x".repeat(MIB + 1))}});
    sender.post(SECRETS, JSON, secret.to_string()).await.refused("a Secret", &[422]);
    let annotations =
        |size: usize| map("noted", &json!({"annotations": {"a": "x".repeat(size)}}), &json!({}));
    sender.post(MAPS, JSON, annotations(256 * 1024)).await.refused("annotations", &[422]);
    let most = sender.post(&format!("{MAPS}?dryRun=All"), JSON, annotations(256 * 1024 - 1)).await;
    assert_eq!(most.code, 201, "{:.300}", most.text);
    for labels in [
        json!({"a": "x".repeat(64)}),
        json!({"a".repeat(64): "x"}),
        json!({format!("{}/a", "a".repeat(254)): "x"}),
        json!({"a b": "x"}),
        json!({"a": "-"}),
        json!({"": "x"}),
    ] {
        let body = map("labelled", &json!({"labels": labels}), &json!({}));
        sender.post(MAPS, JSON, body).await.refused(&labels.to_string(), &[422]);
    }
    // A large object is whole or not there.
    let large = "x".repeat(16 * MIB / 10);
    let body = pod("large", &json!({"env": [{"name": "E", "value": large}]}));
    let answer = sender.post(PODS, JSON, body).await;
    assert!(matches!(answer.code, 201 | 413 | 422), "{:.300}", answer.text);
    let found = sender.get(&format!("{PODS}/large")).await;
    match answer.code {
        201 => {
            let value = &found.json()["spec"]["containers"][0]["env"][0]["value"];
            assert_eq!(value.as_str().map(str::len), Some(large.len()));
            assert_eq!(
                sender.send(Method::DELETE, &format!("{PODS}/large?gracePeriodSeconds=0"), "", "").await.code,
                200
            );
        }
        _ => assert_eq!(found.code, 404),
    }
    nothing_was_stored(&sender).await;
}

#[tokio::test]
async fn many_small_things_cost_little() {
    let Some(control) = Control::start("api_bad_input").await else { return };
    let sender = Sender::new(&control).await;
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let fields: Vec<String> = (0..200_000).map(|n| format!("\"k{n}\":0")).collect();
    for (what, inside) in [
        ("numbers", format!("\"x\":[{}0]", "0,".repeat(1_500_000))),
        ("objects", format!("\"x\":[{}{{}}]", "{},".repeat(1_000_000))),
        ("fields", fields.join(",")),
        ("the same field", vec!["\"k\":0"; 500_000].join(",")),
        ("escapes", format!("\"x\":\"{}\"", "\\u0041".repeat(500_000))),
    ] {
        let body = format!("{{\"metadata\":{{\"name\":\"many\"}},{inside}}}");
        sender.post(&strict, JSON, body.clone()).await.refused(what, &[400]);
        let taken = sender.post(&format!("{MAPS}?dryRun=All"), JSON, body).await;
        assert_eq!(taken.code, 201, "{what}: {:.300}", taken.text);
        let warnings: usize = taken.headers.get_all("warning").iter().map(http::HeaderValue::len).sum();
        assert!(warnings < 16 << 10, "{what}: {warnings} bytes of warnings");
        taken.cheap(what);
    }
    for query in [
        format!("labelSelector={}a", "a,".repeat(30_000)),
        format!("labelSelector=a+in+({}a)", "a,".repeat(30_000)),
        format!("fieldSelector={}a%3Db", "a%3Db,".repeat(10_000)),
        format!("labelSelector={}", "(".repeat(60_000)),
    ] {
        let answer = sender.get(&format!("{MAPS}?{query}")).await;
        assert!(matches!(answer.code, 200 | 400 | 414 | 431), "{:.60}: {:.300}", query, answer.text);
        answer.cheap(&query[..40]);
    }
    nothing_was_stored(&sender).await;
}

/// CVE-2019-1002100 and its kin.
#[tokio::test]
async fn cve_2019_1002100_patches_do_not_grow() {
    let Some(control) = Control::start("api_bad_input").await else { return };
    let sender = Sender::new(&control).await;
    let path = format!("{MAPS}/patched");
    let made = sender.post(MAPS, JSON, map("patched", &json!({}), &json!({"a": "1"}))).await;
    assert_eq!(made.code, 201, "{made:?}");
    let before = sender.get(&path).await.json()["metadata"]["resourceVersion"].clone();
    let add = json!({"op": "add", "path": "/data/a", "value": "2"});
    let many = Value::from(vec![add.clone(); 10_001]).to_string();
    sender.patch(&path, JSON_PATCH, many).await.refused("10,001 operations", &[413, 422]);
    let most = Value::from(vec![add; 10_000]).to_string();
    assert_eq!(sender.patch(&format!("{path}?dryRun=All"), JSON_PATCH, most).await.code, 200);
    let mut copies = vec![json!({"op": "add", "path": "/x", "value": ["y".repeat(1000)]})];
    copies.extend(vec![json!({"op": "copy", "from": "/x", "path": "/x/-"}); 1000]);
    sender.patch(&path, JSON_PATCH, Value::from(copies).to_string()).await.refused("copies", &[413, 422]);
    let (mut nested, mut place) = (vec![json!({"op": "add", "path": "/x", "value": {}})], "/x".to_owned());
    while place.len() < 200_000 {
        nested.push(json!({"op": "copy", "from": "/x", "path": format!("{place}/x")}));
        place = format!("{place}/x{}", &place[2..]);
    }
    sender
        .patch(&path, JSON_PATCH, Value::from(nested).to_string())
        .await
        .refused("nested copies", &[413, 422]);
    let (mut nested, mut place) = (vec![json!({"op": "add", "path": "/x", "value": {}})], "/x".to_owned());
    let mut level = json!({});
    for _ in 0..400 {
        level = json!({ "x": level });
    }
    for _ in 0..60 {
        nested.push(json!({"op": "add", "path": format!("{place}/x"), "value": level}));
        place.push_str(&"/x".repeat(401));
    }
    sender
        .patch(&path, JSON_PATCH, Value::from(nested).to_string())
        .await
        .refused("nested additions", &[413, 422]);
    for (what, body, codes) in [
        ("no list", "{}", &[400][..]),
        ("an unknown operation", r#"[{"op":"frob","path":"/a"}]"#, &[400]),
        ("a path that is none", r#"[{"op":"add","path":"a","value":1}]"#, &[400]),
        ("nowhere", r#"[{"op":"remove","path":"/nope/x"}]"#, &[422]),
        ("a failed test", r#"[{"op":"test","path":"/data","value":1}]"#, &[422]),
        ("another type", r#"[{"op":"replace","path":"/data","value":[1]}]"#, &[400, 422]),
        ("all of it", r#"[{"op":"replace","path":"","value":[]}]"#, &[400, 422]),
        ("cut short", r#"[{"op":"add""#, &[400]),
    ] {
        sender.patch(&path, JSON_PATCH, body).await.refused(what, codes);
    }
    let after = sender.get(&path).await.json()["metadata"]["resourceVersion"].clone();
    assert_eq!(before, after, "nothing was changed");
}

#[tokio::test]
async fn patches_of_lists_need_their_keys() {
    let Some(control) = Control::start("api_bad_input").await else { return };
    let sender = Sender::new(&control).await;
    assert_eq!(sender.post(DEPLOYMENTS, JSON, deployment("d").to_string()).await.code, 201);
    let path = format!("{DEPLOYMENTS}/d");
    let at =
        |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}}).to_string();
    for (what, containers) in [
        ("no key", json!([{"image": "y"}])),
        ("no object", json!(["x"])),
        ("an object", json!({"name": "c"})),
        ("an unknown directive", json!([{"$patch": "frob", "name": "c"}])),
        ("a number for a key", json!([{"name": 1}])),
    ] {
        sender.patch(&path, STRATEGIC_PATCH, at(containers)).await.refused(what, &[400, 422]);
    }
    let image = |deployment: &Value| deployment["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    sender.patch(&path, MERGE_PATCH, at(json!([{"image": "y"}]))).await.refused("merge", &[422]);
    let far = r#"[{"op":"add","path":"/spec/template/spec/containers/9","value":{"name":"e","image":"x"}}]"#;
    sender.patch(&path, JSON_PATCH, far).await.refused("beyond the end", &[422]);
    for (what, containers) in [
        ("two of one key", json!([{"name": "c", "image": "x"}, {"name": "c", "image": "y"}])),
        ("no key", json!([{"image": "x"}])),
    ] {
        let mut applied = deployment("applied");
        applied["spec"]["template"]["spec"]["containers"] = containers;
        let path = format!("{DEPLOYMENTS}/applied?fieldManager=x");
        sender.patch(&path, APPLY_PATCH, applied.to_string()).await.refused(what, &[400, 422, 500]);
    }
    let kept = sender.get(&path).await.json();
    assert_eq!(image(&kept), "x");
    assert_eq!(sender.names(DEPLOYMENTS).await, ["d"]);
}

#[tokio::test]
async fn numbers_and_units_that_are_none_are_refused() {
    let Some(control) = Control::start("api_bad_input").await else { return };
    let sender = Sender::new(&control).await;
    for replicas in
        ["-1", "1.5", "2147483648", "9223372036854775808", "18446744073709551616", "1e400", "\"1\"", "NaN"]
    {
        let body = deployment("n").to_string().replace("\"replicas\":0", &format!("\"replicas\":{replicas}"));
        sender.post(DEPLOYMENTS, JSON, body).await.refused(replicas, &[400, 422]);
    }
    let zero = deployment("n").to_string().replace("\"replicas\":0", "\"replicas\":-0");
    let answer = sender.post(&format!("{DEPLOYMENTS}?dryRun=All"), JSON, zero).await;
    assert_eq!(answer.json()["spec"]["replicas"], 0, "{answer:?}");
    for quantity in [
        "-1",
        "-1Gi",
        "1e99999999",
        "1e-99999999x",
        "0x10",
        "1.5.5",
        "1GiMi",
        "1Kii",
        "\u{663}",
        "1e",
        "1 Gi",
        "",
    ] {
        for resource in ["cpu", "memory"] {
            let body = pod("q", &json!({"resources": {"limits": {resource: quantity}}}));
            sender.post(PODS, JSON, body).await.refused(quantity, &[400, 422]);
        }
    }
    let long = pod("q", &json!({"resources": {"limits": {"cpu": "9".repeat(MIB)}}}));
    sender.post(&format!("{PODS}?dryRun=All"), JSON, long).await.cheap("a long number");
    for port in ["-1", "0", "65536", "\"80\"", "1099511627776"] {
        let body = pod("q", &json!({"ports": [{"containerPort": 77}]})).replace("77", port);
        sender.post(PODS, JSON, body).await.refused(port, &[400, 422]);
    }
    for version in ["abc", "-1", "18446744073709551616"] {
        let path = format!("{MAPS}?resourceVersion={version}");
        sender.get(&path).await.refused(version, &[400]);
        sender.get(&format!("{path}&watch=1")).await.refused(version, &[400]);
    }
    for query in [
        "limit=x",
        "continue=xyz",
        "labelSelector=a%3D%3D%3Db",
        "fieldSelector=spec.nope%3Da",
        "timeoutSeconds=x",
    ] {
        sender.get(&format!("{MAPS}?{query}")).await.refused(query, &[400]);
    }
    nothing_was_stored(&sender).await;
}

#[tokio::test]
async fn what_is_not_spoken_is_refused() {
    let Some(control) = Control::start("api_bad_input").await else { return };
    let sender = Sender::new(&control).await;
    let body = map("a", &json!({}), &json!({}));
    for media_type in
        ["text/plain", "application/x-www-form-urlencoded", "application/cbor", "application/json2"]
    {
        sender.post(MAPS, media_type, body.clone()).await.refused(media_type, &[415]);
    }
    for media_type in ["text/plain", JSON, YAML, ""] {
        sender.patch(&format!("{MAPS}/{ROOT_CA}"), media_type, "{}").await.refused(media_type, &[415]);
    }
    for (what, body) in [
        ("another kind", json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}})),
        ("another version", json!({"kind": "ConfigMap", "apiVersion": "v2", "metadata": {"name": "a"}})),
        ("another group", json!({"kind": "ConfigMap", "apiVersion": "apps/v1", "metadata": {"name": "a"}})),
        ("a list", json!({"kind": "ConfigMapList", "apiVersion": "v1", "items": []})),
        ("metadata of another type", json!({"metadata": []})),
        ("a name of another type", json!({"metadata": {"name": 1}})),
        ("another namespace", json!({"metadata": {"name": "a", "namespace": "other"}})),
    ] {
        sender.post(MAPS, JSON, body.to_string()).await.refused(what, &[400]);
    }
    // Bodies are not unpacked: a bomb is as large as it was sent.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..256 {
        bomb.write_all(&vec![b' '; MIB]).expect("memory");
    }
    for packed in [bomb.finish().expect("memory"), b"\x1f\x8b\x08\x00".to_vec()] {
        let request = Request::post(MAPS).header("content-type", JSON).header("content-encoding", "gzip");
        let answer = sender.request(request.body(packed).expect("a request")).await;
        answer.refused("gzip", &[400, 415]);
        assert!(answer.grown < 32, "{} MiB", answer.grown);
    }
    for (validation, code) in [("Ignore", 201), ("Warn", 201), ("Strict", 400), ("strict", 422), ("x", 422)] {
        let path = format!("{MAPS}?dryRun=All&fieldValidation={validation}");
        let unknown = r#"{"metadata":{"name":"a","foo":1},"x":1,"data":{"a":"1","a":"2"}}"#;
        let answer = sender.post(&path, JSON, unknown).await;
        assert_eq!(answer.code, code, "{validation}: {answer:?}");
        let warnings: Vec<_> = answer.headers.get_all("warning").iter().collect();
        let expected: &[&str] = match validation {
            "Warn" => &[
                "299 - \"unknown field \\\"metadata.foo\\\"\"",
                "299 - \"unknown field \\\"x\\\"\"",
                "299 - \"duplicate field \\\"data.a\\\"\"",
            ],
            _ => &[],
        };
        assert_eq!(warnings, expected, "{validation}");
    }
    nothing_was_stored(&sender).await;
}

#[tokio::test]
async fn managed_fields_that_are_none_change_nothing() {
    let Some(control) = Control::start("api_bad_input").await else { return };
    let sender = Sender::new(&control).await;
    for managed in
        [json!("x"), json!([1]), json!([{"manager": 1}]), json!([{"fieldsV1": "x", "time": "yesterday"}])]
    {
        let body = map("a", &json!({"managedFields": managed}), &json!({}));
        sender.post(MAPS, JSON, body).await.refused(&managed.to_string(), &[400, 422]);
    }
    // What has the form of it, and no sense, is not believed.
    let entry = |fields: Value| json!({"manager": "a", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields});
    let mut deep = json!({});
    for _ in 0..300 {
        deep = json!({"f:x": deep});
    }
    for (number, fields) in
        [json!({"f:data": {"q:": 1}}), json!({"f:data": []}), json!({"k:{": {}}), json!({"v:": {}}), deep]
            .into_iter()
            .enumerate()
    {
        let name = format!("m{number}");
        let body = map(&name, &json!({"managedFields": [entry(fields.clone())]}), &json!({"k": "v"}));
        let answer = sender.post(MAPS, JSON, body).await;
        answer.cheap("managedFields");
        assert!(matches!(answer.code, 201 | 400 | 422), "{fields}: {answer:?}");
        if answer.code == 201 {
            let path = format!("{MAPS}/{name}?fieldManager=other&force=true");
            let applied = map(&name, &json!({}), &json!({"k": "w"}));
            let mut applied: Value = serde_json::from_str(&applied).expect("JSON");
            applied["apiVersion"] = "v1".into();
            applied["kind"] = "ConfigMap".into();
            let after = sender.patch(&path, APPLY_PATCH, applied.to_string()).await;
            assert_eq!((after.code, &after.json()["data"]["k"]), (200, &json!("w")), "{fields}: {after:?}");
            assert_eq!(sender.send(Method::DELETE, &format!("{MAPS}/{name}"), "", "").await.code, 200);
        }
    }
    for (what, body) in [("garbage", "{{{"), ("nothing", ""), ("no kind", "metadata: {name: a}\n")] {
        let path = format!("{MAPS}/a?fieldManager=x");
        sender.patch(&path, APPLY_PATCH, body).await.refused(what, &[400]);
    }
    nothing_was_stored(&sender).await;
}
