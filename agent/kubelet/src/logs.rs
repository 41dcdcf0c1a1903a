//! Container logs for the kubelet API server.
//!
//! In: pod, container, upstream's log options. Out: the wanted lines as chunks of bytes, to the end of the container
//! when they are followed. Files are in CRI format; rotated ones (`0.log.<time>`) are read before the current one.

mod files;
mod line;
mod reader;
mod watch;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, PodStatus};
use tokio::sync::mpsc;

use self::files::LogFiles;
use self::reader::Reader;
use crate::KubeletConfig;
use crate::container_config::log_path;
use crate::node::{KnownPod, KnownPods};
use crate::pod::{self, PodUid};

pub use watch::LogWatch;

/// Chunks read ahead of a slow client.
const CHUNKS: usize = 4;

/// One of a container's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
}

/// `PodLogOptions` that concern the kubelet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// `None`: both.
    pub stream: Option<LogStream>,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("pod {0:?} not found")]
    NoPod(String),
    #[error("container {container:?} in pod {pod:?} is not valid for pod")]
    NoContainer { pod: String, container: String },
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious { pod: String, container: String },
    #[error("container {container:?} in pod {pod:?} is waiting to start: {reason}")]
    Waiting { pod: String, container: String, reason: String },
    #[error("container {container:?} in pod {pod:?} is not available")]
    NotAvailable { pod: String, container: String },
}

/// One run whose log is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LogSource {
    uid: PodUid,
    container: String,
    container_id: String,
    files: LogFiles,
}

/// Reads logs of this node's pods.
#[derive(Clone)]
pub struct Logs {
    config: KubeletConfig,
    pods: KnownPods,
    watch: LogWatch,
}

impl Logs {
    pub fn new(config: KubeletConfig, pods: KnownPods) -> Self {
        Self { config, pods, watch: LogWatch::default() }
    }

    /// Opens the log of a container; its chunks come through the channel, which closes at the end.
    pub fn open(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<std::io::Result<Bytes>>, LogError> {
        let known = self.pods.find(namespace, pod).ok_or_else(|| LogError::NoPod(pod.to_owned()))?;
        let source = self.source(&known, container, options.previous)?;
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let pods = self.pods.clone();
        let watch = self.watch.clone();
        tokio::spawn(async move {
            let follow = options.follow;
            let mut reader = Reader::new(source.files.clone(), options);
            let result = if follow {
                follow_to_end(&mut reader, &source, &pods, &watch, &sender).await
            } else {
                send_all(&mut reader, &sender).await.map(drop)
            };
            if let Err(error) = result {
                let _closed = sender.send(Err(error)).await;
            }
        });
        Ok(receiver)
    }

    fn source(&self, known: &KnownPod, container: &str, previous: bool) -> Result<LogSource, LogError> {
        let pod = pod::name(&known.pod).to_owned();
        let of = |container: &str| (pod.clone(), container.to_owned());
        let Some(status) = status_of(&known.status, container) else {
            let (pod, container) = of(container);
            return Err(if pod::find(&known.pod, &container).is_some() {
                let reason = "ContainerCreating".to_owned();
                LogError::Waiting { pod, container, reason }
            } else {
                LogError::NoContainer { pod, container }
            });
        };
        let (attempt, container_id) = choose(status, previous, &pod)?;
        Ok(LogSource {
            uid: pod::uid(&known.pod),
            container: container.to_owned(),
            container_id,
            files: LogFiles::new(
                self.config.log_dir.clone(),
                log_path(&self.config, &known.pod, container, attempt),
            ),
        })
    }
}

fn status_of<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStatus> {
    let main = status.container_statuses.iter().flatten();
    let init = status.init_container_statuses.iter().flatten();
    let ephemeral = status.ephemeral_container_statuses.iter().flatten();
    main.chain(init).chain(ephemeral).find(|s| s.name == container)
}

/// Attempt and id of the run that is meant, by upstream's rules.
fn choose(status: &ContainerStatus, previous: bool, pod: &str) -> Result<(u32, String), LogError> {
    let id = |state: Option<&ContainerState>| {
        state.and_then(|s| s.terminated.as_ref()).and_then(|t| t.container_id.clone())
    };
    let current = u32::try_from(status.restart_count).unwrap_or(0);
    let last = id(status.last_state.as_ref());
    let state = status.state.as_ref();
    let (pod, container) = (pod.to_owned(), status.name.clone());
    // A container that waits for its next run counts the run that ended as its last.
    let waiting = state.and_then(|s| s.waiting.as_ref());
    let of_last = if waiting.is_some() { current } else { current.saturating_sub(1) };
    if previous {
        return last.map(|id| (of_last, id)).ok_or(LogError::NoPrevious { pod, container });
    }
    if state.is_some_and(|s| s.running.is_some()) {
        return Ok((current, status.container_id.clone().unwrap_or_default()));
    }
    if let Some(id) = id(state) {
        return Ok((current, id));
    }
    if let Some(id) = last {
        return Ok((of_last, id));
    }
    let Some(waiting) = waiting else { return Err(LogError::NotAvailable { pod, container }) };
    let reason = match waiting.reason.as_deref().unwrap_or_default() {
        "ErrImagePull" => "image can't be pulled".to_owned(),
        "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
        other => other.to_owned(),
    };
    Err(LogError::Waiting { pod, container, reason })
}

/// Sends everything that is there. False: the reader of the channel went away, or the byte limit is reached.
async fn send_all(
    reader: &mut Reader,
    sender: &mpsc::Sender<std::io::Result<Bytes>>,
) -> std::io::Result<bool> {
    loop {
        let chunk = reader.next_chunk()?;
        if !chunk.bytes.is_empty() && sender.send(Ok(chunk.bytes)).await.is_err() {
            return Ok(false);
        }
        if chunk.limit_reached {
            return Ok(false);
        }
        if chunk.at_end {
            return Ok(true);
        }
    }
}

async fn follow_to_end(
    reader: &mut Reader,
    source: &LogSource,
    pods: &KnownPods,
    watch: &LogWatch,
    sender: &mpsc::Sender<std::io::Result<Bytes>>,
) -> std::io::Result<()> {
    let mut changes = watch.watch(source.files.folder())?;
    let mut statuses = pods.changes();
    loop {
        // Asked before reading: what is written between reading and asking would be missed.
        let ended = has_ended(pods, source);
        changes.mark_unchanged();
        if !send_all(reader, sender).await? {
            return Ok(());
        }
        if ended {
            // The sink may still write what the container said last.
            let quiet = tokio::time::timeout(watch::AFTER_END, changes.changed()).await.is_err();
            if quiet {
                return Ok(());
            }
            continue;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            changed = statuses.changed() => if changed.is_err() { return Ok(()) },
            () = sender.closed() => return Ok(()),
        }
    }
}

/// The run is not the one that runs now.
fn has_ended(pods: &KnownPods, source: &LogSource) -> bool {
    let Some(known) = pods.get(&source.uid) else { return true };
    let status = status_of(&known.status, &source.container);
    !status.is_some_and(|s| {
        s.state.as_ref().is_some_and(|s| s.running.is_some())
            && s.container_id.as_deref() == Some(&source.container_id)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(value: serde_json::Value) -> ContainerStatus {
        let mut all = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0});
        all.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn the_run_is_chosen_by_state() {
        let ended = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": id}});
        let running = status(json!({"restartCount": 2, "containerID": "r", "state": {"running": {}},
            "lastState": ended("l")}));
        assert_eq!(choose(&running, false, "p").unwrap(), (2, "r".into()));
        assert_eq!(choose(&running, true, "p").unwrap(), (1, "l".into()));
        let crashing = status(json!({"restartCount": 2, "containerID": "l",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended("l")}));
        assert_eq!(choose(&crashing, false, "p").unwrap(), (2, "l".into()));
        assert_eq!(choose(&crashing, true, "p").unwrap(), (2, "l".into()));
        let done = status(json!({"containerID": "d", "state": ended("d")}));
        assert_eq!(choose(&done, false, "p").unwrap(), (0, "d".into()));
        let error = choose(&done, true, "p").unwrap_err().to_string();
        assert_eq!(error, "previous terminated container \"c\" in pod \"p\" not found");
        let pulling = status(json!({"state": {"waiting": {"reason": "ImagePullBackOff"}}}));
        let error = choose(&pulling, false, "p").unwrap_err().to_string();
        assert!(error.ends_with("is waiting to start: trying and failing to pull image"), "{error}");
    }
}
