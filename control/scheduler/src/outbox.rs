//! What the scheduler says about pods without waiting for an answer: Events and the PodScheduled condition.
//!
//! In: notices. Out: API writes, in order. Bounded: a full outbox drops the notice; a pod that still does not fit is
//! told so again at its next try.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use xebec_api::wellknown::conditions::{FALSE, POD_SCHEDULED};
use xebec_api::wellknown::reasons::event_type::{NORMAL, WARNING};
use xebec_api::wellknown::reasons::pod::{FAILED_SCHEDULING, PREEMPTED, SCHEDULED};

use crate::error::WriteError;
use crate::pod_info::{PodInfo, PodUid};

const CAPACITY: usize = 4096;
const REMEMBERED: usize = 4096;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const MESSAGE_LIMIT: usize = 1024;

/// One thing to say.
#[derive(Debug)]
pub(crate) enum Notice {
    Scheduled {
        pod: Arc<PodInfo>,
        node: String,
    },
    /// The pod has no node; `reason` goes to the condition, the message to the Event as well.
    Failed {
        pod: Arc<PodInfo>,
        reason: &'static str,
        message: String,
        /// What `nominatedNodeName` is to become, if it changes.
        nominated: Option<Option<String>>,
    },
    /// The victim makes room for another pod.
    Preempted {
        victim: Arc<PodInfo>,
        by: PodUid,
        node: String,
    },
}

/// Where notices are dropped. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox {
    notices: mpsc::Sender<Notice>,
}

impl Outbox {
    pub(crate) fn new(client: Client, scheduler_name: String) -> (Self, Postman) {
        let (notices, inbox) = mpsc::channel(CAPACITY);
        (Self { notices }, Postman { client, scheduler_name, inbox, failures: HashMap::new() })
    }

    pub(crate) fn post(&self, notice: Notice) {
        if let Err(error) = self.notices.try_send(notice) {
            tracing::debug!(%error, "notice dropped");
        }
    }
}

/// The task that writes.
pub(crate) struct Postman {
    client: Client,
    scheduler_name: String,
    inbox: mpsc::Receiver<Notice>,
    /// The last failure Event of each pod: the same again counts it up.
    failures: HashMap<PodUid, Failure>,
}

struct Failure {
    message: String,
    event: String,
    count: i32,
}

impl Postman {
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let notice = tokio::select! {
                () = shutdown.cancelled() => return,
                notice = self.inbox.recv() => match notice {
                    Some(notice) => notice,
                    None => return,
                },
            };
            let written = tokio::time::timeout(WRITE_TIMEOUT, self.deliver(notice)).await;
            match written.unwrap_or(Err(WriteError::TimedOut(WRITE_TIMEOUT))) {
                Ok(()) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => tracing::warn!(%error, "cannot tell about a pod"),
            }
        }
    }

    async fn deliver(&mut self, notice: Notice) -> Result<(), WriteError> {
        match notice {
            Notice::Scheduled { pod, node } => {
                self.failures.remove(&pod.uid);
                let message = format!("Successfully assigned {pod} to {node}");
                let event = self.event(&pod, NORMAL, SCHEDULED, &message, Timestamp::now());
                self.events(&pod).create(&PostParams::default(), &event).await?;
            }
            Notice::Preempted { victim, by, node } => {
                let message = format!("Preempted by pod {by} on node {node}");
                let event = self.event(&victim, NORMAL, PREEMPTED, &message, Timestamp::now());
                self.events(&victim).create(&PostParams::default(), &event).await?;
            }
            Notice::Failed { pod, reason, message, nominated } => {
                let condition = self.condition(&pod, reason, &message, nominated).await;
                self.failure_event(&pod, &message).await?;
                condition?;
            }
        }
        Ok(())
    }

    /// Says so in the pod's status, unless it says so already.
    async fn condition(
        &self,
        pod: &PodInfo,
        reason: &str,
        message: &str,
        nominated: Option<Option<String>>,
    ) -> Result<(), WriteError> {
        let known = pod.scheduled_condition.as_ref();
        let same = known.is_some_and(|known| {
            known.status == FALSE
                && known.reason.as_deref() == Some(reason)
                && known.message.as_deref() == Some(message)
        });
        if same && nominated.is_none() {
            return Ok(());
        }
        let unchanged =
            known.filter(|known| known.status == FALSE).and_then(|known| known.last_transition_time.clone());
        let since = unchanged.unwrap_or_else(|| Time(Timestamp::now()));
        let mut patch = json!({
            "metadata": {"uid": &*pod.uid},
            "status": {"conditions": [{
                "type": POD_SCHEDULED,
                "status": FALSE,
                "reason": reason,
                "message": message,
                "lastTransitionTime": since,
                "observedGeneration": pod.generation,
            }]},
        });
        if let Some(node) = nominated {
            patch["status"]["nominatedNodeName"] = node.into();
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        // Strategic: conditions are merged by type, so that others' conditions stay.
        api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
        Ok(())
    }

    async fn failure_event(&mut self, pod: &PodInfo, message: &str) -> Result<(), WriteError> {
        let events = self.events(pod);
        let now = Timestamp::now();
        if let Some(failure) = self.failures.get_mut(&pod.uid)
            && failure.message == message
        {
            failure.count = failure.count.saturating_add(1);
            let patch = json!({"count": failure.count, "lastTimestamp": Time(now)});
            let patched = events.patch(&failure.event, &PatchParams::default(), &Patch::Merge(&patch)).await;
            match patched.map_err(WriteError::from) {
                Err(error) if error.is_not_found() => {}
                other => return other.map(drop),
            }
        }
        let event = self.event(pod, WARNING, FAILED_SCHEDULING, message, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        events.create(&PostParams::default(), &event).await?;
        if self.failures.len() >= REMEMBERED {
            self.failures.clear();
        }
        self.failures.insert(pod.uid.clone(), Failure { message: message.to_owned(), event: name, count: 1 });
        Ok(())
    }

    fn events(&self, pod: &PodInfo) -> Api<Event> {
        Api::namespaced(self.client.clone(), &pod.namespace)
    }

    fn event(&self, pod: &PodInfo, type_: &str, reason: &str, message: &str, now: Timestamp) -> Event {
        let unique = u64::try_from(now.as_nanosecond()).unwrap_or(0) ^ u64::from(rand::random::<u16>());
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{unique:x}", pod.name)),
                namespace: Some(pod.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: pod.reference(),
            type_: Some(type_.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(truncated(message)),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some(self.scheduler_name.clone()), host: None }),
            reporting_component: Some(self.scheduler_name.clone()),
            reporting_instance: Some(String::new()),
            ..Event::default()
        }
    }
}

/// An Event's message holds 1 KiB at most.
fn truncated(message: &str) -> String {
    if message.len() <= MESSAGE_LIMIT {
        return message.to_owned();
    }
    let mut end = MESSAGE_LIMIT - 3;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &message[..end])
}
