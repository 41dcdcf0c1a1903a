//! The API as clients in Rust use it: kube's watcher, server-side apply, derived definitions, finalizers.
//!
//! In: kube-rs, a control plane that is killed and restored while it is watched. Out: what the client sees.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{Controller, WatchStreamExt, reflector};
use kube::{Client, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use xebec_tests::control::Control;

const TEST: &str = "api_kube_rs";
const SOON: Duration = Duration::from_secs(60);

/// A custom resource as its program declares it.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[kube(
    group = "example.com",
    version = "v1",
    kind = "Ship",
    namespaced,
    status = "ShipStatus",
    shortname = "sh",
    derive = "PartialEq",
    scale(spec_replicas_path = ".spec.masts", status_replicas_path = ".status.masts"),
    printcolumn(name = "Flag", type_ = "string", json_path = ".spec.flag")
)]
struct ShipSpec {
    flag: Flag,
    #[serde(default = "two")]
    masts: i32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    cargo: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Flag {
    Red,
    Blue,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
struct ShipStatus {
    masts: i32,
    afloat: bool,
}

fn two() -> i32 {
    2
}

fn map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("key".into(), value.into())])),
        ..ConfigMap::default()
    }
}

/// What a watcher tells, one word each, without what other programs do.
async fn next<S>(events: &mut S) -> String
where
    S: Stream<Item = watcher::Result<Event<ConfigMap>>> + Unpin,
{
    loop {
        let event = tokio::time::timeout(SOON, events.next()).await.expect("in time").expect("never ends");
        let told = |word: &str, map: &ConfigMap| {
            let value = map.data.as_ref().and_then(|data| data.get("key")).cloned().unwrap_or_default();
            format!("{word} {} {value}", map.name_any())
        };
        match event {
            Ok(Event::Init) => return "init".into(),
            Ok(Event::InitDone) => return "done".into(),
            Ok(Event::InitApply(map)) if map.name_any() != "kube-root-ca.crt" => return told("is", &map),
            Ok(Event::Apply(map)) if map.name_any() != "kube-root-ca.crt" => return told("set", &map),
            Ok(Event::Delete(map)) => return told("gone", &map),
            Ok(_) => {}
            // The server is away; the watcher tries again.
            Err(error) => eprintln!("{error}"),
        }
    }
}

/// Events of the default namespace; what is lost is tried again.
fn watch(
    client: &Client,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<ConfigMap>>> + Unpin {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    Box::pin(watcher(maps, config).default_backoff())
}

async fn put(maps: &Api<ConfigMap>, name: &str, value: &str) {
    let patch = json!({ "data": { "key": value } });
    maps.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched");
}

#[tokio::test]
async fn a_watcher_outlives_the_server_and_loses_nothing() {
    let Some(mut control) = Control::start(TEST).await else { return };
    let client = control.client().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    maps.create(&PostParams::default(), &map("a", "1")).await.expect("created");
    let lists = watcher::Config::default();
    let streams = watcher::Config::default().streaming_lists();
    let mut watchers = [Box::pin(watch(&client, lists)), Box::pin(watch(&client, streams))];
    for events in &mut watchers {
        assert_eq!(next(events).await, "init");
        assert_eq!(next(events).await, "is a 1");
        assert_eq!(next(events).await, "done");
    }
    put(&maps, "a", "2").await;
    maps.create(&PostParams::default(), &map("b", "1")).await.expect("created");
    for events in &mut watchers {
        assert_eq!(next(events).await, "set a 2");
        assert_eq!(next(events).await, "set b 1");
    }
    control.kill();
    control.spawn();
    control.ready().await;
    let maps: Api<ConfigMap> = Api::namespaced(control.client().await, "default");
    put(&maps, "a", "3").await;
    maps.delete("b", &DeleteParams::default()).await.expect("deleted");
    for events in &mut watchers {
        // From where it was: no second list, no change missed or told twice.
        assert_eq!(next(events).await, "set a 3");
        assert_eq!(next(events).await, "gone b 1");
    }
}

#[tokio::test]
async fn a_watcher_that_is_too_late_lists_again() {
    let Some(mut control) = Control::start(TEST).await else { return };
    let client = control.client().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    maps.create(&PostParams::default(), &map("a", "1")).await.expect("created");
    let mut events = watch(&client, watcher::Config::default());
    for wanted in ["init", "is a 1", "done"] {
        assert_eq!(next(&mut events).await, wanted);
    }
    let saved = control.folder().join("saved");
    let data = format!("--data-dir={}", control.data_dir().display());
    let saves = control.run(&["backup".into(), data.clone(), format!("--out={}", saved.display())]);
    assert!(saves.status.success(), "{}", String::from_utf8_lossy(&saves.stderr));
    put(&maps, "a", "2").await;
    assert_eq!(next(&mut events).await, "set a 2");
    control.kill();
    std::fs::remove_dir_all(control.data_dir()).expect("removed");
    let restores = control.run(&["restore".into(), data, format!("--from={}", saved.display())]);
    assert!(restores.status.success(), "{}", String::from_utf8_lossy(&restores.stderr));
    control.spawn();
    control.ready().await;
    // The history it was in is gone: 410, and everything anew.
    for wanted in ["init", "is a 1", "done"] {
        assert_eq!(next(&mut events).await, wanted);
    }
    let maps: Api<ConfigMap> = Api::namespaced(control.client().await, "default");
    put(&maps, "a", "3").await;
    assert_eq!(next(&mut events).await, "set a 3");
}

#[tokio::test]
async fn appliers_conflict_until_one_forces() {
    let Some(control) = Control::start(TEST).await else { return };
    let maps: Api<ConfigMap> = Api::namespaced(control.client().await, "default");
    let wanted = |value: &str| {
        let mut map = map("shared", value);
        map.metadata.labels = Some(BTreeMap::from([("by".to_owned(), "one".to_owned())]));
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": map.metadata, "data": map.data,
        }))
    };
    let (one, two) = (PatchParams::apply("one"), PatchParams::apply("two"));
    let made = maps.patch("shared", &one, &wanted("1")).await.expect("applied");
    let again = maps.patch("shared", &one, &wanted("1")).await.expect("applied");
    assert_eq!(again.resource_version(), made.resource_version(), "the second time nothing is written");
    let conflict = maps.patch("shared", &two, &wanted("2")).await.expect_err("it conflicts");
    let kube::Error::Api(status) = conflict else { panic!("{conflict}") };
    assert_eq!((status.code, &*status.reason), (409, "Conflict"));
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .data.key");
    let forced = maps.patch("shared", &two.force(), &wanted("2")).await.expect("forced");
    assert_eq!(forced.data.as_ref().and_then(|data| data.get("key")).map(String::as_str), Some("2"));
    let owners: Vec<_> = forced.managed_fields().iter().filter_map(|entry| entry.manager.clone()).collect();
    assert_eq!(owners, ["one", "two"], "the labels are shared");
}

/// The definition is applied and its kind served.
async fn define(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = Patch::Apply(Ship::crd());
    let params = PatchParams::apply(TEST).force();
    definitions.patch("ships.example.com", &params, &definition).await.expect("applied");
    let established = await_condition(definitions, "ships.example.com", conditions::is_crd_established());
    tokio::time::timeout(SOON, established).await.expect("in time").expect("established");
}

#[tokio::test]
async fn a_derived_definition_is_served_as_declared() {
    let Some(control) = Control::start(TEST).await else { return };
    let client = control.client().await;
    define(&client).await;
    let ships: Api<Ship> = Api::namespaced(client.clone(), "default");
    let (reader, writer) = reflector::store();
    let reflected = reflector(writer, watcher(ships.clone(), watcher::Config::default()).default_backoff());
    let reflecting = tokio::spawn(reflected.for_each(|_| async {}));
    let ship = Ship::new("a", ShipSpec { flag: Flag::Red, masts: 3, cargo: BTreeMap::new() });
    let made = ships.create(&PostParams::default(), &ship).await.expect("created");
    assert_eq!((&made.spec, &made.status), (&ship.spec, &None));
    let mut bare = serde_json::to_value(Ship::new("b", ship.spec.clone())).expect("JSON");
    bare["spec"].as_object_mut().expect("a spec").remove("masts");
    let bare: Ship = ships.patch("b", &PatchParams::apply(TEST), &Patch::Apply(bare)).await.expect("applied");
    assert_eq!(bare.spec.masts, 2, "the declared default");
    let green = json!({ "apiVersion": "example.com/v1", "kind": "Ship", "spec": { "flag": "green" } });
    let refused =
        ships.patch("c", &PatchParams::apply(TEST), &Patch::Apply(green)).await.expect_err("refused");
    let kube::Error::Api(refused) = refused else { panic!("{refused}") };
    assert_eq!((refused.code, &*refused.reason), (422, "Invalid"));
    assert!(refused.message.contains("spec.flag: Unsupported value: \"green\""), "{}", refused.message);

    let status = json!({ "status": { "masts": 3, "afloat": true }, "spec": { "masts": 9 } });
    let told = ships.patch_status("a", &PatchParams::default(), &Patch::Merge(status)).await.expect("told");
    assert_eq!(told.status, Some(ShipStatus { masts: 3, afloat: true }));
    assert_eq!(told.spec.masts, 3, "the door for status lets nothing else through");
    let scale = json!({ "spec": { "replicas": 5 } });
    let scaled = ships.patch_scale("a", &PatchParams::default(), &Patch::Merge(scale)).await.expect("scaled");
    assert_eq!(scaled.spec.and_then(|spec| spec.replicas), Some(5));
    assert_eq!(scaled.status.map(|status| status.replicas), Some(3));
    let is_afloat = |ship: Option<&Ship>| ship.is_some_and(|ship| ship.spec.masts == 5);
    let waited = await_condition(ships.clone(), "a", is_afloat);
    tokio::time::timeout(SOON, waited).await.expect("in time").expect("met");
    let page = ships.list(&ListParams::default().limit(1)).await.expect("listed");
    assert_eq!((page.items.len(), page.metadata.remaining_item_count), (1, Some(1)));
    tokio::time::timeout(SOON, reader.wait_until_ready()).await.expect("in time").expect("ready");
    let deadline = tokio::time::Instant::now() + SOON;
    while reader.state().iter().filter(|ship| ship.spec.masts == 5 || ship.name_any() == "b").count() < 2 {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", reader.state());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    reflecting.abort();
}

#[tokio::test]
async fn a_controller_reconciles_and_cleans_up() {
    let Some(control) = Control::start(TEST).await else { return };
    let client = control.client().await;
    define(&client).await;
    let ships: Api<Ship> = Api::namespaced(client.clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let context = Arc::new((ships.clone(), maps.clone()));
    let controller = Controller::new(ships.clone(), watcher::Config::default())
        .owns(maps.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), context)
        .for_each(|_| async {});
    let controller = tokio::spawn(controller);
    let ship = Ship::new("a", ShipSpec { flag: Flag::Blue, masts: 1, cargo: BTreeMap::new() });
    ships.create(&PostParams::default(), &ship).await.expect("created");
    let is_afloat =
        |ship: Option<&Ship>| ship.and_then(|ship| ship.status.as_ref()).is_some_and(|s| s.afloat);
    tokio::time::timeout(SOON, await_condition(ships.clone(), "a", is_afloat))
        .await
        .expect("in time")
        .expect("met");
    let log = maps.get("a-log").await.expect("made by the controller");
    assert_eq!(log.owner_references()[0].kind, "Ship");
    // What it owns comes back.
    maps.delete("a-log", &DeleteParams::default()).await.expect("deleted");
    let is_back = |map: Option<&ConfigMap>| map.is_some_and(|map| map.uid() != log.uid());
    tokio::time::timeout(SOON, await_condition(maps.clone(), "a-log", is_back))
        .await
        .expect("in time")
        .expect("met");
    let uid = ships.get("a").await.expect("there").uid().expect("a uid");
    ships.delete("a", &DeleteParams::default()).await.expect("deleted");
    let deleted = conditions::is_deleted(&uid);
    tokio::time::timeout(SOON, await_condition(ships.clone(), "a", deleted))
        .await
        .expect("in time")
        .expect("met");
    let epitaph = maps.get("a-end").await.expect("written before the finalizer went");
    assert_eq!(epitaph.data.as_ref().and_then(|data| data.get("key")).map(String::as_str), Some("sunk"));
    controller.abort();
}

type Context = Arc<(Api<Ship>, Api<ConfigMap>)>;

async fn reconcile(
    ship: Arc<Ship>,
    context: Context,
) -> Result<Action, kube::runtime::finalizer::Error<kube::Error>> {
    let ships = context.0.clone();
    finalizer(&ships, "example.com/harbour", ship, |event| async move {
        let (ships, maps) = &*context;
        let params = PatchParams::apply("harbour").force();
        match event {
            Finalizer::Apply(ship) => {
                let mut log = map(&format!("{}-log", ship.name_any()), "sailing");
                log.metadata.owner_references = ship.controller_owner_ref(&()).map(|owner| vec![owner]);
                maps.patch(&log.name_any(), &params, &Patch::Apply(with_type(&log))).await?;
                let status = json!({ "status": { "masts": ship.spec.masts, "afloat": true } });
                ships.patch_status(&ship.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
            }
            Finalizer::Cleanup(ship) => {
                let end = map(&format!("{}-end", ship.name_any()), "sunk");
                maps.patch(&end.name_any(), &params, &Patch::Apply(with_type(&end))).await?;
            }
        }
        Ok(Action::await_change())
    })
    .await
}

fn with_type(map: &ConfigMap) -> serde_json::Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": map.metadata, "data": map.data })
}
