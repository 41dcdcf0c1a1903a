//! The ServiceAccount admission: who a pod is, and the token with which it can say so.
//!
//! In: a new pod, the account it names. Out: the pod with account, pull secrets and the projected token volume.

use serde_json::{Value, json};
use xebec_api::wellknown::names;

use crate::meta;
use crate::registry::{Cx, create};
use crate::status::ApiError;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour and a few seconds, by which upstream tells these tokens from those asked for by hand.
const TOKEN_SECONDS: i64 = 3607;

pub(super) fn admit(cx: &Cx<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let name = match meta::text(pod, &["spec", "serviceAccountName"]) {
        "" => names::DEFAULT_SERVICE_ACCOUNT.to_owned(),
        name => name.to_owned(),
    };
    meta::set(pod, &["spec", "serviceAccountName"], Some(name.as_str().into()));
    meta::set(pod, &["spec", "serviceAccount"], Some(name.as_str().into()));
    let namespace = meta::namespace(pod).to_owned();
    let Some(account) = cx.registry.core_object("serviceaccounts", Some(&namespace), &name) else {
        let why =
            format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(ApiError::forbidden("", "pods", meta::name(pod), why));
    };
    if automounts(pod, &account) {
        mount_token(pod);
    }
    if meta::items(pod, &["spec", "imagePullSecrets"]).next().is_none() {
        let secrets = meta::at(&account, &["imagePullSecrets"]).cloned();
        meta::set(pod, &["spec", "imagePullSecrets"], secrets);
    }
    Ok(())
}

/// The pod's word counts before the account's.
fn automounts(pod: &Value, account: &Value) -> bool {
    let own = meta::at(pod, &["spec", "automountServiceAccountToken"]);
    let said = own.or_else(|| meta::at(account, &["automountServiceAccountToken"]));
    said.and_then(Value::as_bool).unwrap_or(true)
}

/// Mounts the token into every container that mounts nothing there itself.
fn mount_token(pod: &mut Value) {
    let volumes: Vec<&str> =
        meta::items(pod, &["spec", "volumes"]).map(|volume| meta::text(volume, &["name"])).collect();
    let existing = volumes.iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(|&name| name.to_owned());
    let volume = existing.clone().unwrap_or_else(|| fresh_name(&volumes));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let taken = meta::items(container, &["volumeMounts"])
                .any(|mount| meta::text(mount, &["mountPath"]) == MOUNT_PATH);
            if taken {
                continue;
            }
            let mount = json!({ "name": volume, "readOnly": true, "mountPath": MOUNT_PATH });
            push(container, &["volumeMounts"], mount);
            mounted = true;
        }
    }
    if mounted && existing.is_none() {
        push(pod, &["spec", "volumes"], token_volume(&volume));
    }
}

fn push(object: &mut Value, path: &[&str], item: Value) {
    let mut list = match meta::at(object, path) {
        Some(Value::Array(list)) => list.clone(),
        _ => Vec::new(),
    };
    list.push(item);
    meta::set(object, path, Some(list.into()));
}

fn fresh_name(taken: &[&str]) -> String {
    loop {
        let name = format!("{VOLUME_PREFIX}{}", create::suffix());
        if !taken.contains(&name.as_str()) {
            return name;
        }
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
                { "configMap": {
                    "name": names::ROOT_CA_CONFIG_MAP,
                    "items": [{ "key": "ca.crt", "path": "ca.crt" }],
                } },
                { "downwardAPI": {
                    "items": [{
                        "path": "namespace",
                        "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
                    }],
                } },
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_gets_the_token_once() {
        let mut pod = json!({"spec": {
            "initContainers": [{"name": "i"}],
            "containers": [
                {"name": "a", "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
                {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]},
            ],
        }});
        mount_token(&mut pod);
        let name = meta::text(&pod["spec"]["volumes"][0], &["name"]).to_owned();
        assert!(name.starts_with(VOLUME_PREFIX) && name.len() == VOLUME_PREFIX.len() + 5);
        assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"][0]["name"], name);
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][1]["mountPath"], MOUNT_PATH);
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().map(Vec::len), Some(1));

        let before = pod.clone();
        mount_token(&mut pod);
        assert_eq!(pod, before);
    }

    #[test]
    fn the_pod_may_decline() {
        let account = json!({"automountServiceAccountToken": false});
        assert!(!automounts(&json!({"spec": {}}), &account));
        assert!(automounts(&json!({"spec": {"automountServiceAccountToken": true}}), &account));
        assert!(automounts(&json!({"spec": {}}), &json!({})));
    }
}
