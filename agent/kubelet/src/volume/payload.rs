//! Content of configMap, secret, downwardAPI and projected volumes.
//!
//! Pure but for tokens, which come from the caller. In: sources and snapshots. Out: files.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, Volume,
};

use super::atomic_writer::{File, Files};
use super::{VolumeError, VolumeInput, downward_context};
use crate::downward;
use crate::pod;
use crate::resources::{self, NodeCapacity};

const DEFAULT_MODE: i32 = 0o644;
/// Tokens that only their pod's user or group may read.
const TOKEN_MODE: u32 = 0o600;

/// A volume's files and where they may be kept.
pub(super) struct Payload {
    pub(super) files: Files,
    /// Secrets never touch a disk.
    pub(super) in_memory: bool,
    pub(super) refresh_at: Option<Timestamp>,
}

/// A service account token that a projected volume asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TokenKey {
    pub(super) path: String,
    pub(super) audience: Option<String>,
    pub(super) expiration_seconds: i64,
}

/// A token and when it is to be replaced.
pub(super) type Token = (String, Timestamp);

/// Tokens of a projected volume.
pub(super) fn token_keys(source: &ProjectedVolumeSource) -> Vec<TokenKey> {
    source
        .sources
        .iter()
        .flatten()
        .filter_map(|s| s.service_account_token.as_ref())
        .map(|t| TokenKey {
            path: t.path.clone(),
            audience: t.audience.clone().filter(|a| !a.is_empty()),
            expiration_seconds: t.expiration_seconds.unwrap_or(3600),
        })
        .collect()
}

/// `None`: not a volume with content from the API. `token` answers for each of [`token_keys`].
pub(super) fn of_volume(
    volume: &Volume,
    input: &VolumeInput<'_>,
    node: NodeCapacity,
    token: impl Fn(&TokenKey) -> Option<Token>,
) -> Result<Option<Payload>, VolumeError> {
    let content = |reason: String| VolumeError::Content { volume: volume.name.clone(), reason };
    let mut files = Files::new();
    let mut refresh_at: Option<Timestamp> = None;
    let in_memory = if let Some(source) = &volume.config_map {
        let optional = source.optional.unwrap_or(false);
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let map = input.objects.config_map(&source.name, optional).map_err(content)?;
        add_config_map(&mut files, map, source.items.as_deref(), mode, optional).map_err(content)?;
        false
    } else if let Some(source) = &volume.secret {
        let optional = source.optional.unwrap_or(false);
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        let secret = input.objects.secret(name, optional).map_err(content)?;
        add_secret(&mut files, secret, source.items.as_deref(), mode, optional).map_err(content)?;
        true
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for item in source.items.iter().flatten() {
            add_downward(&mut files, item, mode, input, node).map_err(content)?;
        }
        true
    } else if let Some(source) = &volume.projected {
        refresh_at = add_projected(&mut files, source, input, node, token).map_err(content)?;
        true
    } else {
        return Ok(None);
    };
    Ok(Some(Payload { files, in_memory, refresh_at }))
}

fn file(bytes: Vec<u8>, mode: i32) -> File {
    File { bytes, mode: u32::try_from(mode).unwrap_or(0o644) & 0o777, uid: None }
}

/// The wanted keys of an object, all of them when no items are given.
fn add_items<'a>(
    files: &mut Files,
    get: impl Fn(&str) -> Option<Vec<u8>>,
    keys: impl Iterator<Item = &'a String>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<(), String> {
    match items.filter(|items| !items.is_empty()) {
        None => {
            for key in keys {
                if let Some(bytes) = get(key) {
                    files.insert(key.clone(), file(bytes, mode));
                }
            }
        }
        Some(items) => {
            for item in items {
                match get(&item.key) {
                    Some(bytes) => {
                        files.insert(item.path.clone(), file(bytes, item.mode.unwrap_or(mode)));
                    }
                    None if optional => {}
                    None => return Err(format!("references non-existent config key: {}", item.key)),
                }
            }
        }
    }
    Ok(())
}

fn add_config_map(
    files: &mut Files,
    map: Option<&ConfigMap>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<(), String> {
    let Some(map) = map else { return Ok(()) };
    let get = |key: &str| {
        let text = map.data.as_ref().and_then(|d| d.get(key)).map(|s| s.clone().into_bytes());
        text.or_else(|| map.binary_data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.clone()))
    };
    let keys = map.data.iter().flat_map(|d| d.keys()).chain(map.binary_data.iter().flat_map(|d| d.keys()));
    add_items(files, get, keys, items, mode, optional)
}

fn add_secret(
    files: &mut Files,
    secret: Option<&Secret>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<(), String> {
    let Some(secret) = secret else { return Ok(()) };
    let get = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|ByteString(b)| b.clone());
    add_items(files, get, secret.data.iter().flat_map(|d| d.keys()), items, mode, optional)
}

fn add_downward(
    files: &mut Files,
    item: &DownwardAPIVolumeFile,
    mode: i32,
    input: &VolumeInput<'_>,
    node: NodeCapacity,
) -> Result<(), String> {
    let value = if let Some(field) = &item.field_ref {
        downward::field(input.pod, &field.field_path, &downward_context(input))?
    } else if let Some(field) = &item.resource_field_ref {
        let name = field.container_name.as_deref().unwrap_or_default();
        let container =
            pod::container(input.pod, name).ok_or_else(|| format!("container {name:?} not found"))?;
        resources::field(container.container, &field.resource, field.divisor.as_ref(), node)?
    } else {
        return Err(format!("item {} has neither fieldRef nor resourceFieldRef", item.path));
    };
    files.insert(item.path.clone(), file(value.into_bytes(), item.mode.unwrap_or(mode)));
    Ok(())
}

fn add_projected(
    files: &mut Files,
    source: &ProjectedVolumeSource,
    input: &VolumeInput<'_>,
    node: NodeCapacity,
    token: impl Fn(&TokenKey) -> Option<Token>,
) -> Result<Option<Timestamp>, String> {
    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    let mut refresh_at: Option<Timestamp> = None;
    for part in source.sources.iter().flatten() {
        if let Some(source) = &part.config_map {
            let optional = source.optional.unwrap_or(false);
            let map = input.objects.config_map(&source.name, optional)?;
            add_config_map(files, map, source.items.as_deref(), mode, optional)?;
        } else if let Some(source) = &part.secret {
            let optional = source.optional.unwrap_or(false);
            let secret = input.objects.secret(&source.name, optional)?;
            add_secret(files, secret, source.items.as_deref(), mode, optional)?;
        } else if let Some(source) = &part.downward_api {
            for item in source.items.iter().flatten() {
                add_downward(files, item, mode, input, node)?;
            }
        } else if part.service_account_token.is_some() {
            // Below, all at once.
        } else {
            return Err("projected source is not supported by this node".to_owned());
        }
    }
    for key in token_keys(source) {
        let (value, refresh) = token(&key).ok_or_else(|| "failed to fetch token: no answer".to_owned())?;
        let mut file = file(value.into_bytes(), mode);
        let (user, group) = token_owner(input.pod);
        if user.is_some() || group {
            file.mode = TOKEN_MODE;
            file.uid = user;
        }
        files.insert(key.path.clone(), file);
        refresh_at = Some(refresh_at.map_or(refresh, |r| r.min(refresh)));
    }
    Ok(refresh_at)
}

/// The one user all containers run as, and whether an fsGroup lets the others in.
fn token_owner(pod: &Pod) -> (Option<u32>, bool) {
    let pods = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let mut users = pod::containers(pod).map(|c| {
        let own = c.container.security_context.as_ref().and_then(|s| s.run_as_user);
        own.or_else(|| pods.and_then(|s| s.run_as_user))
    });
    let first = users.next().flatten();
    let shared = first.filter(|user| users.all(|u| u == Some(*user)));
    (shared.and_then(|u| u32::try_from(u).ok()), pods.and_then(|s| s.fs_group).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::ObjectSnapshot;

    const NODE: NodeCapacity = NodeCapacity { milli_cpu: 2000, memory: 1 << 30, ephemeral_storage: 1 << 30 };

    fn payload(volume: serde_json::Value) -> Result<Vec<(String, String, u32)>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1"}},
            "spec": {"securityContext": {"runAsUser": 7}, "containers": [{"name": "c"}], "volumes": [volume]},
        }))
        .unwrap();
        let objects = ObjectSnapshot::of(
            [
                ("cm", Some(json!({"data": {"k": "v", "l": "w"}, "binaryData": {"b": "AQI="}}))),
                ("none", None),
            ],
            [("s", Some(json!({"data": {"p": "cHc="}})))],
        );
        let input = VolumeInput { pod: &pod, objects: &objects, host_ips: &[], pod_ips: &[] };
        let volume = &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0];
        let token = |_: &TokenKey| Some(("tok".to_owned(), Timestamp::UNIX_EPOCH));
        let payload = of_volume(volume, &input, NODE, token).map_err(|e| e.to_string())?.unwrap();
        Ok(payload
            .files
            .into_iter()
            .map(|(path, f)| (path, String::from_utf8_lossy(&f.bytes).into_owned(), f.mode))
            .collect())
    }

    fn rows(list: &[(&str, &str, u32)]) -> Vec<(String, String, u32)> {
        list.iter().map(|(p, t, m)| ((*p).to_owned(), (*t).to_owned(), *m)).collect()
    }

    #[test]
    fn config_maps_and_secrets_become_files_with_their_modes() {
        let all = payload(json!({"name": "v", "configMap": {"name": "cm", "defaultMode": 0o400}})).unwrap();
        assert_eq!(all, rows(&[("b", "\u{1}\u{2}", 0o400), ("k", "v", 0o400), ("l", "w", 0o400)]));
        let some = payload(json!({"name": "v", "configMap": {"name": "cm", "items": [
            {"key": "k", "path": "d/k"}, {"key": "l", "path": "l", "mode": 0o600}]}}));
        assert_eq!(some.unwrap(), rows(&[("d/k", "v", 0o644), ("l", "w", 0o600)]));
        let secret = payload(json!({"name": "v", "secret": {"secretName": "s"}})).unwrap();
        assert_eq!(secret, rows(&[("p", "pw", 0o644)]));
    }

    #[test]
    fn what_is_missing_is_an_error_unless_optional() {
        let missing = payload(json!({"name": "v", "configMap": {"name": "none"}})).unwrap_err();
        assert!(missing.contains("configmap \"none\" not found"), "{missing}");
        assert_eq!(
            payload(json!({"name": "v", "configMap": {"name": "none", "optional": true}})).unwrap(),
            []
        );
        let item = json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}});
        assert!(payload(item).unwrap_err().contains("references non-existent config key: z"));
    }

    #[test]
    fn a_projected_volume_joins_its_sources_and_guards_its_token() {
        let files = payload(json!({"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}},
            {"configMap": {"name": "cm", "items": [{"key": "k", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]}}))
        .unwrap();
        assert_eq!(
            files,
            rows(&[("ca.crt", "v", 0o644), ("namespace", "n", 0o644), ("token", "tok", 0o600)])
        );
    }
}
