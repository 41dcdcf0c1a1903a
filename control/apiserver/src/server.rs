//! The pipeline every request takes: identity, permission, limits, dispatch, and errors made into statuses.
//!
//! In: an HTTP request, its sender as a request extension. Out: an answer, whatever happens. Absent: sockets.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use http::{HeaderValue, Method, Request, Response, header};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use xebec_store::Store;

use crate::admission::quota::Quotas;
use crate::alloc::Allocators;
use crate::authn::{self, ANONYMOUS_USER, UserInfo};
use crate::authz::{self, Attributes, Permissions};
use crate::body::{self, Bodies, Body};
use crate::bound::StoredObjects;
use crate::config::{ApiServerConfig, ConfigError, RequestLimits};
use crate::custom;
use crate::dispatch;
use crate::facts::FactsCache;
use crate::follow::Follow;
use crate::health;
use crate::impersonation;
use crate::metrics::Metrics;
use crate::openapi::Documents;
use crate::options::Query;
use crate::registry::{Cx, Kinds, Registry};
use crate::request::RequestInfo;
use crate::schema::Schema;
use crate::status::ApiError;
use crate::stored::{self, Stored};

/// Who has places of its own among the requests at work.
const SYSTEM_GROUPS: [&str; 3] = [authn::MASTERS_GROUP, "system:nodes", "system:serviceaccounts:kube-system"];
/// What the users of scheduler and controllers are called.
const SYSTEM_PARTS: &str = "system:kube-";
/// Whom to trust, signed for those who have a token.
const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
/// As long as the name of a field manager may be.
const MAX_AGENT: usize = 128;

/// The API server. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Arc<Registry>,
    /// For everybody.
    crowd: Places,
    /// For those without whom the cluster stops: no crowd keeps a node from renewing its Lease.
    system: Places,
    bodies: Bodies,
    ready: AtomicBool,
    stopping: AtomicBool,
}

/// Requests at work at once.
struct Places {
    reading: Semaphore,
    writing: Semaphore,
}

// === impl Places ===

impl Places {
    fn new(limits: &RequestLimits) -> Self {
        let places = |limit: usize| match limit {
            0 => Semaphore::new(Semaphore::MAX_PERMITS),
            limit => Semaphore::new(limit.min(Semaphore::MAX_PERMITS)),
        };
        Self { reading: places(limits.reading), writing: places(limits.writing) }
    }
}

// === impl ApiServer ===

impl ApiServer {
    /// Checks the configuration and takes up what the store knows of addresses and ports.
    pub fn new(config: ApiServerConfig, store: Store) -> Result<Self, ConfigError> {
        config.check()?;
        Schema::global()?;
        let allocators = Allocators::new(&config);
        let kinds = Kinds::builtin();
        let prefix = stored::prefix(&kinds.core("services").resource, None);
        let services = store
            .list(prefix.as_bytes(), None, 0, None)
            .map_err(|error| ConfigError::Store(error.to_string()))?;
        for kv in &services.items {
            let service = Stored::from(kv).decode().map_err(|error| ConfigError::Store(error.to_string()))?;
            allocators.adopt(&service);
        }
        let (facts, permissions) = (FactsCache::default(), Permissions::new());
        let custom = Follow::new(custom::PREFIX);
        let (quotas, metrics) = (Quotas::new(), Metrics::new());
        let (crowd, system) = (Places::new(&config.requests), Places::new(&config.requests));
        let registry = Arc::new(Registry {
            store,
            config,
            kinds,
            facts,
            allocators,
            permissions,
            custom,
            quotas,
            metrics,
            documents: Documents::default(),
        });
        Ok(Self {
            inner: Arc::new(Inner {
                registry,
                crowd,
                system,
                bodies: Bodies::default(),
                ready: AtomicBool::new(false),
                stopping: AtomicBool::new(false),
            }),
        })
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.inner.registry
    }

    /// From now on `/readyz` says ok.
    pub(crate) fn set_ready(&self) {
        self.inner.ready.store(true, Ordering::Release);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.inner.ready.load(Ordering::Acquire)
    }

    /// From now on `/readyz` fails. Requests are answered as before: who sends them needs a moment to turn away.
    pub fn begin_shutdown(&self) {
        self.inner.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Acquire)
    }

    /// Answers a request. Who sends it is said by the extensions [`authn::Peer`] or [`authn::InProcess`], else by its
    /// bearer token.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let head = request.method() == Method::HEAD;
        let begun = Instant::now();
        let query = Query::parse(request.uri().query());
        let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
        let answer = self.answer(request, &info, &query);
        let answer = AssertUnwindSafe(tokio::time::timeout(self.registry().config.requests.timeout, answer));
        let mut response = match answer.catch_unwind().await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(error))) => error.into_response(),
            Ok(Err(_)) => {
                ApiError::timeout("request did not complete within the allotted timeout").into_response()
            }
            Err(_) => {
                tracing::error!("a request handler panicked");
                ApiError::internal("the request could not be handled").into_response()
            }
        };
        let registry = &self.inner.registry;
        let dry_run = query.get("dryRun").is_some_and(|value| value == "All");
        registry.metrics.count(registry, &info, dry_run, response.status(), begun.elapsed());
        let headers = response.headers_mut();
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        if head {
            *response.body_mut() = body::empty();
        }
        response
    }

    async fn answer(
        &self,
        request: Request<Body>,
        info: &RequestInfo,
        query: &Query,
    ) -> Result<Response<Body>, ApiError> {
        let registry = &self.inner.registry;
        let sender = self.authenticate(&request)?;
        if sender.name == ANONYMOUS_USER && !(info.verb == "get" && is_open(&info.path)) {
            return Err(ApiError::unauthorized());
        }
        let user = impersonation::effective(registry, sender, request.headers())?;
        let asked = Attributes::of(info, query.get("fieldSelector").unwrap_or_default());
        if authz::allows(registry, &user, &asked).is_none() {
            let why = authz::denial(&user, &asked);
            return Err(ApiError::forbidden(&info.group, &info.resource, &info.name, why));
        }
        // A body that trickles in holds no place among the requests at work.
        let (request, _held) = match info.subresource.as_str() {
            "proxy" => (request, None),
            _ => self.inner.bodies.whole(request).await?,
        };
        let _permit = self.admit(info, &user)?;
        let _under_way = registry.metrics.begin(reads(info));
        let agent = agent(request.headers());
        let cx = Cx::new(registry, &user, &agent, &info.subresource);
        let answer = dispatch::dispatch(self, &cx, info, query, request).boxed().await;
        // Warnings stand on errors, too.
        let mut response = answer.unwrap_or_else(ApiError::into_response);
        for text in cx.take_warnings() {
            if let Ok(value) = HeaderValue::from_str(&warning(&text)) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
        Ok(response)
    }

    fn authenticate(&self, request: &Request<Body>) -> Result<UserInfo, ApiError> {
        let registry = &self.inner.registry;
        let objects = StoredObjects::new(registry);
        let verifier = &registry.config.tokens.verifier;
        authn::authenticate(request.headers(), request.extensions(), verifier, &objects).map_err(|error| {
            tracing::debug!(%error, "a request's credentials were refused");
            ApiError::unauthorized()
        })
    }

    /// Room for one more request, or 429. Streams hold it only until they begin.
    fn admit(
        &self,
        info: &RequestInfo,
        user: &UserInfo,
    ) -> Result<tokio::sync::SemaphorePermit<'_>, ApiError> {
        let places = if is_system(user) { &self.inner.system } else { &self.inner.crowd };
        let limit = if reads(info) { &places.reading } else { &places.writing };
        limit
            .try_acquire()
            .map_err(|_| ApiError::too_many_requests("Too many requests, please try again later.", 1))
    }
}

/// Nodes, administrators and the parts of the control plane, as upstream's flow schemas have them.
fn is_system(user: &UserInfo) -> bool {
    SYSTEM_GROUPS.iter().any(|group| user.in_group(group)) || user.name.starts_with(SYSTEM_PARTS)
}

/// What is answered to those who show no credentials, if roles say so too: health, and what a machine needs to know before
/// it can have any.
fn is_open(path: &str) -> bool {
    health::is_health(path) || path == CLUSTER_INFO
}

fn reads(info: &RequestInfo) -> bool {
    matches!(info.verb, "get" | "list" | "watch" | "head" | "options")
}

/// The program behind a request, as far as it says: `kubectl` of `kubectl/v1.37.1 (linux/amd64)`.
fn agent(headers: &http::HeaderMap) -> String {
    let text = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name: String = text.split('/').next().unwrap_or_default().chars().take(MAX_AGENT).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// `299 - "text"`, with what a header cannot carry escaped.
fn warning(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    format!("299 - \"{quoted}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted() {
        assert_eq!(warning("unknown field \"a\"\n"), "299 - \"unknown field \\\"a\\\" \"");
    }
}
