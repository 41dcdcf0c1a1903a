//! Mirror pods: what kubelets show of the static pods they run whether there is an API server or not.
//!
//! In: a new pod. Out: whether it is one; 403 for one that refers to a service account or to secrets, which nobody checked
//! for it. Anybody may write the annotation that makes a mirror pod.

use serde_json::Value;
use xebec_api::wellknown::annotations::MIRROR_POD;

use crate::meta;
use crate::status::ApiError;

/// Fields of a pod's spec that name secrets.
const SECRETS: [&str; 6] =
    ["secretKeyRef", "secretRef", "nodePublishSecretRef", "imagePullSecrets", "secretName", "secret"];

pub(super) fn is_mirror(pod: &Value) -> bool {
    meta::at(pod, &["metadata", "annotations", MIRROR_POD]).is_some()
}

pub(super) fn admit(pod: &Value) -> Result<(), ApiError> {
    let refuse = |what: &str| Err(ApiError::forbidden("", "pods", meta::name(pod), what));
    if !meta::text(pod, &["spec", "serviceAccountName"]).is_empty() {
        return refuse("a mirror pod may not reference service accounts");
    }
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    if names_any(spec, &SECRETS) {
        return refuse("a mirror pod may not reference secrets");
    }
    if names_any(spec, &["serviceAccountToken"]) {
        return refuse("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// Whether a field of this name is anywhere in the value. Bodies are of bounded depth.
fn names_any(value: &Value, fields: &[&str]) -> bool {
    match value {
        Value::Object(all) => all.iter().any(|(name, value)| {
            (fields.contains(&name.as_str()) && !value.is_null()) || names_any(value, fields)
        }),
        Value::Array(items) => items.iter().any(|item| names_any(item, fields)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mirror_pod_reaches_for_nothing() {
        let pod = |spec: Value| json!({"metadata": {"annotations": {(MIRROR_POD): ""}}, "spec": spec});
        let plain =
            json!({"containers": [{"name": "secret", "image": "secretRef"}], "volumes": [{"hostPath": {}}]});
        assert!(is_mirror(&pod(plain.clone())) && admit(&pod(plain)).is_ok());
        for spec in [
            json!({"serviceAccountName": "default"}),
            json!({"volumes": [{"secret": {"secretName": "a"}}]}),
            json!({"volumes": [{"projected": {"sources": [{"secret": {"name": "a"}}]}}]}),
            json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "a"}}]}}]}),
            json!({"volumes": [{"csi": {"nodePublishSecretRef": {"name": "a"}}}]}),
            json!({"containers": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a"}}}]}]}),
            json!({"initContainers": [{"envFrom": [{"secretRef": {"name": "a"}}]}]}),
            json!({"imagePullSecrets": [{"name": "a"}]}),
        ] {
            assert_eq!(admit(&pod(spec.clone())).expect_err("refused").code(), 403, "{spec}");
        }
    }
}
