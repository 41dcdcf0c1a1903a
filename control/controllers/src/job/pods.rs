//! The pods of a Job: made from its template, found again by their index.
//!
//! In: a Job, a completion index. Out: the pod to create; what a pod says of itself. Pure.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodTemplateSpec,
};
use xebec_api::wellknown::finalizers::JOB_TRACKING;

use crate::owner::controller_reference;
use crate::pod_template::pod_from;

/// Label and annotation with the pod's completion index.
pub(crate) const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation: how often the index had failed before this pod.
const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
/// Annotation: how many failures of the index were ignored before this pod.
const IGNORED_COUNT: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// One pod to start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    /// `None` for a Job without indexes.
    pub(crate) index: Option<i32>,
    /// With a limit for each index: failures of the index so far, those that counted and those that were ignored.
    pub(crate) failures: Option<(i32, i32)>,
}

/// The pod that `start` asks for.
pub(crate) fn pod(job: &Job, start: Start) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = tracked(&pod_from(&template_of(template, start), &controller_reference(job)));
    let name = job.metadata.name.as_deref().unwrap_or_default();
    if let Some(index) = start.index {
        pod.metadata.generate_name = Some(format!("{name}-{index}-"));
        if let Some(spec) = &mut pod.spec {
            spec.hostname.get_or_insert_with(|| format!("{name}-{index}"));
        }
    }
    pod
}

fn template_of(mut template: PodTemplateSpec, start: Start) -> PodTemplateSpec {
    let Some(index) = start.index else {
        return template;
    };
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().insert(COMPLETION_INDEX.to_owned(), index.to_string());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(COMPLETION_INDEX.to_owned(), index.to_string());
    if let Some((counted, ignored)) = start.failures {
        annotations.insert(FAILURE_COUNT.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED_COUNT.to_owned(), ignored.to_string());
        }
    }
    if let Some(spec) = &mut template.spec {
        spec.init_containers.iter_mut().flatten().chain(&mut spec.containers).for_each(tell_index);
    }
    template
}

fn tell_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field_ref = ObjectFieldSelector {
        field_path: format!("metadata.labels['{COMPLETION_INDEX}']"),
        api_version: None,
    };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() }),
        ..EnvVar::default()
    });
}

/// The completion index the pod carries.
pub(crate) fn index_of(pod: &Pod) -> Option<i32> {
    annotation(pod, COMPLETION_INDEX).filter(|index| *index >= 0)
}

/// Failures of its index before this pod: those that counted and those that were ignored.
pub(crate) fn failures_before(pod: &Pod) -> (i32, i32) {
    (annotation(pod, FAILURE_COUNT).unwrap_or(0), annotation(pod, IGNORED_COUNT).unwrap_or(0))
}

fn annotation(pod: &Pod, key: &str) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// The pod has yet to be counted, and stays until it is.
pub(crate) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|known| known == JOB_TRACKING)
}

/// The pod with that mark.
pub(crate) fn tracked(pod: &Pod) -> Pod {
    let mut tracked = pod.clone();
    if !is_tracked(pod) {
        tracked.metadata.finalizers.get_or_insert_default().push(JOB_TRACKING.to_owned());
    }
    tracked
}

/// The pod without it.
pub(crate) fn untracked(pod: &Pod) -> Pod {
    let mut untracked = pod.clone();
    let finalizers = untracked.metadata.finalizers.take().unwrap_or_default();
    let left: Vec<String> = finalizers.into_iter().filter(|known| known != JOB_TRACKING).collect();
    untracked.metadata.finalizers = Some(left).filter(|left| !left.is_empty());
    untracked
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn indexed_pod_carries_its_index_everywhere() {
        let job: Job = serde_json::from_value(json!({
            "metadata": {"name": "j", "uid": "u"},
            "spec": {"template": {"spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}}},
        }))
        .unwrap();
        let made = pod(&job, Start { index: Some(3), failures: Some((2, 0)) });
        assert_eq!(made.metadata.generate_name.as_deref(), Some("j-3-"));
        assert_eq!((index_of(&made), failures_before(&made), is_tracked(&made)), (Some(3), (2, 0), true));
        let spec = made.spec.as_ref().unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("j-3"));
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        for container in containers {
            assert_eq!(container.env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
        }
        assert!(!is_tracked(&untracked(&made)));
        let plain = pod(&job, Start::default());
        assert_eq!((plain.metadata.generate_name.as_deref(), index_of(&plain)), (Some("j-"), None));
    }
}
