//! Many clients on the same few objects, the control plane killed again and again: what they were told has to be the story of
//! one store, one step after the other.
//!
//! In: the real program, clients over TLS. Out: a recorded history, judged by `history`. `XEBEC_SOAK` kills a thousand
//! times.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use tokio::sync::Notify;
use xebec_tests::control::Control;
use xebec_tests::history::{Call, Change, Operation, Outcome, Version, check};

const KILLS: u64 = 15;
const SOAK_KILLS: u64 = 1000;
const CLIENTS: u64 = 8;
const KEYS: u64 = 5;
/// Answered calls between two kills, at least.
const MIN_CALLS: u64 = 60;
/// History is kept for five minutes, and checked before that.
const KILLS_PER_HISTORY: u64 = 100;
const PREFIX: &str = "shared-";

/// What clients, the watch and the test tell each other.
struct Run {
    start: Instant,
    answered: AtomicU64,
    stop: AtomicBool,
    /// The server is up again.
    up: Notify,
}

struct Client {
    id: u64,
    random: u64,
    serial: u64,
    run: Arc<Run>,
    calls: Vec<Call>,
}

fn api(client: kube::Client) -> Api<ConfigMap> {
    Api::default_namespaced(client)
}

fn version(object: &ConfigMap) -> Version {
    let revision = object.metadata.resource_version.as_ref().and_then(|version| version.parse().ok());
    let value = object.data.as_ref().and_then(|data| data.get("value")).cloned();
    Version { revision: revision.expect("a resource version"), value: value.expect("a value") }
}

fn config_map(name: &str, value: &str, resource_version: Option<u64>) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: resource_version.map(|version| version.to_string()),
            ..ObjectMeta::default()
        },
        data: Some([("value".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

// === impl Client ===

impl Client {
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    async fn go(mut self, api: Api<ConfigMap>) -> Vec<Call> {
        while !self.run.stop.load(Ordering::Acquire) {
            let key = format!("{PREFIX}{}", self.random() % KEYS);
            let Outcome::Read(seen) = self.call(&api, &key, Operation::Get, None).await else {
                // Down, or still starting.
                let up = self.run.up.notified();
                tokio::time::timeout(Duration::from_millis(20), up).await.ok();
                continue;
            };
            let operation = match self.random() % 8 {
                0 => continue,
                1 if seen.is_some() => Operation::Delete,
                _ => {
                    self.serial += 1;
                    Operation::Put { value: format!("{}-{}", self.id, self.serial) }
                }
            };
            self.call(&api, &key, operation, seen.map(|version| version.revision)).await;
        }
        self.calls
    }

    /// Does it and writes down what came of it.
    async fn call(
        &mut self,
        api: &Api<ConfigMap>,
        key: &str,
        operation: Operation,
        seen: Option<u64>,
    ) -> Outcome {
        let began = self.run.start.elapsed();
        let answer = match &operation {
            Operation::Get => api.get_opt(key).await.map(|found| Outcome::Read(found.as_ref().map(version))),
            Operation::Delete => api.delete(key, &DeleteParams::default()).await.map(|_| Outcome::Deleted),
            Operation::Put { value } => {
                let object = config_map(key, value, seen);
                let written = match seen {
                    None => api.create(&PostParams::default(), &object).await,
                    Some(_) => api.replace(key, &PostParams::default(), &object).await,
                };
                written.map(|written| Outcome::Written(version(&written).revision))
            }
        };
        let outcome = match answer {
            Ok(outcome) => outcome,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Outcome::Refused,
            Err(kube::Error::Api(status)) if status.code < 500 => panic!("{key}: {status:?}"),
            Err(_) => Outcome::Unknown,
        };
        if outcome != Outcome::Unknown {
            self.run.answered.fetch_add(1, Ordering::AcqRel);
        }
        let ended = self.run.start.elapsed();
        self.calls.push(Call { key: key.to_owned(), operation, outcome: outcome.clone(), began, ended });
        outcome
    }
}

/// Every change from a resource version on, through every restart, until the version at which it may end.
async fn record(api: Api<ConfigMap>, from: u64, run: Arc<Run>, until: Arc<AtomicU64>) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let mut last = from;
    let params = WatchParams::default().timeout(290);
    loop {
        let Ok(events) = api.watch(&params, &last.to_string()).await else {
            tokio::time::timeout(Duration::from_millis(20), run.up.notified()).await.ok();
            continue;
        };
        let mut events = std::pin::pin!(events);
        loop {
            let event = match tokio::time::timeout(Duration::from_millis(200), events.try_next()).await {
                Err(_) if last >= until.load(Ordering::Acquire) => return changes,
                Err(_) => continue,
                Ok(Ok(Some(event))) => event,
                Ok(_) => break,
            };
            let (object, gone) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(mark) => {
                    last = mark.metadata.resource_version.parse().expect("a number");
                    continue;
                }
                WatchEvent::Error(status) => panic!("the watch from {last} was refused: {status:?}"),
            };
            let key = object.metadata.name.clone().expect("a name");
            let revision = object.metadata.resource_version.as_ref().and_then(|v| v.parse().ok());
            last = revision.expect("a resource version");
            if key.starts_with(PREFIX) {
                let value = (!gone).then(|| version(&object).value);
                changes.push(Change { revision: last, key, value });
            }
        }
    }
}

/// One history under a number of kills.
async fn one(control: &mut Control, kills: u64, seed: u64) -> (usize, usize) {
    let own = api(control.client().await);
    for name in (0..KEYS).map(|key| format!("{PREFIX}{key}")) {
        own.delete(&name, &DeleteParams::default()).await.ok();
    }
    let listed = own.list(&ListParams::default()).await.expect("a list");
    let from: u64 = listed.metadata.resource_version.expect("a version").parse().expect("a number");
    let run = Arc::new(Run {
        start: Instant::now(),
        answered: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        up: Notify::new(),
    });
    let until = Arc::new(AtomicU64::new(u64::MAX));
    let recorder = tokio::spawn(record(own.clone(), from, run.clone(), until.clone()));
    let mut clients = Vec::new();
    for id in 0..CLIENTS {
        let client = Client {
            id,
            random: seed.wrapping_mul(CLIENTS + 1).wrapping_add(id + 1),
            serial: 0,
            run: run.clone(),
            calls: Vec::new(),
        };
        clients.push(tokio::spawn(client.go(api(control.client().await))));
    }
    let mut random = seed;
    for round in 0..kills {
        let wanted = run.answered.load(Ordering::Acquire) + MIN_CALLS;
        while run.answered.load(Ordering::Acquire) < wanted {
            assert!(
                !clients.iter().any(tokio::task::JoinHandle::is_finished),
                "a client failed, kill {round}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        tokio::time::sleep(Duration::from_micros(random >> 50)).await;
        control.kill();
        control.spawn();
        control.ready().await;
        run.up.notify_waiters();
    }
    run.stop.store(true, Ordering::Release);
    let mut calls = Vec::new();
    for client in clients {
        calls.extend(client.await.expect("no client saw what cannot be"));
    }
    // A write marks the end, so that the watch has passed everything.
    let mark = own.create(&PostParams::default(), &config_map(&format!("end-{seed}"), "", None)).await;
    until.store(version(&mark.expect("a write")).revision, Ordering::Release);
    let changes = recorder.await.expect("the watch was never refused");
    if let Err(impossible) = check(&calls, &changes) {
        panic!("seed {seed}: {impossible}");
    }
    (calls.len(), changes.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_history_is_linearizable() {
    let Some(mut control) = Control::start("control_history").await else { return };
    let kills = if std::env::var_os("XEBEC_SOAK").is_some() { SOAK_KILLS } else { KILLS };
    let (mut calls, mut changes, mut done) = (0, 0, 0);
    while done < kills {
        let kills = KILLS_PER_HISTORY.min(kills - done);
        let (called, changed) = one(&mut control, kills, 0x2545_f491 + done).await;
        calls += called;
        changes += changed;
        done += kills;
    }
    println!("{done} kills, {calls} calls, {changes} changes: one story");
    assert!(changes as u64 > kills * 5, "too little happened to prove anything");
}
