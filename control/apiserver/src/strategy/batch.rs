//! Jobs: a selector that matches no other Job's pods.
//!
//! In: new Jobs. Out: with labels of their own on the template, and a selector for them.

use serde_json::Value;
use xebec_api::wellknown::labels::{CONTROLLER_UID, JOB_NAME, LEGACY_CONTROLLER_UID, LEGACY_JOB_NAME};

use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::strategy::Strategy;

pub(crate) struct JobStrategy;

impl Strategy for JobStrategy {
    fn prepare_create(&self, _cx: &Cx<'_>, job: &mut Value) -> Result<(), ApiError> {
        select_own_pods(job);
        Ok(())
    }
}

/// Who brings a selector of their own says so with `manualSelector`.
fn select_own_pods(job: &mut Value) {
    if meta::at(job, &["spec", "manualSelector"]).and_then(Value::as_bool) == Some(true) {
        return;
    }
    let (name, uid) = (meta::name(job).to_owned(), meta::uid(job).to_owned());
    let labels = meta::map_mut(job, &["spec", "template", "metadata", "labels"]);
    for (key, value) in
        [(LEGACY_JOB_NAME, &name), (JOB_NAME, &name), (LEGACY_CONTROLLER_UID, &uid), (CONTROLLER_UID, &uid)]
    {
        labels.insert(key.to_owned(), value.clone().into());
    }
    let selector = meta::map_mut(job, &["spec", "selector", "matchLabels"]);
    selector.entry(CONTROLLER_UID).or_insert_with(|| uid.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn job_selects_by_its_uid_unless_told_otherwise() {
        let mut job = json!({
            "metadata": {"name": "j", "uid": "u"},
            "spec": {"template": {"metadata": {"labels": {"app": "a"}}}},
        });
        select_own_pods(&mut job);
        assert_eq!(
            job["spec"]["selector"],
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})
        );
        let labels = &job["spec"]["template"]["metadata"]["labels"];
        assert_eq!((&labels["app"], &labels["job-name"]), (&json!("a"), &json!("j")));
        assert_eq!(labels["batch.kubernetes.io/controller-uid"], "u");
        let manual = json!({"spec": {"manualSelector": true, "selector": {"matchLabels": {"app": "a"}}}});
        let mut kept = manual.clone();
        select_own_pods(&mut kept);
        assert_eq!(kept, manual);
    }
}
