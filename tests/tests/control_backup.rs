//! A control plane lost with its disk, and got back from a backup.
//!
//! In: the real program. Out: the same objects and keys afterwards, watches from before told 410, and a refusal in one
//! sentence of everything that is no whole backup.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use kube::api::{Api, ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use serde_json::Value;
use xebec_tests::control::Control;

const OBJECTS: usize = 300;

fn backup(control: &Control, out: &Path) -> Output {
    let data = format!("--data-dir={}", control.data_dir().display());
    control.run(&["backup".into(), data, format!("--out={}", out.display())])
}

fn restore(control: &Control, from: &Path, data: &Path) -> Output {
    let data = format!("--data-dir={}", data.display());
    control.run(&["restore".into(), data, format!("--from={}", from.display())])
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The one sentence of a program that failed.
fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "it succeeded: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some([("value".to_owned(), "x".repeat(500))].into()),
        ..ConfigMap::default()
    }
}

async fn fill(client: &kube::Client) {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let writes = futures::stream::iter(0..OBJECTS).map(|n| {
        let api = api.clone();
        async move { api.create(&PostParams::default(), &config_map(&format!("object-{n}"))).await }
    });
    let written = writes.buffer_unordered(32).collect::<Vec<_>>().await;
    assert!(written.iter().all(Result::is_ok));
}

/// Everything of one kind by name, with revisions.
async fn all<K>(client: &kube::Client) -> BTreeMap<String, Value>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let list = Api::<K>::all(client.clone()).list(&ListParams::default()).await.expect("a list");
    let named = |object: K| {
        let value = serde_json::to_value(&object).expect("JSON");
        (format!("{}/{}", value["metadata"]["namespace"], value["metadata"]["name"]), value)
    };
    list.items.into_iter().map(named).collect()
}

async fn everything(client: &kube::Client) -> Vec<BTreeMap<String, Value>> {
    vec![
        all::<ConfigMap>(client).await,
        all::<Namespace>(client).await,
        all::<Secret>(client).await,
        all::<Service>(client).await,
    ]
}

fn kept(control: &Control, name: &str) -> PathBuf {
    control.folder().join(name)
}

#[tokio::test]
async fn a_wiped_control_plane_comes_back_from_its_backup() {
    let Some(mut control) = Control::start("control_backup").await else { return };
    let client = control.client().await;
    fill(&client).await;
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let before = everything(&client).await;
    let file = kept(&control, "backup");
    succeeded(&backup(&control, &file));
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    // Lost with the disk; its revisions must not come to mean anything else.
    let lost = api.create(&PostParams::default(), &config_map("lost")).await.expect("a write");
    let lost_at = lost.metadata.resource_version.expect("a version");

    control.kill();
    fs::remove_dir_all(control.data_dir()).expect("the data is wiped");
    succeeded(&restore(&control, &file, &control.data_dir()));
    control.spawn();
    control.ready().await;

    // The same kubeconfig: the CA is the same.
    let client = control.client().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    assert_eq!(everything(&client).await, before);
    // Said at once or as the first event: clients know both.
    let code = match api.watch(&WatchParams::default(), &lost_at).await {
        Err(kube::Error::Api(status)) => status.code,
        Err(other) => panic!("{other}"),
        Ok(events) => match Box::pin(events).next().await {
            Some(Ok(WatchEvent::Error(status))) => status.code,
            other => panic!("{other:?}"),
        },
    };
    assert_eq!(code, 410);
    let new = api.create(&PostParams::default(), &config_map("new")).await.expect("a write");
    let revision = |version: Option<String>| version.and_then(|v| v.parse::<u64>().ok()).expect("a revision");
    assert!(revision(new.metadata.resource_version) > revision(Some(lost_at)));
}

#[tokio::test]
async fn a_backup_under_writes_is_of_one_moment() {
    let Some(control) = Control::start("control_backup").await else { return };
    let client = control.client().await;
    fill(&client).await;
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (api, stop) = (api.clone(), Arc::clone(&stop));
        // Each write is of the next number: a moment has all numbers up to one and none after it.
        tokio::spawn(async move {
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                let name = format!("number-{written}");
                api.create(&PostParams::default(), &config_map(&name)).await.expect("a write");
                written += 1;
            }
            written
        })
    };
    let files: Vec<_> = (0..5).map(|n| kept(&control, &format!("backup-{n}"))).collect();
    let control = {
        let files = files.clone();
        let task = tokio::task::spawn_blocking(move || {
            files.iter().for_each(|file| succeeded(&backup(&control, file)));
            control
        });
        task.await.expect("backups are written")
    };
    stop.store(true, Ordering::Relaxed);
    let written: usize = writer.await.expect("the writer ends");
    assert!(written >= 5, "only {written} writes beside the backups");

    let mut control = control;
    control.kill();
    fs::remove_dir_all(control.data_dir()).expect("the data is wiped");
    succeeded(&restore(&control, &files[4], &control.data_dir()));
    control.spawn();
    control.ready().await;
    let found = all::<ConfigMap>(&control.client().await).await;
    let numbers = (0..written).filter(|n| found.contains_key(&format!("\"default\"/\"number-{n}\""))).count();
    let last = (0..written).rev().find(|n| found.contains_key(&format!("\"default\"/\"number-{n}\"")));
    assert_eq!(last.map_or(0, |last| last + 1), numbers, "of {written}");
}

#[tokio::test]
async fn a_stopped_control_plane_is_backed_up_from_its_folder() {
    let Some(mut control) = Control::start("control_backup").await else { return };
    let client = control.client().await;
    fill(&client).await;
    let before = everything(&client).await;
    control.terminate().await;
    let file = kept(&control, "backup");
    succeeded(&backup(&control, &file));
    fs::rename(control.data_dir(), kept(&control, "old")).expect("moved away");
    succeeded(&restore(&control, &file, &control.data_dir()));
    control.spawn();
    control.ready().await;
    assert_eq!(everything(&control.client().await).await, before);
}

#[tokio::test]
async fn what_cannot_be_backed_up_or_restored_is_one_sentence() {
    let Some(control) = Control::start("control_backup").await else { return };
    let file = kept(&control, "backup");
    succeeded(&backup(&control, &file));
    let text = |path: &Path| path.display().to_string();

    let said = complaint(&restore(&control, &file, &control.data_dir()));
    assert!(said.contains("is in use by another xebec-control"), "{said}");
    let other = kept(&control, "other");
    succeeded(&restore(&control, &file, &other));
    let said = complaint(&restore(&control, &file, &other));
    assert!(said.contains(&text(&other)) && said.contains("holds a store already"), "{said}");

    let whole = fs::read(&file).expect("it was written");
    let (cut, fresh) = (kept(&control, "cut"), kept(&control, "fresh"));
    fs::write(&cut, &whole[..whole.len() / 2]).expect("a write");
    let said = complaint(&restore(&control, &cut, &fresh));
    assert!(said.contains(&text(&cut)) && said.contains("it is not whole"), "{said}");
    assert!(!fresh.join("store.redb").exists(), "nothing is made of half a backup");
    fs::write(&cut, "no backup").expect("a write");
    let said = complaint(&restore(&control, &cut, &fresh));
    assert!(said.contains("it is no backup of a Xebec control plane"), "{said}");
    let said = complaint(&restore(&control, &kept(&control, "absent"), &fresh));
    assert!(said.contains("No such file"), "{said}");

    let nothing = control.run(&[
        "backup".into(),
        format!("--data-dir={}", text(&fresh)),
        format!("--out={}", text(&cut)),
    ]);
    assert!(complaint(&nothing).contains("it holds no store"), "{}", complaint(&nothing));
}
