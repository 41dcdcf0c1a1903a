//! A container's environment variables.
//!
//! Pure but for files that a `fileKeyRef` names. In: Pod, Container, the referenced objects, Services, the pod's addresses. Out: names and values, or the
//! sentence that goes into `CreateContainerConfigError`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod};

use crate::downward::{self, DownwardContext};
use crate::env_file;
use crate::expansion::expand;
use crate::objects::ObjectSnapshot;
use crate::pod;
use crate::resources::{self, NodeCapacity};

/// What environment variables are made from beside the container itself.
pub struct EnvContext<'a> {
    pub pod: &'a Pod,
    pub downward: DownwardContext<'a>,
    pub objects: &'a ObjectSnapshot,
    /// From [`crate::service_env`].
    pub services: BTreeMap<String, String>,
    pub node: NodeCapacity,
    /// Folder of a volume of the pod.
    pub volume: &'a (dyn Fn(&str) -> PathBuf + Sync),
}

/// Why a container cannot get its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvError {
    pub message: String,
    pub heals_by_change: bool,
}

impl From<String> for EnvError {
    fn from(message: String) -> Self {
        Self { message, heals_by_change: false }
    }
}

fn missing(message: String) -> EnvError {
    EnvError { message, heals_by_change: true }
}

/// Variables in the order of their first mention; Services' come last and never override.
pub fn build(container: &Container, context: &EnvContext<'_>) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Variables::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            let optional = reference.optional.unwrap_or(false);
            if let Some(map) = context.objects.config_map(&reference.name, optional).map_err(missing)? {
                for (key, value) in map.data.iter().flatten() {
                    env.set_checked(format!("{prefix}{key}"), value.clone());
                }
            }
        } else if let Some(reference) = &source.secret_ref {
            let optional = reference.optional.unwrap_or(false);
            if let Some(secret) = context.objects.secret(&reference.name, optional).map_err(missing)? {
                for (key, value) in secret.data.iter().flatten() {
                    env.set_checked(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
                }
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => {
                let lookup = |name: &str| env.get(name).or_else(|| context.services.get(name).cloned());
                Some(expand(variable.value.as_deref().unwrap_or_default(), lookup))
            }
            Some(source) => from_source(variable, source, container, context)?,
        };
        if let Some(value) = value {
            env.set(variable.name.clone(), value);
        }
    }
    let mut list = env.into_list();
    let known: std::collections::BTreeSet<String> = list.iter().map(|(name, _)| name.clone()).collect();
    list.extend(
        context.services.iter().filter(|(k, _)| !known.contains(*k)).map(|(k, v)| (k.clone(), v.clone())),
    );
    Ok(list)
}

/// `None`: an optional source that is not there.
fn from_source(
    variable: &EnvVar,
    source: &EnvVarSource,
    container: &Container,
    context: &EnvContext<'_>,
) -> Result<Option<String>, EnvError> {
    let namespace = pod::namespace(context.pod);
    if let Some(field) = &source.field_ref {
        return Ok(Some(downward::field(context.pod, &field.field_path, &context.downward)?));
    }
    if let Some(field) = &source.resource_field_ref {
        let target = match field.container_name.as_deref().filter(|n| !n.is_empty()) {
            None => container,
            Some(name) => {
                pod::container(context.pod, name)
                    .ok_or_else(|| format!("container {name} not found"))?
                    .container
            }
        };
        let value = resources::field(target, &field.resource, field.divisor.as_ref(), context.node)?;
        return Ok(Some(value));
    }
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional.unwrap_or(false);
        let Some(map) = context.objects.config_map(&key.name, optional).map_err(missing)? else {
            return Ok(None);
        };
        return match map.data.as_ref().and_then(|d| d.get(&key.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => {
                Err(missing(format!("couldn't find key {} in ConfigMap {namespace}/{}", key.key, key.name)))
            }
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional.unwrap_or(false);
        let Some(secret) = context.objects.secret(&key.name, optional).map_err(missing)? else {
            return Ok(None);
        };
        return match secret.data.as_ref().and_then(|d| d.get(&key.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => Err(missing(format!("couldn't find key {} in Secret {namespace}/{}", key.key, key.name))),
        };
    }
    if let Some(key) = &source.file_key_ref {
        return match env_file::value(&(context.volume)(&key.volume_name), &key.path, &key.key)? {
            Some(value) => Ok(Some(value)),
            None if key.optional.unwrap_or(false) => Ok(None),
            None => Err(EnvError::from(format!(
                "environment variable key {:?} not found in file {:?} of volume {:?}",
                key.key, key.path, key.volume_name
            ))),
        };
    }
    Err(EnvError::from(format!("environment variable {} has a source that is not supported", variable.name)))
}

#[derive(Default)]
struct Variables {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Variables {
    fn set(&mut self, name: String, value: String) {
        if self.values.insert(name.clone(), value).is_none() {
            self.order.push(name);
        }
    }

    /// Keys of ConfigMaps and Secrets that cannot name a variable are left out.
    fn set_checked(&mut self, name: String, value: String) {
        let printable = name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=');
        if printable && !name.is_empty() {
            self.set(name, value);
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    fn into_list(mut self) -> Vec<(String, String)> {
        let values = &mut self.values;
        self.order.into_iter().filter_map(|name| values.remove_entry(&name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn build_for(container: serde_json::Value) -> Result<Vec<(String, String)>, EnvError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "b"}},
            "spec": {"containers": [container], "nodeName": "node-1"},
        }))
        .unwrap();
        let objects = ObjectSnapshot::of(
            [("cm", Some(json!({"data": {"X": "1", "Y": "2", "bad=key": "3"}}))), ("absent", None)],
            [("sec", Some(json!({"data": {"P": "c2VjcmV0"}})))],
        );
        let context = EnvContext {
            pod: &pod,
            downward: DownwardContext { host_ips: &[], pod_ips: &["10.1.0.5".parse().unwrap()] },
            objects: &objects,
            services: BTreeMap::from([
                ("KUBERNETES_SERVICE_HOST".into(), "10.96.0.1".into()),
                ("X".into(), "never".into()),
            ]),
            node: NodeCapacity { milli_cpu: 1000, memory: 1, ephemeral_storage: 1 },
            volume: &|name| PathBuf::from("/nowhere").join(name),
        };
        build(&pod.spec.as_ref().unwrap().containers[0], &context)
    }

    fn value<'a>(list: &'a [(String, String)], name: &str) -> Option<&'a str> {
        list.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    #[test]
    fn later_sources_override_and_references_expand() {
        let env = build_for(json!({
            "name": "c",
            "envFrom": [{"prefix": "CM_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "sec"}}],
            "env": [
                {"name": "CM_X", "value": "own"},
                {"name": "REF", "value": "$(CM_X)-$(CM_Y)-$(KUBERNETES_SERVICE_HOST)-$(NO)"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
                {"name": "OPT", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "Z", "optional": true}}},
                {"name": "X", "value": "mine"},
            ],
        }))
        .unwrap();
        assert_eq!(value(&env, "REF"), Some("own-2-10.96.0.1-$(NO)"));
        assert_eq!(value(&env, "P"), Some("secret"));
        assert_eq!(value(&env, "IP"), Some("10.1.0.5"));
        assert_eq!(value(&env, "LABEL"), Some("b"));
        assert_eq!(value(&env, "OPT"), None);
        assert_eq!(value(&env, "X"), Some("mine"));
        assert_eq!(value(&env, "KUBERNETES_SERVICE_HOST"), Some("10.96.0.1"));
        assert!(!env.iter().any(|(k, _)| k.contains('=')));
    }

    #[test]
    fn what_is_missing_is_named_and_may_heal() {
        let key = |name: &str, key: &str| {
            json!({"name": "c", "env": [
                {"name": "V", "valueFrom": {"configMapKeyRef": {"name": name, "key": key}}}]})
        };
        let error = build_for(key("absent", "k")).unwrap_err();
        assert_eq!(error, missing("configmap \"absent\" not found".into()));
        let error = build_for(key("cm", "k")).unwrap_err();
        assert_eq!(error, missing("couldn't find key k in ConfigMap n/cm".into()));
    }
}
