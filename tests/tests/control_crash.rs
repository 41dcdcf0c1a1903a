//! The control plane killed again and again under writes: what was acknowledged stays, revisions only go up, a watch
//! that resumes misses nothing.
//!
//! In: the real program, clients over TLS. Out: a verdict after every kill. A run in which too little was written to
//! prove anything fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use tokio::sync::Notify;
use xebec_tests::control::Control;

const KILLS: u64 = 50;
const WRITERS: u64 = 8;
const KEYS: u64 = 6;
/// Acknowledged writes between two kills, at least.
const MIN_WRITES: u64 = 20;
const NAMESPACE: &str = "default";

/// What a writer was told last about one of its objects.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    Absent,
    /// Resource version and value.
    Present(u64, String),
}

/// What all writers tell the test.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicU64,
    highest_revision: AtomicU64,
    stop: AtomicBool,
    /// The server is up again.
    up: Notify,
}

/// One sequential writer; nobody else touches its objects.
struct Writer {
    id: u64,
    random: u64,
    known: BTreeMap<String, Known>,
    progress: Arc<Progress>,
    serial: u64,
}

fn revision(object: &ConfigMap) -> u64 {
    object.metadata.resource_version.as_ref().expect("a resource version").parse().expect("a number")
}

fn value(object: &ConfigMap) -> String {
    object.data.as_ref().and_then(|data| data.get("value")).expect("a value").clone()
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

// === impl Writer ===

impl Writer {
    fn new(id: u64, progress: Arc<Progress>) -> Self {
        let known = (0..KEYS).map(|key| (format!("crash-{id}-{key}"), Known::Absent)).collect();
        Self { id, random: id + 1, known, progress, serial: 0 }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Writes until told to stop; after a failure finds out what became of the write.
    async fn run(mut self, api: Api<ConfigMap>) -> BTreeMap<String, Known> {
        while !self.progress.stop.load(Ordering::Acquire) {
            let key = self.random() % KEYS;
            let name = format!("crash-{}-{key}", self.id);
            self.serial += 1;
            let length = (self.random() % 1000) as usize;
            let wanted = format!("{}-{}", self.serial, "x".repeat(length));
            let before = self.known[&name].clone();
            let delete = self.random().is_multiple_of(4);
            let floor = self.progress.highest_revision.load(Ordering::Acquire);
            match write(&api, &name, &before, &wanted, delete).await {
                Ok(after) => {
                    if let Known::Present(revision, _) = after {
                        assert!(
                            revision > floor,
                            "{name}: revision {revision} after {floor} was acknowledged"
                        );
                        self.progress.highest_revision.fetch_max(revision, Ordering::AcqRel);
                    }
                    self.known.insert(name, after);
                    self.progress.acknowledged.fetch_add(1, Ordering::AcqRel);
                }
                Err(kube::Error::Api(status)) if status.code < 500 => {
                    panic!("{name} was {before:?}, and nobody else writes it: {status:?}");
                }
                Err(_) => self.resolve(&api, name, before, &wanted, delete).await,
            }
        }
        self.known
    }

    /// After a write of unknown outcome the object is as it was before or as the write would have left it.
    async fn resolve(
        &mut self,
        api: &Api<ConfigMap>,
        name: String,
        before: Known,
        wanted: &str,
        delete: bool,
    ) {
        let found = loop {
            match api.get_opt(&name).await {
                Ok(Some(object)) => break Known::Present(revision(&object), value(&object)),
                Ok(None) => break Known::Absent,
                // Down, or still starting.
                Err(_) => {
                    if tokio::time::timeout(Duration::from_millis(20), self.progress.up.notified())
                        .await
                        .is_err()
                    {
                        tokio::task::yield_now().await;
                    }
                }
            }
        };
        let as_written = match &found {
            Known::Absent => delete && before != Known::Absent,
            Known::Present(_, value) => !(delete && before != Known::Absent) && value == wanted,
        };
        assert!(found == before || as_written, "{name}: was {before:?}, wrote {wanted:.20}, found {found:?}");
        self.known.insert(name, found);
    }
}

async fn write(
    api: &Api<ConfigMap>,
    name: &str,
    before: &Known,
    wanted: &str,
    delete: bool,
) -> kube::Result<Known> {
    let written = match before {
        Known::Absent => api.create(&PostParams::default(), &config_map(name, wanted, None)).await?,
        Known::Present(..) if delete => {
            api.delete(name, &DeleteParams::default()).await?;
            return Ok(Known::Absent);
        }
        Known::Present(version, _) => {
            api.replace(name, &PostParams::default(), &config_map(name, wanted, Some(*version))).await?
        }
    };
    Ok(Known::Present(revision(&written), value(&written)))
}

/// Follows the objects through every restart, from one resource version to the next.
async fn follow(
    api: Api<ConfigMap>,
    from: u64,
    progress: Arc<Progress>,
    until: Arc<AtomicU64>,
) -> BTreeMap<String, Known> {
    let mut seen = BTreeMap::new();
    let mut last = from;
    let params = WatchParams::default().timeout(60);
    loop {
        let Ok(events) = api.watch(&params, &last.to_string()).await else {
            // The next attempt is for when the server is back.
            let _ = tokio::time::timeout(Duration::from_millis(20), progress.up.notified()).await;
            continue;
        };
        let mut events = std::pin::pin!(events);
        loop {
            let wait = tokio::time::timeout(Duration::from_millis(200), events.try_next()).await;
            let event = match wait {
                Err(_) if last >= until.load(Ordering::Acquire) => return seen,
                Err(_) => continue,
                Ok(Ok(Some(event))) => event,
                Ok(_) => break,
            };
            let (object, gone) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => panic!("the watch from {last} was refused: {status:?}"),
            };
            let at = revision(&object);
            assert!(at > last, "an event of revision {at} after one of {last}");
            last = at;
            let name = object.metadata.name.clone().expect("a name");
            if !name.starts_with("crash-") {
                continue;
            }
            let known = if gone { Known::Absent } else { Known::Present(at, value(&object)) };
            seen.insert(name, known);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_lose_nothing_acknowledged() {
    let Some(mut control) = Control::start("control_crash").await else { return };
    let progress = Arc::new(Progress::default());
    let api = Api::<ConfigMap>::namespaced(control.client().await, NAMESPACE);
    while api.list(&ListParams::default().limit(1)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let listed = api.list(&ListParams::default()).await.expect("a list");
    let from: u64 = listed.metadata.resource_version.expect("a version").parse().expect("a number");
    let until = Arc::new(AtomicU64::new(u64::MAX));
    let follower = tokio::spawn(follow(api.clone(), from, progress.clone(), until.clone()));
    let mut writers = Vec::new();
    for id in 0..WRITERS {
        let api = Api::<ConfigMap>::namespaced(control.client().await, NAMESPACE);
        writers.push(tokio::spawn(Writer::new(id, progress.clone()).run(api)));
    }

    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 1..=KILLS {
        let wanted = progress.acknowledged.load(Ordering::Acquire) + MIN_WRITES;
        while progress.acknowledged.load(Ordering::Acquire) < wanted {
            assert!(
                !writers.iter().any(tokio::task::JoinHandle::is_finished),
                "a writer failed in round {round}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        tokio::time::sleep(Duration::from_micros(random >> 50)).await;
        control.kill();
        control.spawn();
        control.ready().await;
        progress.up.notify_waiters();
    }
    progress.stop.store(true, Ordering::Release);
    let mut known = BTreeMap::new();
    for writer in writers {
        known.extend(writer.await.expect("no writer found anything wrong"));
    }

    let listed = api.list(&ListParams::default()).await.expect("a list");
    let end: u64 = listed.metadata.resource_version.expect("a version").parse().expect("a number");
    assert!(end >= progress.highest_revision.load(Ordering::Acquire), "the list is of revision {end}");
    let found: BTreeMap<String, Known> = listed
        .items
        .iter()
        .filter(|object| object.metadata.name.as_ref().is_some_and(|name| name.starts_with("crash-")))
        .map(|object| {
            (object.metadata.name.clone().unwrap(), Known::Present(revision(object), value(object)))
        })
        .collect();
    known.retain(|_, known| *known != Known::Absent);
    assert_eq!(found, known, "what is there is what was acknowledged");

    let last = found.values().map(|known| match known {
        Known::Present(revision, _) => *revision,
        Known::Absent => 0,
    });
    until.store(last.max().unwrap_or(0), Ordering::Release);
    let mut seen = follower.await.expect("the watch was in order and whole");
    seen.retain(|_, known| *known != Known::Absent);
    assert_eq!(seen, found, "the watch saw everything");
    let writes = progress.acknowledged.load(Ordering::Acquire);
    println!("{KILLS} kills, {writes} acknowledged writes, revision {end}");
}
