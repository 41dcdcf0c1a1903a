//! Records Events about objects, as `kubectl describe` shows them.
//!
//! In: what happened to which object, from any controller, without waiting. Out: `v1` Events; a repetition within ten
//! minutes counts up the Event that exists. Bounded: a full queue drops the Event (an Event is a courtesy, a reconcile
//! must not wait for it), and each object has a budget, so that one crash loop cannot flood the store.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::is_not_found;

const QUEUE: usize = 1024;
const REMEMBERED: usize = 4096;
/// One write; those that wait behind it are no older than this times the queue.
const TIMEOUT: Duration = Duration::from_secs(10);
const REPEAT_WINDOW: Duration = Duration::from_secs(600);
/// Writes one object may cause at once, and how long one takes to come back (upstream's spam filter).
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

/// Normal or worth a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

/// One thing to tell about one object.
#[derive(Clone, Debug)]
pub(crate) struct Occurrence {
    pub(crate) about: ObjectReference,
    pub(crate) component: &'static str,
    pub(crate) severity: Severity,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Where controllers put occurrences. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Occurrence>,
}

impl Recorder {
    /// A recorder and the writer behind it; the writer must be run for Events to appear.
    pub(crate) fn new(client: Client) -> (Self, EventWriter) {
        let (queue, occurrences) = mpsc::channel(QUEUE);
        let writer = EventWriter { client, occurrences, known: HashMap::new(), budgets: HashMap::new() };
        (Self { queue }, writer)
    }

    pub(crate) fn record(&self, occurrence: Occurrence) {
        if let Err(error) = self.queue.try_send(occurrence) {
            tracing::debug!(%error, "event dropped");
        }
    }
}

/// A reference to `object` for an Event about it.
pub(crate) fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// The task that writes Events.
pub(crate) struct EventWriter {
    client: Client,
    occurrences: mpsc::Receiver<Occurrence>,
    known: HashMap<Identity, Series>,
    budgets: HashMap<String, Budget>,
}

/// What makes two occurrences the same Event.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity {
    uid: String,
    component: &'static str,
    severity: Severity,
    reason: &'static str,
    message: String,
}

struct Series {
    name: String,
    count: i32,
    last: Instant,
}

struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn spend(&mut self, now: Instant) -> bool {
        let refilled = now.duration_since(self.at).as_secs_f64() / REFILL.as_secs_f64();
        self.left = (self.left + refilled).min(BURST);
        self.at = now;
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        }
        granted
    }
}

impl EventWriter {
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let occurrence = tokio::select! {
                () = shutdown.cancelled() => return,
                next = self.occurrences.recv() => match next {
                    Some(occurrence) => occurrence,
                    None => return,
                },
            };
            self.forget_old(Instant::now());
            match tokio::time::timeout(TIMEOUT, self.write(occurrence)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "event not written"),
                Err(_) => tracing::debug!("event not written in {TIMEOUT:?}"),
            }
        }
    }

    async fn write(&mut self, occurrence: Occurrence) -> Result<(), kube::Error> {
        let now = Instant::now();
        let uid = occurrence.about.uid.clone().unwrap_or_default();
        let budget = self.budgets.entry(uid.clone()).or_insert(Budget { left: BURST, at: now });
        if !budget.spend(now) {
            return Ok(());
        }
        let namespace = occurrence
            .about
            .namespace
            .clone()
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let identity = Identity {
            uid,
            component: occurrence.component,
            severity: occurrence.severity,
            reason: occurrence.reason,
            message: occurrence.message.clone(),
        };
        if let Some(series) = self.known.get_mut(&identity) {
            series.count = series.count.saturating_add(1);
            series.last = now;
            let patch = serde_json::json!({
                "count": series.count, "lastTimestamp": Time(Timestamp::now()),
            });
            match api.patch(&series.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => return Ok(()),
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let event = event(&occurrence, &namespace, Timestamp::now());
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        self.known.insert(identity, Series { name, count: 1, last: now });
        Ok(())
    }

    fn forget_old(&mut self, now: Instant) {
        if self.known.len() >= REMEMBERED {
            self.known.retain(|_, series| now.duration_since(series.last) < REPEAT_WINDOW);
            if self.known.len() >= REMEMBERED {
                self.known.clear();
            }
        }
        if self.budgets.len() >= REMEMBERED {
            // A budget this old is full again, which is what a missing one means.
            self.budgets.retain(|_, budget| {
                now.duration_since(budget.at).as_secs_f64() < BURST * REFILL.as_secs_f64()
            });
            if self.budgets.len() >= REMEMBERED {
                self.budgets.clear();
            }
        }
    }
}

fn event(occurrence: &Occurrence, namespace: &str, now: Timestamp) -> Event {
    let name = occurrence.about.name.clone().unwrap_or_default();
    // The name upstream's clients give: object, dot, nanoseconds in hex. Random low bits keep two Events of one
    // nanosecond apart.
    let unique = u64::try_from(now.as_nanosecond()).unwrap_or(0) ^ u64::from(rand::random::<u16>());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{unique:x}")),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: occurrence.about.clone(),
        type_: Some(
            match occurrence.severity {
                Severity::Normal => "Normal",
                Severity::Warning => "Warning",
            }
            .to_owned(),
        ),
        reason: Some(occurrence.reason.to_owned()),
        message: Some(truncated(&occurrence.message)),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some(occurrence.component.to_owned()), host: None }),
        reporting_component: Some(occurrence.component.to_owned()),
        reporting_instance: Some(String::new()),
        ..Event::default()
    }
}

/// An Event's message holds 1 KiB at most.
fn truncated(message: &str) -> String {
    const LIMIT: usize = 1024;
    if message.len() <= LIMIT {
        return message.to_owned();
    }
    let mut end = LIMIT - 3;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_cut_at_a_character_within_the_limit() {
        let long = "é".repeat(2000);
        let cut = truncated(&long);
        assert!(cut.len() <= 1024 && cut.ends_with("é..."));
        assert_eq!(truncated("short"), "short");
    }

    #[tokio::test(start_paused = true)]
    async fn budget_runs_out_and_refills() {
        let mut budget = Budget { left: BURST, at: Instant::now() };
        let granted = (0..40).filter(|_| budget.spend(Instant::now())).count();
        assert_eq!(granted, 25);
        tokio::time::advance(REFILL).await;
        assert!(budget.spend(Instant::now()));
        assert!(!budget.spend(Instant::now()));
    }
}
