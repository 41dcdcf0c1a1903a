//! What a pod may ask for and this node does not do.
//!
//! Pure. In: Pod, Container, whether the host runs SELinux. Out: the sentence why it is refused. A protection that is
//! asked for and left out without a word is worse than none: somebody relies on it.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod;

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// A reason for a pod's rejection and its message, as upstream's nodes word them.
pub struct Unsupported {
    pub reason: &'static str,
    pub message: String,
}

/// What makes the whole pod fail before anything is made for it.
pub fn of_pod(pod: &Pod) -> Option<Unsupported> {
    if let Some(message) = pod::containers(pod).find_map(|spec| app_armor(pod, spec.container)) {
        return Some(Unsupported { reason: "AppArmor", message });
    }
    let spec = pod.spec.as_ref()?;
    let policy = spec.security_context.as_ref().and_then(|c| c.supplemental_groups_policy.as_deref());
    (policy == Some("Strict")).then(|| Unsupported {
        reason: "SupplementalGroupsPolicyNotSupported",
        message: "SupplementalGroupsPolicy=Strict is not supported in this node".to_owned(),
    })
}

/// What keeps one container from being made.
pub fn of_container(pod: &Pod, container: &Container, host_has_selinux: bool) -> Option<String> {
    let no = |what: &str| Some(format!("{what} is not supported by this node"));
    let spec = pod.spec.as_ref();
    if spec.and_then(|s| s.share_process_namespace).unwrap_or(false) {
        return no("shareProcessNamespace");
    }
    if spec.and_then(|s| s.host_users) == Some(false) {
        return no("hostUsers: false");
    }
    if spec.is_some_and(|s| s.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty())) {
        return no("resourceClaims");
    }
    if container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()) {
        return no("volumeDevices");
    }
    let recursive = |policy: &Option<String>| policy.as_deref() == Some("Enabled");
    let mut mounts = container.volume_mounts.iter().flatten();
    if let Some(mount) = mounts.find(|mount| recursive(&mount.recursive_read_only)) {
        return no(&format!("volume mount {:?}: recursiveReadOnly: Enabled", mount.name));
    }
    // Where SELinux is off its labels mean nothing, here as upstream.
    let own = container.security_context.as_ref().and_then(|c| c.se_linux_options.as_ref());
    let pods = spec.and_then(|s| s.security_context.as_ref()).and_then(|c| c.se_linux_options.as_ref());
    if host_has_selinux && own.or(pods).is_some() {
        return no("seLinuxOptions");
    }
    app_armor(pod, container)
}

/// Any profile but `Unconfined`: no profile is loaded or set here.
fn app_armor(pod: &Pod, container: &Container) -> Option<String> {
    let own = container.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
    let pods = || pod.spec.as_ref()?.security_context.as_ref()?.app_armor_profile.as_ref();
    let wanted = match own.or_else(pods) {
        Some(profile) => profile.type_ != "Unconfined",
        None => {
            let annotations = pod.metadata.annotations.as_ref();
            let value =
                annotations.and_then(|all| all.get(&format!("{APP_ARMOR_ANNOTATION}{}", container.name)));
            value.is_some_and(|profile| !profile.is_empty() && profile != "unconfined")
        }
    };
    wanted.then(|| "Cannot enforce AppArmor: profiles are not supported by this node".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(pods: Value, own: Value, host_has_selinux: bool) -> Option<String> {
        let mut container = json!({"name": "c"});
        container.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        let mut spec = json!({"containers": [container]});
        spec.as_object_mut().unwrap().extend(pods.as_object().unwrap().clone());
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        of_container(&pod, &pod.spec.as_ref().unwrap().containers[0], host_has_selinux)
    }

    #[test]
    fn what_is_not_enforced_is_refused() {
        let security = |own: Value| json!({"securityContext": own});
        let label = || security(json!({"seLinuxOptions": {"type": "spc_t"}}));
        let profile = |kind: &str| security(json!({"appArmorProfile": {"type": kind}}));
        let mount = |policy: &str| {
            json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true,
                "recursiveReadOnly": policy}]})
        };
        for (pods, own, selinux, why) in [
            (json!({"shareProcessNamespace": true}), json!({}), false, "shareProcessNamespace"),
            (json!({"hostUsers": false}), json!({}), false, "hostUsers"),
            (json!({}), mount("Enabled"), false, "recursiveReadOnly"),
            (json!({}), label(), true, "seLinuxOptions"),
            (label(), json!({}), true, "seLinuxOptions"),
            (profile("RuntimeDefault"), json!({}), false, "AppArmor"),
            (profile("Unconfined"), profile("Localhost"), false, "AppArmor"),
        ] {
            let said = refused(pods, own, selinux).unwrap_or_default();
            assert!(said.contains(why), "{why}: {said:?}");
        }
        for (pods, own, selinux) in [
            (json!({"hostUsers": true}), json!({}), true),
            (json!({}), mount("IfPossible"), false),
            (json!({}), label(), false),
            (profile("RuntimeDefault"), profile("Unconfined"), false),
        ] {
            assert_eq!(refused(pods, own, selinux), None);
        }
    }

    #[test]
    fn a_pod_that_relies_on_what_is_not_there_is_rejected() {
        let key = format!("{APP_ARMOR_ANNOTATION}c");
        let pod = |value: Value| -> Pod { serde_json::from_value(value).unwrap() };
        let container = json!([{"name": "c"}]);
        let annotated = |profile: &str| {
            pod(
                json!({"metadata": {"annotations": {key.clone(): profile}}, "spec": {"containers": container}}),
            )
        };
        let rejected = of_pod(&annotated("localhost/x")).unwrap();
        assert_eq!(rejected.reason, "AppArmor");
        assert!(of_pod(&annotated("unconfined")).is_none());
        let strict = json!({"supplementalGroupsPolicy": "Strict"});
        let strict = pod(json!({"spec": {"containers": container, "securityContext": strict}}));
        assert_eq!(of_pod(&strict).unwrap().reason, "SupplementalGroupsPolicyNotSupported");
    }
}
