//! The control plane's process: how fast it starts, how it ends, what it says when it cannot go on.
//!
//! In: the real program. Out: exit codes, one sentence each, and the data that is still there afterwards.

use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams, WatchParams};
use nix::mount::{MsFlags, mount};
use xebec_tests::control::Control;
use xebec_tests::netns::on_node;

const NAMESPACE: &str = "default";
/// Room for the data folder of the test that fills it.
const SMALL_DISK: &str = "size=24m,mode=0700";
const OBJECTS: usize = 1000;
/// Far above what a start takes, and far below what would be felt; neighbours share the machine.
const SLOW_START: Duration = Duration::from_secs(2);

fn config_map(name: &str, value: String) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some([("value".to_owned(), value)].into()),
        ..ConfigMap::default()
    }
}

async fn create(api: &Api<ConfigMap>, name: &str, value: String) -> kube::Result<ConfigMap> {
    api.create(&PostParams::default(), &config_map(name, value)).await
}

async fn config_maps(control: &Control) -> Api<ConfigMap> {
    Api::namespaced(control.client().await, NAMESPACE)
}

/// The one sentence of a program that failed.
fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "it succeeded");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = said.lines().last().unwrap_or_default();
    last.strip_prefix("xebec-control: ").unwrap_or_else(|| panic!("no complaint: {said}")).to_owned()
}

#[tokio::test]
async fn asked_to_stop_it_ends_watches_and_leaves_cleanly() {
    let Some(mut control) = Control::start("control_lifecycle").await else { return };
    let api = config_maps(&control).await;
    let written = create(&api, "kept", "1".into()).await.expect("a write");
    let version = written.metadata.resource_version.clone().expect("a version");
    let watch = api.watch(&WatchParams::default(), &version).await.expect("a watch");
    let ended = tokio::spawn(watch.collect::<Vec<_>>());
    let began = Instant::now();
    let status = control.terminate().await;
    println!("SIGTERM to exit: {:?}", began.elapsed());
    assert!(status.success(), "{status}: {}", control.log());
    ended.await.expect("the watch ended");

    control.spawn();
    control.ready().await;
    let found = api.get("kept").await.expect("the object");
    assert_eq!(found.metadata.resource_version, Some(version));
}

#[tokio::test]
async fn start_with_data_is_quick() {
    let Some(mut control) = Control::start("control_lifecycle").await else { return };
    let api = config_maps(&control).await;
    let writes = futures::stream::iter(0..OBJECTS).map(|n| {
        let api = api.clone();
        async move { create(&api, &format!("object-{n}"), "x".repeat(1000)).await }
    });
    let began = Instant::now();
    let written = writes.buffer_unordered(64).collect::<Vec<_>>().await;
    println!("{OBJECTS} objects written in {:?}", began.elapsed());
    assert!(written.iter().all(Result::is_ok));
    control.kill();
    let began = Instant::now();
    control.spawn();
    control.ready().await;
    let took = began.elapsed();
    println!("ready after {took:?} with {OBJECTS} objects");
    assert!(took < SLOW_START, "ready only after {took:?}");
    assert_eq!(api.list(&ListParams::default().labels("")).await.expect("a list").items.len(), OBJECTS + 1);
}

#[tokio::test]
async fn second_process_and_taken_port_are_one_sentence_each() {
    let Some(control) = Control::start("control_lifecycle").await else { return };
    let said = complaint(&control.run(&control.arguments()));
    let data = control.data_dir().display().to_string();
    assert_eq!(said, format!("the data folder {data} is in use by another xebec-control"));

    let elsewhere = format!("--data-dir={}", control.folder().join("elsewhere").display());
    let mut arguments = control.arguments();
    for argument in &mut arguments {
        if argument.starts_with("--data-dir=") {
            argument.clone_from(&elsewhere);
        }
    }
    let said = complaint(&control.run(&arguments));
    assert!(
        said.ends_with("another process has the port; stop it or choose another with --secure-port"),
        "{said}"
    );
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_named() {
    let Some(mut control) = Control::start("control_lifecycle").await else { return };
    let pki = control.data_dir().join("pki");
    control.kill();

    // What it can make anew it makes anew.
    fs::write(pki.join("apiserver.crt"), "nonsense").expect("a write");
    control.spawn();
    control.ready().await;
    control.kill();

    let arguments = control.arguments();
    for (file, what) in [("ca.crt", "certificate"), ("ca.key", "key"), ("sa.key", "key")] {
        let path = pki.join(file);
        let good = fs::read(&path).expect("it was made");
        fs::write(&path, "nonsense").expect("a write");
        let said = complaint(&control.run(&arguments));
        assert!(said.contains(&path.display().to_string()) && said.contains(what), "{said}");
        fs::remove_file(&path).expect("it is there");
        fs::create_dir(&path).expect("a folder in its place");
        let said = complaint(&control.run(&arguments));
        assert!(said.starts_with(&format!("cannot read {}", path.display())), "{said}");
        fs::remove_dir(&path).expect("it is there");
        fs::write(&path, good).expect("a write");
    }
    control.spawn();
    control.ready().await;
}

#[tokio::test]
async fn store_that_is_none_is_refused_and_left_as_it_is() {
    let Some(mut control) = Control::start("control_lifecycle").await else { return };
    control.kill();
    let store = control.data_dir().join("store.redb");
    let nonsense = "not a store".repeat(1000);
    fs::write(&store, &nonsense).expect("a write");
    let said = complaint(&control.run(&control.arguments()));
    assert!(
        said.starts_with("cannot open the store: ") && said.contains(&store.display().to_string()),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&store).expect("it is there"), nonsense);
}

/// A data folder on a disk of its own, which is full before long.
#[test]
fn full_disk_refuses_writes_and_serves_reads_until_there_is_room() {
    on_node(|_| async {
        let Some(mut control) = Control::prepare("control_lifecycle") else { return Ok(()) };
        fs::create_dir(control.data_dir())?;
        let options = Some(SMALL_DISK);
        mount(Some("tmpfs"), &control.data_dir(), Some("tmpfs"), MsFlags::empty(), options)?;
        let ballast = control.data_dir().join("ballast");
        fs::write(&ballast, vec![1; 8 << 20])?;
        control.spawn();
        control.ready().await;
        let api = config_maps(&control).await;

        let (written, refused) = fill(&api).await?;
        println!("{written} objects, then: {refused}");
        ensure!(refused.to_string().contains("the disk that holds the store is full"), "{refused}");
        api.list(&ListParams::default().limit(10)).await.context("reads go on")?;
        api.get("object-0").await.context("reads go on")?;

        fs::remove_file(&ballast)?;
        mended(&api).await?;
        control.kill();
        control.spawn();
        control.ready().await;
        for n in 0..written {
            api.get(&format!("object-{n}")).await.context("what was acknowledged is there")?;
        }
        api.delete("object-0", &DeleteParams::default()).await.context("a delete")?;
        Ok(())
    });
}

/// Writes until the disk is full: how many were acknowledged, and the refusal.
async fn fill(api: &Api<ConfigMap>) -> Result<(usize, kube::Error)> {
    for n in 0..1000 {
        if let Err(refused) = create(api, &format!("object-{n}"), "x".repeat(100_000)).await {
            return Ok((n, refused));
        }
    }
    anyhow::bail!("1000 objects of 100 KB fit into {SMALL_DISK}")
}

/// Writes are accepted again, soon and without help.
async fn mended(api: &Api<ConfigMap>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match create(api, "after", "1".into()).await {
            Ok(_) => return Ok(()),
            // A refused write may have become durable all the same.
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
            Err(error) => ensure!(Instant::now() < deadline, "writes are still refused: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
