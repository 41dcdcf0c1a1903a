//! What a Job's `podFailurePolicy` makes of a failed pod.
//!
//! In: the policy, a failed pod. Out: the action of the first rule that matches, and why. Pure.

use k8s_openapi::api::batch::v1::{
    Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::pod;

/// What a failed pod means to its Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It counts towards the limit, as without a policy.
    Count,
    /// It does not count and is replaced.
    Ignore,
    /// Its index is given up.
    FailIndex,
    /// The whole Job is given up; the sentence for the condition.
    FailJob(String),
}

/// Judges one failed pod.
pub(crate) fn judge(job: &Job, pod: &Pod) -> Verdict {
    let rules =
        job.spec.iter().flat_map(|spec| spec.pod_failure_policy.iter()).flat_map(|policy| &policy.rules);
    for (number, rule) in rules.enumerate() {
        let why = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => by_exit_code(pod, codes),
            (None, Some(patterns)) => by_condition(pod, patterns),
            (None, None) => None,
        };
        let Some(why) = why else {
            continue;
        };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignore,
            "FailIndex" => return Verdict::FailIndex,
            "FailJob" => return Verdict::FailJob(format!("{why} matching FailJob rule at index {number}")),
            "Count" => return Verdict::Count,
            // An action of a later API: the rule is passed over, as upstream does.
            _ => {}
        }
    }
    Verdict::Count
}

fn full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn by_exit_code(pod: &Pod, wanted: &PodFailurePolicyOnExitCodesRequirement) -> Option<String> {
    let status = pod.status.as_ref()?;
    let of_containers = status.container_statuses.iter().flatten();
    let all = of_containers.chain(status.init_container_statuses.iter().flatten());
    let code = |container: &ContainerStatus| Some(container.state.as_ref()?.terminated.as_ref()?.exit_code);
    all.filter(|container| wanted.container_name.as_ref().is_none_or(|name| *name == container.name))
        .filter_map(|container| Some((container, code(container)?)))
        // A container that ended well is no reason for the pod's failure.
        .filter(|(_, code)| *code != 0)
        .find(|(_, code)| wanted.values.contains(code) == (wanted.operator == "In"))
        .map(|(container, code)| {
            format!("Container {} for pod {} failed with exit code {code}", container.name, full_name(pod))
        })
}

fn by_condition(pod: &Pod, patterns: &[PodFailurePolicyOnPodConditionsPattern]) -> Option<String> {
    let holds = |pattern: &&PodFailurePolicyOnPodConditionsPattern| {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        pod::condition(pod, &pattern.type_).is_some_and(|condition| condition.status == wanted)
    };
    let pattern = patterns.iter().find(holds)?;
    Some(format!("Pod {} has condition {}", full_name(pod), pattern.type_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(rules: &Value) -> Job {
        serde_json::from_value(json!({"spec": {
            "podFailurePolicy": {"rules": rules}, "template": {},
        }}))
        .unwrap()
    }

    fn pod(code: i32, disrupted: bool) -> Pod {
        let status = if disrupted { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": {"namespace": "a", "name": "p"},
            "status": {
                "phase": "Failed",
                "conditions": [{"type": "DisruptionTarget", "status": status}],
                "containerStatuses": [
                    {"name": "side", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                     "state": {"terminated": {"exitCode": 0}}},
                    {"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                     "state": {"terminated": {"exitCode": code}}},
                ],
            },
        }))
        .unwrap()
    }

    #[test]
    fn first_rule_that_matches_decides() {
        let rules = json!([
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}},
        ]);
        let job = job(&rules);
        assert_eq!(judge(&job, &pod(42, true)), Verdict::Ignore);
        let why = "Container main for pod a/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(judge(&job, &pod(42, false)), Verdict::FailJob(why.to_owned()));
        assert_eq!(judge(&job, &pod(3, false)), Verdict::FailIndex);
        assert_eq!(judge(&job, &pod(2, false)), Verdict::Count);
        assert_eq!(judge(&self::job(&json!([])), &pod(42, true)), Verdict::Count);
    }
}
