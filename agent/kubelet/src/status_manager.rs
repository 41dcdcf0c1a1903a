//! The one writer of pod statuses.
//!
//! In: statuses of pods, the newest wins. Out: patches of `/status`, never two at once for one pod; at the end of a
//! pod the last status and then its deletion (grace 0, this uid). What the API already holds is not sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, watch};

use crate::pod::{PodRef, PodUid};
use crate::status::OWN_CONDITIONS;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Patches under way for the whole node.
const PARALLEL: usize = 16;

/// Handle; cheap to clone.
#[derive(Clone)]
pub struct StatusManager {
    client: Client,
    slots: Arc<Mutex<HashMap<PodUid, Slot>>>,
    parallel: Arc<Semaphore>,
}

/// What is wanted of one pod, and how far the writer is.
struct Slot {
    wanted: Option<PodStatus>,
    /// Rises with every submitted status.
    version: u64,
    writing: bool,
    /// Version the API holds.
    written: watch::Sender<u64>,
    /// What the API holds, as far as known.
    known: Value,
    /// Revision of the last write.
    revision: u64,
    /// The status written last, to be written again if somebody else changes it.
    last: Option<PodStatus>,
}

impl StatusManager {
    pub fn new(client: Client) -> Self {
        Self { client, slots: Arc::default(), parallel: Arc::new(Semaphore::new(PARALLEL)) }
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<PodUid, Slot>) -> T) -> T {
        f(&mut self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Wants `status` for the pod. Returns at once.
    pub fn submit(&self, pod: &Pod, status: PodStatus) {
        let reference = PodRef::of(pod);
        let start = self.with(|slots| {
            let slot = slots.entry(reference.uid.clone()).or_insert_with(|| Slot {
                wanted: None,
                version: 0,
                writing: false,
                written: watch::channel(0).0,
                known: to_value(&pod.status.clone().unwrap_or_default()),
                revision: 0,
                last: None,
            });
            slot.wanted = Some(status);
            slot.version += 1;
            !std::mem::replace(&mut slot.writing, true)
        });
        if start {
            tokio::spawn(self.clone().write(reference));
        }
    }

    /// The pod as the API shows it: where somebody else wrote over the kubelet's part, that is written again.
    pub fn observe(&self, pod: &Pod) {
        let reference = PodRef::of(pod);
        let start = self.with(|slots| {
            let Some(slot) = slots.get_mut(&reference.uid) else { return false };
            let newer = revision(pod) > slot.revision;
            let (false, true, Some(last)) = (slot.writing, newer, &slot.last) else { return false };
            slot.known = to_value(&pod.status.clone().unwrap_or_default());
            if difference(&slot.known, &to_value(last)).is_none() {
                return false;
            }
            slot.wanted = Some(last.clone());
            slot.version += 1;
            slot.writing = true;
            true
        });
        if start {
            tokio::spawn(self.clone().write(reference));
        }
    }

    /// Waits until everything submitted for the pod is in the API (or the pod is gone from it).
    pub async fn flushed(&self, uid: &PodUid) {
        let waiting = self.with(|slots| slots.get(uid).map(|s| (s.version, s.written.subscribe())));
        if let Some((version, mut written)) = waiting {
            // The sender goes when the slot is forgotten: then nothing is left to wait for.
            let _gone = written.wait_for(|w| *w >= version).await;
        }
    }

    /// Deletes the object of a pod whose last status is written.
    pub async fn delete(&self, reference: &PodRef) -> Result<(), String> {
        self.flushed(&reference.uid).await;
        let api = Api::<Pod>::namespaced(self.client.clone(), &reference.namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(reference.uid.0.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match tokio::time::timeout(CALL_TIMEOUT, api.delete(&reference.name, &params)).await {
            Ok(Ok(_)) => Ok(()),
            // Gone, or a pod of the same name took its place.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the API server did not answer in time".to_owned()),
        }
    }

    /// The pod is gone: nothing more is written about it.
    pub fn forget(&self, uid: &PodUid) {
        self.with(|slots| slots.remove(uid));
    }

    /// Writes until nothing new is wanted.
    async fn write(self, reference: PodRef) {
        let mut delay = FIRST_RETRY;
        loop {
            let next = self.with(|slots| {
                let slot = slots.get_mut(&reference.uid)?;
                let Some(status) = slot.wanted.take() else {
                    slot.writing = false;
                    return None;
                };
                Some((slot.version, status, slot.known.clone()))
            });
            let Some((version, status, known)) = next else { return };
            let wanted = to_value(&status);
            match self.patch(&reference, &wanted, &known).await {
                Ok(revision) => {
                    delay = FIRST_RETRY;
                    self.with(|slots| {
                        if let Some(slot) = slots.get_mut(&reference.uid) {
                            slot.known = wanted;
                            slot.revision = slot.revision.max(revision);
                            slot.last = Some(status);
                            slot.written.send_replace(version);
                        }
                    });
                }
                Err(Refusal::Gone) => {
                    self.with(|slots| {
                        if let Some(slot) = slots.get_mut(&reference.uid) {
                            slot.written.send_replace(version);
                        }
                    });
                }
                Err(Refusal::Retry(reason)) => {
                    tracing::debug!(pod = %reference, reason, "status not written; it is tried again");
                    self.with(|slots| {
                        if let Some(slot) = slots.get_mut(&reference.uid) {
                            slot.wanted.get_or_insert(status);
                        }
                    });
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(LAST_RETRY);
                }
            }
        }
    }

    async fn patch(&self, reference: &PodRef, wanted: &Value, known: &Value) -> Result<u64, Refusal> {
        let Some(changes) = difference(known, wanted) else { return Ok(0) };
        let body = json!({"metadata": {"uid": reference.uid.0}, "status": changes});
        let Ok(_permit) = self.parallel.acquire().await else { return Err(Refusal::Gone) };
        let api = Api::<Pod>::namespaced(self.client.clone(), &reference.namespace);
        let params = PatchParams::default();
        let patch = Patch::Strategic(&body);
        let call = api.patch_status(&reference.name, &params, &patch);
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(pod)) => Ok(revision(&pod)),
            // 409 and 422: another pod of that name lives there now.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Refusal::Gone),
            Ok(Err(kube::Error::Api(status)))
                if matches!(status.code, 409 | 422) && status.message.contains("uid") =>
            {
                Err(Refusal::Gone)
            }
            Ok(Err(error)) => Err(Refusal::Retry(error.to_string())),
            Err(_) => Err(Refusal::Retry("no answer in time".to_owned())),
        }
    }
}

enum Refusal {
    Gone,
    Retry(String),
}

/// Revisions are numbers that rise (upstream promises it since 1.35); anything else counts as old.
fn revision(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|r| r.parse().ok()).unwrap_or(0)
}

fn to_value(status: &PodStatus) -> Value {
    serde_json::to_value(status).unwrap_or_default()
}

/// The strategic merge patch that makes `known` into `wanted`: changed fields, `null` for those that vanished, and of
/// the conditions only the kubelet's own. `None`: nothing to say.
fn difference(known: &Value, wanted: &Value) -> Option<Value> {
    let empty = Map::new();
    let known = known.as_object().unwrap_or(&empty);
    let wanted = wanted.as_object()?;
    let mut patch = Map::new();
    for (key, value) in wanted {
        if key == "conditions" {
            let changed = changed_conditions(known.get(key), value);
            if !changed.is_empty() {
                patch.insert(key.clone(), Value::Array(changed));
            }
        } else if known.get(key) != Some(value) {
            patch.insert(key.clone(), value.clone());
        }
    }
    for key in known.keys().filter(|k| !wanted.contains_key(*k) && *k != "conditions") {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn changed_conditions(known: Option<&Value>, wanted: &Value) -> Vec<Value> {
    let find = |list: Option<&Value>, type_: &str| {
        list.and_then(Value::as_array).and_then(|l| l.iter().find(|c| c["type"] == type_).cloned())
    };
    let names = OWN_CONDITIONS.iter().chain(&["PodScheduled"]);
    names
        .filter_map(|type_| {
            let mut want = find(Some(wanted), type_)?;
            let have = find(known, type_);
            // The scheduler's condition is only ever added where it is missing.
            if have.as_ref() == Some(&want) || (*type_ == "PodScheduled" && have.is_some()) {
                return None;
            }
            // A merge keeps what is not named: say what is no longer there.
            for field in ["reason", "message"] {
                let had = have.as_ref().is_some_and(|h| h.get(field).is_some());
                if had && want.get(field).is_none() {
                    want[field] = Value::Null;
                }
            }
            Some(want)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_sent_and_vanished_fields_are_nulled() {
        let known = json!({"phase": "Pending", "podIP": "10.1.0.1", "reason": "Old", "conditions": [
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m"},
            {"type": "Gate", "status": "True"}, {"type": "PodScheduled", "status": "True"},
        ]});
        let wanted = json!({"phase": "Running", "podIP": "10.1.0.1", "conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "Gate", "status": "False"}, {"type": "PodScheduled", "status": "True", "reason": "x"},
        ]});
        let expected = json!({"phase": "Running", "reason": null, "conditions": [
            {"type": "Ready", "status": "True", "reason": null, "message": null},
        ]});
        assert_eq!(difference(&known, &wanted), Some(expected));
        assert_eq!(difference(&wanted, &wanted), None);
    }
}
