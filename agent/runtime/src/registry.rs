//! A client of the OCI distribution API: manifests and blobs, mirrors, credentials.
//!
//! In: a reference and credentials. Out: manifest bytes (bounded), blob streams from any offset. Nothing is trusted:
//! the callers check what arrives by digest and size. HTTPS by default; plain HTTP only for mirrors that say so and
//! for registries on this host.

mod auth;

use std::sync::Mutex;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE};
use reqwest::{Response, StatusCode};

use crate::config::{RegistryHost, Timeouts};
use crate::image::manifest::{DOCKER_LIST, DOCKER_MANIFEST, MAX_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::image::reference::Reference;
use crate::registry::auth::{Challenge, authorize};
use crate::types::RegistryAuth;

const DEFAULT_ENTRY: &str = "_default";
const LONGEST_ERROR: usize = 256;
const MAX_REDIRECTS: usize = 5;

/// HTTP clients for all pulls: they pool connections.
#[derive(Clone)]
pub(crate) struct Registry {
    secure: reqwest::Client,
    plain: reqwest::Client,
    hosts: Vec<RegistryHost>,
}

/// One pull's view of its registry: who is asked, with which credentials, which tokens were given.
pub(crate) struct Session {
    registry: Registry,
    reference: Reference,
    endpoints: Vec<Endpoint>,
}

struct Endpoint {
    url: String,
    /// Credentials to try in order; the last one is `None`, anonymous.
    credentials: Vec<Option<RegistryAuth>>,
    /// Header that was accepted last.
    authorization: Mutex<Option<HeaderValue>>,
    /// Query that tells a mirror which registry is meant.
    mirror_of: Option<String>,
}

/// A blob's bytes from `offset` on.
pub(crate) struct Blob {
    response: Response,
    /// Bytes to skip because the registry ignored the range.
    skip: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FetchError {
    NotFound,
    Unauthorized(String),
    /// Trying again may help.
    Transient(String),
    Refused(String),
}

// === impl Registry ===

impl Registry {
    pub(crate) fn new(hosts: Vec<RegistryHost>, timeouts: &Timeouts) -> Result<Self, String> {
        // Fails only when a provider was installed already, which is then ring too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(timeouts.registry_connect)
                .read_timeout(timeouts.registry_progress)
                .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
                .pool_idle_timeout(Duration::from_secs(30))
                .user_agent(concat!("xebec/", env!("CARGO_PKG_VERSION")))
        };
        // A host without certificate authorities can still pull from plain mirrors.
        let secure = builder()
            .build()
            .or_else(|_| builder().tls_certs_only(Vec::new()).build())
            .map_err(|e| describe(&e))?;
        // Plain HTTP serves mirrors beside the node: never by way of a proxy.
        let plain = builder().no_proxy().tls_certs_only(Vec::new()).build().map_err(|e| describe(&e))?;
        Ok(Self { secure, plain, hosts })
    }

    /// Prepares to pull one image.
    pub(crate) fn session(&self, reference: &Reference, auth: &[RegistryAuth]) -> Session {
        let registry = &reference.registry;
        let host = self
            .hosts
            .iter()
            .find(|host| host.registry == *registry)
            .or_else(|| self.hosts.iter().find(|host| host.registry == DEFAULT_ENTRY));
        let mirrors = host.map_or(&[][..], |host| &host.mirrors);
        let mut endpoints: Vec<Endpoint> = mirrors
            .iter()
            .map(|url| Endpoint::new(url.trim_end_matches('/').to_owned(), &[], Some(registry.clone())))
            .collect();
        if !host.is_some_and(|host| host.mirrors_only) {
            endpoints.push(Endpoint::new(url_of(registry), auth, None));
        }
        Session { registry: self.clone(), reference: reference.clone(), endpoints }
    }

    fn client(&self, url: &str) -> &reqwest::Client {
        if url.starts_with("http://") { &self.plain } else { &self.secure }
    }
}

fn url_of(registry: &str) -> String {
    if registry == "docker.io" {
        return "https://registry-1.docker.io".into();
    }
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let local = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    let scheme = if local && !registry.ends_with(":443") { "http" } else { "https" };
    format!("{scheme}://{registry}")
}

// === impl Session ===

impl Session {
    /// The bytes of an index or manifest.
    pub(crate) async fn manifest(&self, version: &str) -> Result<Bytes, FetchError> {
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        let path = format!("manifests/{version}");
        let response = self.get(&path, Some(&accept), None).await?;
        read_bounded(response, MAX_MANIFEST).await
    }

    /// A blob's content from `offset` on.
    pub(crate) async fn blob(&self, digest: &str, offset: u64) -> Result<Blob, FetchError> {
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let response = self.get(&format!("blobs/{digest}"), None, range.as_deref()).await?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        Ok(Blob { response, skip: if partial { 0 } else { offset } })
    }

    /// Asks the endpoints in order; the failures of all are told when none answers.
    async fn get(
        &self,
        path: &str,
        accept: Option<&str>,
        range: Option<&str>,
    ) -> Result<Response, FetchError> {
        let mut failures = Vec::new();
        for endpoint in &self.endpoints {
            match self.get_from(endpoint, path, accept, range).await {
                Ok(response) => return Ok(response),
                Err(error) => failures.push((endpoint.url.as_str(), error)),
            }
        }
        Err(FetchError::of_all(failures))
    }

    async fn get_from(
        &self,
        endpoint: &Endpoint,
        path: &str,
        accept: Option<&str>,
        range: Option<&str>,
    ) -> Result<Response, FetchError> {
        let url = format!("{}/v2/{}/{path}", endpoint.url, self.reference.repository);
        let client = self.registry.client(&url);
        let send = |authorization: Option<HeaderValue>| {
            let mut request = client.get(&url);
            if let Some(registry) = &endpoint.mirror_of {
                request = request.query(&[("ns", registry)]);
            }
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            request.send()
        };
        let response = send(endpoint.accepted()).await.map_err(|e| FetchError::of_transport(&e))?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return answered(response).await;
        }
        let Some(challenge) = Challenge::of(response.headers()) else {
            return Err(FetchError::Unauthorized("401 without a challenge that is understood".into()));
        };
        let mut refusal = FetchError::Unauthorized("authentication required".into());
        for credential in &endpoint.credentials {
            let authorization =
                match authorize(client, &challenge, &self.reference.repository, credential.as_ref()).await {
                    Ok(Some(authorization)) => authorization,
                    Ok(None) => continue,
                    Err(error) => {
                        refusal = error;
                        continue;
                    }
                };
            let response =
                send(Some(authorization.clone())).await.map_err(|e| FetchError::of_transport(&e))?;
            match answered(response).await {
                Err(error @ FetchError::Unauthorized(_)) => refusal = error,
                Err(error) => return Err(error),
                Ok(response) => {
                    endpoint.accept(authorization);
                    return Ok(response);
                }
            }
        }
        Err(refusal)
    }
}

// === impl Endpoint ===

impl Endpoint {
    fn new(url: String, auth: &[RegistryAuth], mirror_of: Option<String>) -> Self {
        let credentials = auth.iter().cloned().map(Some).chain([None]).collect();
        Self { url, credentials, authorization: Mutex::new(None), mirror_of }
    }

    fn accepted(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn accept(&self, authorization: HeaderValue) {
        *self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(authorization);
    }
}

// === impl Blob ===

impl Blob {
    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let chunk = self.response.chunk().await.map_err(|e| FetchError::of_transport(&e))?;
            let Some(mut chunk) = chunk else { return Ok(None) };
            let skipped = self.skip.min(chunk.len() as u64);
            self.skip -= skipped;
            // Fits: it is at most the chunk's length.
            let chunk = chunk.split_off(skipped as usize);
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }
}

// === impl FetchError ===

impl FetchError {
    fn of_transport(error: &reqwest::Error) -> Self {
        Self::Transient(describe(error))
    }

    /// One error out of those of all endpoints: "not found" only when all say so.
    fn of_all(mut failures: Vec<(&str, Self)>) -> Self {
        if failures.len() == 1 {
            return failures.remove(0).1;
        }
        if !failures.is_empty() && failures.iter().all(|(_, error)| *error == Self::NotFound) {
            return Self::NotFound;
        }
        let text: Vec<String> = failures.iter().map(|(url, error)| format!("{url}: {error}")).collect();
        let text = text.join("; ");
        if failures.iter().any(|(_, error)| matches!(error, Self::Unauthorized(_))) {
            return Self::Unauthorized(text);
        }
        if failures.iter().any(|(_, error)| matches!(error, Self::Transient(_))) {
            return Self::Transient(text);
        }
        Self::Refused(text)
    }
}

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::Unauthorized(reason) | Self::Transient(reason) | Self::Refused(reason) => {
                f.write_str(reason)
            }
        }
    }
}

/// Reads a body that must be small.
async fn read_bounded(mut response: Response, max: u64) -> Result<Bytes, FetchError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| FetchError::of_transport(&e))? {
        if (body.len() + chunk.len()) as u64 > max {
            return Err(FetchError::Refused(format!("the registry sent more than the limit of {max} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

async fn answered(response: Response) -> Result<Response, FetchError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    if status == StatusCode::NOT_FOUND {
        return Err(FetchError::NotFound);
    }
    let mut text = read_bounded(response, 64 << 10).await.unwrap_or_default();
    text.truncate(LONGEST_ERROR);
    let text = String::from_utf8_lossy(&text).replace(char::is_control, " ");
    let reason = format!("unexpected status {status}: {}", text.trim());
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FetchError::Unauthorized(reason),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => FetchError::Transient(reason),
        status if status.is_server_error() => FetchError::Transient(reason),
        _ => FetchError::Refused(reason),
    })
}

/// A transport error with its causes: reqwest's own text names only the URL.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(hosts: Vec<RegistryHost>, image: &str) -> Session {
        let auth = [RegistryAuth { username: "u".into(), password: "p".into() }];
        Registry::new(hosts, &Timeouts::default()).unwrap().session(&Reference::parse(image).unwrap(), &auth)
    }

    fn host(registry: &str, mirrors_only: bool) -> RegistryHost {
        RegistryHost { registry: registry.into(), mirrors: vec!["http://hub:5000/".into()], mirrors_only }
    }

    #[test]
    fn mirrors_come_first_and_get_no_credentials() {
        let session = session(vec![host("docker.io", false)], "nginx");
        let urls: Vec<&str> = session.endpoints.iter().map(|e| e.url.as_str()).collect();
        assert_eq!(urls, ["http://hub:5000", "https://registry-1.docker.io"]);
        assert_eq!(session.endpoints[0].credentials, [None]);
        assert_eq!(session.endpoints[1].credentials.len(), 2);
    }

    #[test]
    fn the_default_entry_serves_registries_without_one() {
        let hosts = vec![host("docker.io", false), host(DEFAULT_ENTRY, true)];
        assert_eq!(session(hosts.clone(), "quay.io/a/b").endpoints.len(), 1);
        assert_eq!(session(hosts, "nginx").endpoints.len(), 2);
    }

    #[test]
    fn only_registries_on_this_host_are_plain() {
        assert_eq!(url_of("localhost:5000"), "http://localhost:5000");
        assert_eq!(url_of("127.0.0.1:5000"), "http://127.0.0.1:5000");
        assert_eq!(url_of("[::1]:5000"), "http://[::1]:5000");
        assert_eq!(url_of("10.0.0.1:5000"), "https://10.0.0.1:5000");
        assert_eq!(url_of("localhost.example"), "https://localhost.example");
    }

    #[test]
    fn not_found_needs_all_endpoints_to_agree() {
        let transient = FetchError::Transient("reset".into());
        assert_eq!(
            FetchError::of_all(vec![("a", FetchError::NotFound), ("b", FetchError::NotFound)]),
            FetchError::NotFound
        );
        assert_eq!(
            FetchError::of_all(vec![("a", FetchError::NotFound), ("b", transient)]),
            FetchError::Transient("a: not found; b: reset".into())
        );
    }
}
