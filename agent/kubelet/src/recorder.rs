//! Events about pods and the node (`kubectl describe`).
//!
//! In: reasons and messages, never blocking. Out: core/v1 Events; the same event again raises its count.
//! A full queue or a chatty object loses events, never time.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::pod::{self, ContainerKind};

const QUEUE: usize = 1000;
/// Remembered series.
const SERIES: usize = 2048;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Events one object may cause at once, and how long until it may cause one more.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Clone, Debug)]
struct Occurrence {
    object: ObjectReference,
    type_: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Handle for telling events.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Occurrence>,
}

impl Recorder {
    /// Starts the writer; it ends with the last handle.
    pub fn spawn(client: Client, node_name: &str) -> Self {
        let (queue, inbox) = mpsc::channel(QUEUE);
        tokio::spawn(Writer::new(client, node_name.to_owned()).run(inbox));
        Self { queue }
    }

    /// An event about a pod, or about one of its containers.
    pub fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        type_: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let field_path = container.map(|name| {
            let list = match pod::container(pod, name).map(|spec| spec.kind) {
                Some(ContainerKind::Main) => "containers",
                Some(_) => "initContainers",
                None => "ephemeralContainers",
            };
            format!("spec.{list}{{{name}}}")
        });
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod::namespace(pod).to_owned()),
            name: Some(pod::name(pod).to_owned()),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path,
        };
        self.tell(object, type_, reason, message.into());
    }

    /// An event about the node.
    pub fn node(&self, node: &Node, type_: EventType, reason: &str, message: impl Into<String>) {
        let object = ObjectReference {
            kind: Some("Node".to_owned()),
            name: node.metadata.name.clone(),
            // Upstream writes the name here, and `kubectl describe node` looks for it.
            uid: node.metadata.name.clone(),
            ..ObjectReference::default()
        };
        self.tell(object, type_, reason, message.into());
    }

    fn tell(&self, object: ObjectReference, type_: EventType, reason: &str, message: String) {
        let at = Timestamp::now();
        let event = Occurrence { object, type_, reason: reason.to_owned(), message, at };
        if self.queue.try_send(event).is_err() {
            tracing::debug!(reason, "event lost: the queue is full");
        }
    }
}

type SeriesKey = (Option<String>, Option<String>, EventType, String, String);

struct Series {
    name: String,
    count: i32,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

struct Writer {
    client: Client,
    node_name: String,
    series: HashMap<SeriesKey, Series>,
    order: VecDeque<SeriesKey>,
    buckets: HashMap<Option<String>, Bucket>,
}

impl Writer {
    fn new(client: Client, node_name: String) -> Self {
        Self { client, node_name, series: HashMap::new(), order: VecDeque::new(), buckets: HashMap::new() }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Occurrence>) {
        while let Some(event) = inbox.recv().await {
            if !self.admit(&event) {
                continue;
            }
            match tokio::time::timeout(CALL_TIMEOUT, self.write(&event)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(reason = event.reason, %error, "event not written"),
                Err(_) => tracing::debug!(reason = event.reason, "event not written in time"),
            }
        }
    }

    /// Upstream's spam filter: a token bucket for each object.
    fn admit(&mut self, event: &Occurrence) -> bool {
        let now = Instant::now();
        if self.buckets.len() >= SERIES {
            self.buckets.retain(|_, b| now.duration_since(b.filled) < REFILL);
        }
        let bucket =
            self.buckets.entry(event.object.uid.clone()).or_insert(Bucket { tokens: BURST, filled: now });
        let gained = now.duration_since(bucket.filled).as_secs_f64() / REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + gained).min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    async fn write(&mut self, event: &Occurrence) -> Result<(), kube::Error> {
        let namespace = event.object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api = Api::<Event>::namespaced(self.client.clone(), &namespace);
        let key: SeriesKey = (
            event.object.uid.clone(),
            event.object.field_path.clone(),
            event.type_,
            event.reason.clone(),
            event.message.clone(),
        );
        if let Some(series) = self.series.get_mut(&key) {
            series.count += 1;
            let patch = serde_json::json!({
                "count": series.count,
                "lastTimestamp": Time(event.at),
            });
            match api.patch(&series.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                // Expired meanwhile: it begins anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other.map(drop),
            }
        }
        let created = self.create(&api, &namespace, event).await?;
        if self.series.insert(key.clone(), Series { name: created, count: 1 }).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > SERIES {
            if let Some(old) = self.order.pop_front() {
                self.series.remove(&old);
            }
        }
        Ok(())
    }

    async fn create(
        &self,
        api: &Api<Event>,
        namespace: &str,
        event: &Occurrence,
    ) -> Result<String, kube::Error> {
        let object_name = event.object.name.clone().unwrap_or_default();
        let name = format!("{object_name}.{:x}", event.at.as_nanosecond());
        let body = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: event.object.clone(),
            type_: Some(event.type_.as_str().to_owned()),
            reason: Some(event.reason.clone()),
            message: Some(event.message.chars().take(1024).collect()),
            count: Some(1),
            first_timestamp: Some(Time(event.at)),
            last_timestamp: Some(Time(event.at)),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node_name.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node_name.clone()),
            ..Event::default()
        };
        api.create(&PostParams::default(), &body).await?;
        Ok(name)
    }
}
