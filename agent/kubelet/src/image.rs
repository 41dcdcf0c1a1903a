//! Images for containers: pull policy, pull secrets, few pulls at a time.
//!
//! In: a container's image and policy, the pod's pull secrets. Out: a present image or the reason, worded as upstream
//! words it. When to try again is the machine's business.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use serde::Deserialize;
use tokio::sync::Semaphore;
use xebec_runtime::error::PullError;
use xebec_runtime::types::{ContainerRuntime, Image, PullRequest, RegistryAuth};

use crate::machine::outcome::Trouble;
use crate::recorder::{EventType, Recorder};

/// Pulls images for all pods of the node.
#[derive(Clone)]
pub struct Images<R> {
    runtime: R,
    parallel: Arc<Semaphore>,
    /// One pull at a time of one image: the others find it present.
    pulling: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl<R: ContainerRuntime> Images<R> {
    pub fn new(runtime: R, max_parallel: usize) -> Self {
        let parallel = Arc::new(Semaphore::new(max_parallel.max(1)));
        Self { runtime, parallel, pulling: Arc::default() }
    }

    /// The image of `container`, pulled when its policy asks for it. Cancel-safe.
    pub async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        secrets: &[Secret],
        recorder: &Recorder,
    ) -> Result<Image, Trouble> {
        let reference = container.image.as_deref().unwrap_or_default();
        let say = |type_, reason: &str, message: String| {
            recorder.pod(pod, Some(&container.name), type_, reason, message);
        };
        if reference.is_empty() || reference.trim() != reference {
            let message =
                format!("Failed to apply default image tag {reference:?}: invalid reference format");
            say(EventType::Warning, "InspectFailed", message.clone());
            return Err(Trouble::new("InvalidImageName", message));
        }
        let policy = policy(container);
        if policy != Policy::Always {
            if let Some(image) = self.present(reference).await? {
                say(
                    EventType::Normal,
                    "Pulled",
                    format!(
                        "Container image \"{reference}\" already present on machine and can be accessed by the pod"
                    ),
                );
                return Ok(image);
            }
            if policy == Policy::Never {
                let message =
                    format!("Container image \"{reference}\" is not present with pull policy of Never");
                say(EventType::Warning, "ErrImageNeverPull", message.clone());
                return Err(Trouble::new("ErrImageNeverPull", message));
            }
        }
        let one = self.lock_of(reference);
        let _one = one.lock().await;
        // Somebody may have pulled it while this one waited.
        if policy == Policy::IfNotPresent
            && let Some(image) = self.present(reference).await?
        {
            return Ok(image);
        }
        let asked = Instant::now();
        let _permit = self.parallel.acquire().await;
        say(EventType::Normal, "Pulling", format!("Pulling image \"{reference}\""));
        let begun = Instant::now();
        let request = PullRequest { image: reference.to_owned(), auth: credentials(secrets, reference) };
        match self.runtime.pull(&request).await {
            Ok(image) => {
                say(
                    EventType::Normal,
                    "Pulled",
                    format!(
                        "Successfully pulled image \"{reference}\" in {} ({} including waiting). Image size: {} bytes.",
                        go_duration(begun.elapsed()),
                        go_duration(asked.elapsed()),
                        image.size
                    ),
                );
                Ok(image)
            }
            Err(error) => {
                say(EventType::Warning, "Failed", format!("Failed to pull image \"{reference}\": {error}"));
                let reason = match error {
                    PullError::InvalidName { .. } => "InvalidImageName",
                    _ => "ErrImagePull",
                };
                say(EventType::Warning, "Failed", format!("Error: {reason}"));
                Err(Trouble::new(reason, error.to_string()))
            }
        }
    }

    async fn present(&self, reference: &str) -> Result<Option<Image>, Trouble> {
        self.runtime.image(reference).await.map_err(|error| {
            Trouble::new("ImageInspectError", format!("Failed to inspect image \"{reference}\": {error}"))
        })
    }

    fn lock_of(&self, reference: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut pulling = self.pulling.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        pulling.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(pulling.entry(reference.to_owned()).or_default())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

/// As written by the API server; unset means `Always` for the tag `latest` or none.
fn policy(container: &Container) -> Policy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => Policy::Always,
        Some("IfNotPresent") => Policy::IfNotPresent,
        Some("Never") => Policy::Never,
        _ => {
            let image = container.image.as_deref().unwrap_or_default();
            let name = image.rsplit('/').next().unwrap_or_default();
            let pinned = image.contains('@') || name.split_once(':').is_some_and(|(_, tag)| tag != "latest");
            if pinned { Policy::IfNotPresent } else { Policy::Always }
        }
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

/// Names and passwords of the pull secrets that are meant for the image's registry, the most specific first.
fn credentials(secrets: &[Secret], reference: &str) -> Vec<RegistryAuth> {
    let wanted = repository(reference);
    let mut found: Vec<(usize, RegistryAuth)> = Vec::new();
    for secret in secrets {
        let data = secret.data.as_ref();
        let auths = data
            .and_then(|d| d.get(".dockerconfigjson"))
            .and_then(|bytes| serde_json::from_slice::<DockerConfig>(&bytes.0).ok().map(|c| c.auths))
            .or_else(|| {
                let bytes = data?.get(".dockercfg")?;
                serde_json::from_slice::<HashMap<String, DockerAuth>>(&bytes.0).ok()
            });
        for (server, auth) in auths.into_iter().flatten() {
            let pattern = server_name(&server);
            if matches_server(&wanted, &pattern)
                && let Some(auth) = decode(auth)
            {
                found.push((pattern.len(), auth));
            }
        }
    }
    found.sort_by_key(|(specific, _)| std::cmp::Reverse(*specific));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn decode(auth: DockerAuth) -> Option<RegistryAuth> {
    use base64::Engine as _;
    if let (Some(username), Some(password)) = (auth.username, auth.password)
        && !username.is_empty()
    {
        return Some(RegistryAuth { username, password });
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(auth.auth?.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(RegistryAuth { username: username.to_owned(), password: password.trim_end_matches('\0').to_owned() })
}

/// `registry/path` of an image, `docker.io/library/nginx` for `nginx`.
fn repository(reference: &str) -> String {
    let name = reference.split('@').next().unwrap_or_default();
    let (head, tail) = name.rsplit_once('/').unwrap_or(("", name));
    let tail = tail.split(':').next().unwrap_or_default();
    let first = head.split('/').next().unwrap_or_default();
    let has_registry = first.contains(['.', ':']) || first == "localhost";
    match (has_registry, head) {
        (true, _) => format!("{head}/{tail}"),
        (false, "") => format!("docker.io/library/{tail}"),
        (false, _) => format!("docker.io/{head}/{tail}"),
    }
}

fn server_name(server: &str) -> String {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2");
    bare.replacen("index.docker.io", "docker.io", 1)
}

/// Host labels may be `*`; the path is a prefix.
fn matches_server(repository: &str, pattern: &str) -> bool {
    let (host, path) = repository.split_once('/').unwrap_or((repository, ""));
    let (pattern_host, pattern_path) = pattern.split_once('/').unwrap_or((pattern, ""));
    let labels: Vec<&str> = host.split('.').collect();
    let patterns: Vec<&str> = pattern_host.split('.').collect();
    labels.len() == patterns.len()
        && labels.iter().zip(&patterns).all(|(l, p)| *p == "*" || l == p)
        && (pattern_path.is_empty()
            || path == pattern_path
            || path.strip_prefix(pattern_path).is_some_and(|rest| rest.starts_with('/')))
}

/// `1.234s` or `56ms`, as Go prints durations.
fn go_duration(duration: std::time::Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 { format!("{millis}ms") } else { format!("{}.{:03}s", millis / 1000, millis % 1000) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unset_policy_follows_the_tag() {
        let cases = [
            ("nginx", Policy::Always),
            ("nginx:latest", Policy::Always),
            ("nginx:1", Policy::IfNotPresent),
            ("host:5000/nginx", Policy::Always),
            ("nginx@sha256:00", Policy::IfNotPresent),
        ];
        for (image, expected) in cases {
            let container = Container { image: Some(image.to_owned()), ..Container::default() };
            assert_eq!(policy(&container), expected, "{image}");
        }
    }

    #[test]
    fn secrets_apply_to_their_registry_only_most_specific_first() {
        let secret = |config: serde_json::Value| Secret {
            data: Some(
                [(
                    ".dockerconfigjson".to_owned(),
                    k8s_openapi::ByteString(serde_json::to_vec(&config).unwrap()),
                )]
                .into(),
            ),
            ..Secret::default()
        };
        let secrets = [secret(json!({"auths": {
            "https://index.docker.io/v1/": {"auth": "dXNlcjpwYXNz"},
            "*.example.org": {"username": "wild", "password": "w"},
            "r.example.org/team": {"username": "team", "password": "t"},
        }}))];
        let users =
            |image: &str| credentials(&secrets, image).into_iter().map(|a| a.username).collect::<Vec<_>>();
        assert_eq!(users("nginx:1"), ["user"]);
        assert_eq!(users("r.example.org/team/app"), ["team", "wild"]);
        assert_eq!(users("r.example.org/teamwork/app"), ["wild"]);
        assert!(users("quay.io/x").is_empty());
    }
}
