//! One door to containerd: every call has the namespace, a time limit and a bounded retry.
//!
//! In: requests. Out: answers, or a [`CallError`] that keeps the status code for those who must tell "not found"
//! from a failure. While containerd is being restarted calls are repeated; all that we send is safe to repeat
//! because the callers take "already exists" for success where their own earlier attempt may have got through.

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::version_client::VersionClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::config::Timeouts;
use crate::error::RuntimeError;

/// Largest answer we take. Containers are listed as a stream, so that a message holds one record or one chunk of content;
/// lists of images, tasks and leases come in one, and have a few hundred bytes an entry.
const MAX_MESSAGE: usize = 32 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Tries when containerd itself answers "unavailable" (a shim that is going away, a locked reference).
const TRIES_WHEN_BUSY: u32 = 4;

/// A connection that is made on the first call and again after a break.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    headers: Headers,
    socket: Arc<str>,
    pub(crate) timeouts: Timeouts,
}

/// containerd takes its namespace and the lease that new objects belong to from the request's metadata.
#[derive(Clone)]
pub(crate) struct Headers {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

pub(crate) type Service = InterceptedService<Channel, Headers>;

/// A failed call.
#[derive(Debug)]
pub(crate) struct CallError {
    pub(crate) code: Code,
    pub(crate) error: RuntimeError,
}

/// Calls `service.method(request)` through [`Client::call`]; the request is cloned for each try.
macro_rules! rpc {
    ($client:expr, $limit:expr, $service:ident.$method:ident($request:expr)) => {{
        let request = $request;
        let client = &$client;
        client.call(concat!(stringify!($service), ".", stringify!($method)), $limit, move || {
            let mut service = client.$service();
            let request = request.clone();
            async move { service.$method(request).await }
        })
    }};
}
pub(crate) use rpc;

/// As [`rpc!`], but tried once: for a call that must not be repeated under the same name.
macro_rules! rpc_once {
    ($client:expr, $limit:expr, $service:ident.$method:ident($request:expr)) => {{
        let client = &$client;
        let mut service = client.$service();
        let answer = service.$method($request);
        client.call_once(concat!(stringify!($service), ".", stringify!($method)), $limit, answer).await
    }};
}
pub(crate) use rpc_once;

/// Reads a missing object as `None`.
pub(crate) trait Optional<T> {
    fn optional(self) -> Result<Option<T>, RuntimeError>;
}

// === impl Client ===

impl Client {
    pub(crate) fn new(socket: &Path, namespace: &str, timeouts: Timeouts) -> Result<Self, RuntimeError> {
        let name = socket.display().to_string();
        let bad = |reason: String| RuntimeError::Unreachable { socket: name.clone(), reason };
        let endpoint = Endpoint::from_shared(format!("unix://{name}"))
            .map_err(|e| bad(e.to_string()))?
            .connect_timeout(timeouts.metadata);
        let namespace = namespace
            .parse()
            .map_err(|_| bad(format!("{namespace:?} cannot be a namespace of containerd")))?;
        Ok(Self {
            channel: endpoint.connect_lazy(),
            headers: Headers { namespace, lease: None },
            socket: name.clone().into(),
            timeouts,
        })
    }

    /// The same connection, with new objects kept by a lease.
    pub(crate) fn with_lease(&self, lease: &str) -> Self {
        let mut client = self.clone();
        client.headers.lease = lease.parse().ok();
        client
    }

    pub(crate) fn containers(&self) -> ContainersClient<Service> {
        ContainersClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn tasks(&self) -> TasksClient<Service> {
        TasksClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn content(&self) -> ContentClient<Service> {
        ContentClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn snapshots(&self) -> SnapshotsClient<Service> {
        SnapshotsClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }

    pub(crate) fn images(&self) -> ImagesClient<Service> {
        ImagesClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn leases(&self) -> LeasesClient<Service> {
        LeasesClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }

    pub(crate) fn diff(&self) -> DiffClient<Service> {
        DiffClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }

    pub(crate) fn events(&self) -> EventsClient<Service> {
        EventsClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }

    pub(crate) fn version(&self) -> VersionClient<Service> {
        VersionClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }

    /// One call: at most `limit` per try, repeated while containerd cannot be reached.
    pub(crate) async fn call<T, F, A>(
        &self,
        call: &'static str,
        limit: Duration,
        mut attempt: F,
    ) -> Result<T, CallError>
    where
        F: FnMut() -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let give_up = Instant::now() + self.timeouts.unreachable;
        let mut pause = FIRST_PAUSE;
        let mut busy = 0;
        loop {
            let status = match tokio::time::timeout(limit, attempt()).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => return Err(CallError::timeout(call, limit)),
            };
            let broken = is_transport(&status);
            busy += u32::from(!broken);
            let again = broken || (status.code() == Code::Unavailable && busy < TRIES_WHEN_BUSY);
            if !again || Instant::now() + pause > give_up {
                return Err(self.failed(call, &status));
            }
            tracing::debug!(call, %status, "repeating a call to containerd");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One call that is not repeated, whatever happens to it.
    pub(crate) async fn call_once<T>(
        &self,
        call: &'static str,
        limit: Duration,
        attempt: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(limit, attempt).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.failed(call, &status)),
            Err(_) => Err(CallError::timeout(call, limit)),
        }
    }

    /// Words a status that ends a call or a stream.
    pub(crate) fn failed(&self, call: &'static str, status: &Status) -> CallError {
        if is_transport(status) {
            let reason = root_cause(status);
            let error = RuntimeError::Unreachable { socket: self.socket.to_string(), reason };
            return CallError { code: Code::Unavailable, error };
        }
        CallError {
            code: status.code(),
            error: RuntimeError::Call { call, message: status.message().to_owned() },
        }
    }
}

/// A status that tonic made because the connection failed; what containerd answers has no source.
pub(crate) fn is_transport(status: &Status) -> bool {
    status.source().is_some()
}

fn root_cause(status: &Status) -> String {
    let mut cause: &dyn Error = status;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

// === impl CallError ===

impl CallError {
    pub(crate) fn timeout(call: &'static str, after: Duration) -> Self {
        Self { code: Code::DeadlineExceeded, error: RuntimeError::Timeout { call, after } }
    }

    /// containerd understood the call and refused it: the same call would be refused again.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(self.code, Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled)
    }
}

impl From<CallError> for RuntimeError {
    fn from(failed: CallError) -> Self {
        failed.error
    }
}

/// A failure on the way to an answer: nothing is known about the call itself.
impl From<RuntimeError> for CallError {
    fn from(error: RuntimeError) -> Self {
        Self { code: Code::Unavailable, error }
    }
}

impl<T> Optional<T> for Result<T, CallError> {
    fn optional(self) -> Result<Option<T>, RuntimeError> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(failed) if failed.code == Code::NotFound => Ok(None),
            Err(failed) => Err(failed.error),
        }
    }
}

// === impl Headers ===

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            metadata.insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}
