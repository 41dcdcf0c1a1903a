//! What happens to containers, as it happens.
//!
//! In: containerd's event stream. Out: [`RuntimeEvent`]s in a bounded queue; after every break, and after a queue that
//! ran over, a [`RuntimeEvent::Gap`].
//!
//! containerd does not answer a subscription before the first event. So a subscription publishes an event of its own
//! until it sees it: only then is it known to be complete, and only then is the gap declared over. The same event is
//! the heartbeat that finds a stream which hangs.

use std::time::Duration;

use containerd_client::events::{NamespaceUpdate, TaskExit, TaskOom, TaskStart};
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use prost::Message;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::{Status, Streaming};

use super::marks::Exit;
use super::{cgroup, state};
use crate::containerd::Containerd;
use crate::rpc::rpc;
use crate::types::{ContainerId, RuntimeEvent};

const QUEUE: usize = 1024;
const START: &str = "/tasks/start";
const EXIT: &str = "/tasks/exit";
const OOM: &str = "/tasks/oom";
const PULSE: &str = "/xebec/pulse";
/// Between two pulses of a subscription that is being made, and of one that works.
const FIRST_PULSES: Duration = Duration::from_millis(50);
const HEARTBEAT: Duration = Duration::from_secs(30);
/// A pulse that was published and not seen for so long: the stream is dead.
const DEAF: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Something read off the stream.
enum Seen {
    Pulse(String),
    Event(RuntimeEvent),
    Exit { id: ContainerId, exit: Exit },
}

/// The receiving end of a subscription.
struct Listener {
    containerd: Containerd,
    queue: mpsc::Sender<RuntimeEvent>,
    /// Events were dropped because the queue was full; a gap is to be declared as soon as there is room.
    overrun: bool,
}

/// Starts a listener; it ends when the receiver is dropped.
pub(crate) fn listen(containerd: Containerd) -> mpsc::Receiver<RuntimeEvent> {
    let (queue, receiver) = mpsc::channel(QUEUE);
    let mut listener = Listener { containerd, queue, overrun: false };
    tokio::spawn(async move {
        let mut pause = PAUSE;
        while !listener.queue.is_closed() {
            let begin = Instant::now();
            if let Err(status) = listener.follow().await {
                tracing::info!(%status, "containerd's event stream broke");
            }
            pause = if begin.elapsed() > LONGEST_PAUSE { PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            tokio::select! {
                () = listener.queue.closed() => {}
                () = sleep(pause) => {}
            }
        }
    });
    receiver
}

// === impl Listener ===

impl Listener {
    /// One subscription from its beginning to its break.
    async fn follow(&mut self) -> Result<(), Status> {
        let token = format!("{:x}", rand_token());
        let client = self.containerd.client.clone();
        let namespace = &self.containerd.config.namespace;
        let filters =
            [START, EXIT, OOM, PULSE].map(|topic| format!("topic==\"{topic}\",namespace==\"{namespace}\""));
        let request = SubscribeRequest { filters: filters.into() };
        let mut subscribing = client.events();
        let subscribe = subscribing.subscribe(request);
        tokio::pin!(subscribe);
        let deadline = Instant::now() + DEAF;
        let mut stream = loop {
            tokio::select! {
                opened = timeout_at(deadline, &mut subscribe) => {
                    break opened.map_err(|_| Status::deadline_exceeded("no answer"))??.into_inner();
                }
                () = sleep(FIRST_PULSES) => self.pulse(&token).await,
                () = self.queue.closed() => return Ok(()),
            }
        };
        self.push(RuntimeEvent::Gap);
        self.read(&mut stream, &token).await
    }

    async fn read(&mut self, stream: &mut Streaming<Envelope>, token: &str) -> Result<(), Status> {
        let mut next_pulse = Instant::now() + HEARTBEAT;
        let mut deaf_at: Option<Instant> = None;
        loop {
            let wake = deaf_at.map_or(next_pulse, |at| at.min(next_pulse));
            tokio::select! {
                message = stream.message() => {
                    let Some(envelope) = message? else { return Ok(()) };
                    match self.interpret(envelope) {
                        Some(Seen::Pulse(seen)) if seen == token => deaf_at = None,
                        Some(Seen::Pulse(_)) | None => {}
                        Some(Seen::Event(event)) => self.push(event),
                        Some(Seen::Exit { id, exit }) => self.exited(id, exit).await,
                    }
                }
                () = sleep_until(wake) => {
                    if deaf_at.is_some_and(|at| at <= Instant::now()) {
                        return Err(Status::deadline_exceeded("the heartbeat was not heard"));
                    }
                    deaf_at.get_or_insert(Instant::now() + DEAF);
                    next_pulse = Instant::now() + HEARTBEAT;
                    self.pulse(token).await;
                }
                () = self.queue.closed() => return Ok(()),
            }
        }
    }

    /// Publishes our own event. A failure shows as a pulse that is not heard.
    async fn pulse(&self, token: &str) {
        let client = &self.containerd.client;
        let event = NamespaceUpdate { name: token.to_owned(), ..Default::default() };
        let event =
            Any { type_url: "containerd.events.NamespaceUpdate".into(), value: event.encode_to_vec() };
        let request = PublishRequest { topic: PULSE.into(), event: Some(event) };
        let published = rpc!(client, client.timeouts.metadata, events.publish(request)).await;
        if let Err(failed) = published {
            tracing::debug!(error = %failed.error, "no pulse could be published");
        }
    }

    fn interpret(&self, envelope: Envelope) -> Option<Seen> {
        let body = envelope.event?.value;
        let id = ContainerId;
        match envelope.topic.as_str() {
            START => {
                let event = TaskStart::decode(body.as_slice()).ok()?;
                Some(Seen::Event(RuntimeEvent::Started { id: id(event.container_id) }))
            }
            OOM => {
                let event = TaskOom::decode(body.as_slice()).ok()?;
                Some(Seen::Event(RuntimeEvent::OomKilled { id: id(event.container_id) }))
            }
            EXIT => {
                let event = TaskExit::decode(body.as_slice()).ok()?;
                // Processes that were executed in a container exit under a name of their own.
                (event.id == event.container_id).then(|| Seen::Exit {
                    id: id(event.container_id),
                    exit: Exit::new(event.exit_status, state::time(event.exited_at), false),
                })
            }
            PULSE => Some(Seen::Pulse(NamespaceUpdate::decode(body.as_slice()).ok()?.name)),
            _ => None,
        }
    }

    /// Notes the exit, tells it, and writes it on the record meanwhile: should containerd lose the task, it is kept.
    async fn exited(&mut self, id: ContainerId, exit: Exit) {
        let containerd = self.containerd.clone();
        if let Ok(Some((record, identity))) = containerd.client.record(&id.0).await {
            let oom = cgroup::oom_killed(&containerd.config.cgroup_root, &identity.cgroup);
            let exit = Exit { oom, ..exit };
            if containerd.marks.note_exit(&record, &exit) {
                let id = id.clone();
                tokio::spawn(async move {
                    if let Err(error) = containerd.client.mark_exit(&id.0, &exit).await {
                        tracing::warn!(container = id.0, %error, "an exit could not be kept");
                    }
                });
            }
        }
        self.push(RuntimeEvent::Exited { id });
    }

    fn push(&mut self, event: RuntimeEvent) {
        if self.overrun {
            match self.queue.try_send(RuntimeEvent::Gap) {
                Ok(()) => self.overrun = false,
                Err(_) => return,
            }
        }
        if let Err(TrySendError::Full(_)) = self.queue.try_send(event) {
            self.overrun = true;
        }
    }
}

/// Tells what is ours from what another agent made on the same containerd.
pub(super) fn rand_token() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
