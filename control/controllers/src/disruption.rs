//! Marks a pod as about to be terminated by the system, so that its owner can tell that from a failure of its own.
//!
//! In: a pod, why. Out: the DisruptionTarget condition in its status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use xebec_api::wellknown::conditions::{DISRUPTION_TARGET, TRUE};

use crate::error::Error;
use crate::patch::{self, Half};

/// Writes the condition unless it is there. A pod that is gone needs none.
pub(crate) async fn mark(api: &Api<Pod>, pod: &Pod, reason: &str, message: &str) -> Result<(), Error> {
    match patch::update(api, Half::Status, pod, &marked(pod, reason, message, Timestamp::now())).await {
        Err(error) if error.is_not_found() => Ok(()),
        written => written.map(drop),
    }
}

/// The pod with the condition.
pub(crate) fn marked(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Pod {
    let mut marked = pod.clone();
    let conditions = marked.status.get_or_insert_default().conditions.get_or_insert_default();
    if conditions.iter().any(|known| known.type_ == DISRUPTION_TARGET && known.status == TRUE) {
        return marked;
    }
    conditions.retain(|known| known.type_ != DISRUPTION_TARGET);
    conditions.push(PodCondition {
        type_: DISRUPTION_TARGET.to_owned(),
        status: TRUE.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    });
    marked
}
