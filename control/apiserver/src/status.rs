//! Every error of the API, and the `metav1.Status` it is answered as.
//!
//! In: what went wrong, by the names upstream has for it. Out: code, reason, message and details, worded so that tools
//! that match on them work. This is the only file that knows the wording.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use xebec_store::StoreError;

use crate::apply::Conflict;
use crate::body::{self, Body};
use crate::field_error::FieldError;
use crate::kinds::{Gvk, Resource};

/// An answer that is not what was asked for.
#[derive(Clone, Debug)]
pub struct ApiError {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Option<Box<Details>>,
    /// A token to go on with, in an expired list.
    continue_token: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Details {
    name: String,
    group: String,
    kind: String,
    uid: String,
    causes: Vec<Cause>,
    retry_after: Option<u32>,
}

#[derive(Clone, Debug)]
struct Cause {
    reason: String,
    message: String,
    field: String,
}

const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

// === impl ApiError: one constructor per reason ===

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continue_token: None }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        (details.group, details.kind, details.name) = (group.to_owned(), kind.to_owned(), name.to_owned());
        self
    }

    fn on(self, resource: &Resource, name: &str) -> Self {
        self.about(&resource.gvk.group, &resource.plural, name)
    }

    fn cause(
        mut self,
        reason: impl Into<String>,
        message: impl Into<String>,
        field: impl Into<String>,
    ) -> Self {
        let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after = Some(seconds);
        self
    }

    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.group_resource());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).on(resource, name)
    }

    /// A path below a known group and version that leads nowhere.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.group_resource());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).on(resource, name)
    }

    /// Every name made from `generateName` was taken.
    pub fn generate_name_exhausted(resource: &Resource, name: &str) -> Self {
        let message = format!(
            "{} {name:?} already exists, the server was not able to generate a unique name for the object",
            resource.group_resource()
        );
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).on(resource, name).retry_after(1)
    }

    /// The object is not what the writer believes it to be.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.group_resource());
        Self::new(StatusCode::CONFLICT, "Conflict", message).on(resource, name)
    }

    /// A pod that cannot be given a node.
    pub fn conflict_on_binding(name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on pods/binding {name:?}: {why}");
        Self::new(StatusCode::CONFLICT, "Conflict", message).about("", "pods/binding", name)
    }

    /// An eviction that a budget does not allow now.
    pub fn disruption_budget(message: &str, cause: &str, seconds: u32) -> Self {
        let error = Self::too_many_requests(message, seconds).cause("DisruptionBudget", cause, "");
        error.without_retry_at_zero()
    }

    fn without_retry_at_zero(mut self) -> Self {
        if let Some(details) = &mut self.details {
            details.retry_after = details.retry_after.filter(|seconds| *seconds > 0);
        }
        self
    }

    /// Someone wrote since the writer read.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        Self::conflict(resource, name, MODIFIED)
    }

    pub fn invalid(gvk: &Gvk, name: &str, errors: &[FieldError]) -> Self {
        let kind =
            if gvk.group.is_empty() { gvk.kind.to_string() } else { format!("{}.{}", gvk.kind, gvk.group) };
        let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let text = if list.len() == 1 { list[0].clone() } else { format!("[{}]", list.join(", ")) };
        let message = format!("{kind} {name:?} is invalid: {text}");
        let error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message);
        errors.iter().fold(error.about(&gvk.group, &gvk.kind, name), |error, one| {
            error.cause(one.reason.as_str(), one.message(), one.field.as_str())
        })
    }

    /// Options of a request that mean nothing.
    pub fn invalid_options(kind: &str, error: FieldError) -> Self {
        Self::invalid(&Gvk::new("meta.k8s.io", "v1", kind), "", &[error])
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// Who is asking is known and may not; `why` says what.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: impl fmt::Display) -> Self {
        let resource = match (plural.is_empty(), group.is_empty()) {
            (true, _) => String::new(),
            (false, true) => plural.to_owned(),
            (false, false) => format!("{plural}.{group}"),
        };
        let message = match (resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} {name:?} is forbidden: {why}"),
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(group, plural, name)
    }

    /// A binding of a role that does not exist, by somebody who would have to hold what the role allows.
    pub fn rbac_role_not_found(group: &str, kind: &str, plural: &str, name: &str) -> Self {
        let message = format!("{kind}.{group} {name:?} not found");
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(group, plural, name)
    }

    /// A creation in a namespace that is on its way out.
    pub fn namespace_terminating(resource: &Resource, name: &str, namespace: &str) -> Self {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let gvk = &resource.gvk;
        let message = format!("namespace {namespace} is being terminated");
        Self::forbidden(&gvk.group, &resource.plural, name, why).cause(
            "NamespaceTerminating",
            message,
            "metadata.namespace",
        )
    }

    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// The resource does not know the verb.
    pub fn method_not_supported(resource: &Resource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind {:?}", resource.group_resource());
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).on(resource, "")
    }

    /// No object is made of a kind whose definition is on its way out.
    pub fn definition_terminating(resource: &Resource) -> Self {
        let message = "create not allowed while custom resource definition is terminating";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).on(resource, "")
    }

    /// The path does not know the HTTP method.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// A watch or exact list from before what is kept.
    pub fn too_old(asked: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    /// A list that took longer than history is kept; `fresh` continues with what is there now.
    pub fn continue_expired(fresh: String) -> Self {
        let mut error = Self::expired(
            "The provided continue parameter is too old to display a consistent list result. List anew without \
             it, or go on with the continue token of this response, which is not of the same snapshot.",
        );
        error.continue_token = Some(fresh);
        error
    }

    /// A revision that is still to come.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
            .cause("ResourceVersionTooLarge", "Too large resource version", "")
            .retry_after(1)
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", format!("Timeout: {}", message.into()))
    }

    pub fn too_many_requests(message: impl Into<String>, seconds: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).retry_after(seconds)
    }

    pub fn request_entity_too_large(limit: usize) -> Self {
        let message = format!("Request entity is too large: limit is {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub fn not_acceptable(accepted: &str) -> Self {
        let message = format!("only the following media types are accepted: {accepted}");
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    pub fn internal(message: impl fmt::Display) -> Self {
        let text = format!("Internal error occurred: {message}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text).cause("", message.to_string(), "")
    }

    /// An update that must say which state it replaces, and does not.
    pub fn must_specify_version(gvk: &Gvk, name: &str) -> Self {
        let error = FieldError::invalid(
            "metadata.resourceVersion",
            &Value::from(0),
            "must be specified for an update",
        );
        Self::invalid(gvk, name, &[error])
    }

    /// A patch whose outcome is no object of the kind; `patch` is the patch as upstream shows it.
    pub fn patch_invalid(patch: &str, why: impl Into<String>) -> Self {
        Self::invalid(&Gvk::new("", "", ""), "", &[FieldError::invalid("patch", &patch.into(), why)])
    }

    /// A patch that does not fit the object.
    pub fn patch_failed(why: impl Into<String>) -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).cause(
            "UnexpectedServerResponse",
            why,
            "",
        )
    }

    pub fn too_many_operations(limit: usize, count: usize) -> Self {
        let message = format!(
            "Request entity is too large: The allowed maximum operations in a JSON patch is {limit}, got {count}"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// An application of fields that others own: one cause each.
    pub(crate) fn apply_conflict(conflicts: &[Conflict]) -> Self {
        let message = match conflicts {
            [one] => format!("Apply failed with 1 conflict: conflict with {}: {}", one.owner, one.path),
            many => {
                let mut owners: Vec<&str> = many.iter().map(|conflict| conflict.owner.as_str()).collect();
                owners.sort_unstable();
                owners.dedup();
                let parts: Vec<String> = owners
                    .into_iter()
                    .map(|owner| {
                        let of = many.iter().filter(|conflict| conflict.owner == owner);
                        let lines: Vec<String> = of.map(|conflict| format!("- {}", conflict.path)).collect();
                        format!("conflicts with {owner}:\n{}", lines.join("\n"))
                    })
                    .collect();
                format!("Apply failed with {} conflicts: {}", many.len(), parts.join("\n"))
            }
        };
        conflicts.iter().fold(Self::new(StatusCode::CONFLICT, "Conflict", message), |error, conflict| {
            error.cause("FieldManagerConflict", format!("conflict with {}", conflict.owner), &*conflict.path)
        })
    }

    /// An answer of another server (a kubelet) passed on.
    pub fn upstream(code: StatusCode, message: impl Into<String>) -> Self {
        let reason = match code {
            StatusCode::NOT_FOUND => "NotFound",
            StatusCode::BAD_REQUEST => "BadRequest",
            StatusCode::FORBIDDEN => "Forbidden",
            StatusCode::UNAUTHORIZED => "Unauthorized",
            _ => "InternalError",
        };
        Self::new(code, reason, message)
    }
}

// === impl ApiError: what it says ===

impl ApiError {
    pub fn code(&self) -> StatusCode {
        self.code
    }

    pub fn reason(&self) -> &'static str {
        self.reason
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether it names this object.
    pub(crate) fn is_about(&self, resource: &Resource, name: &str) -> bool {
        self.details.as_ref().is_some_and(|details| {
            (&*details.group, &*details.kind, &*details.name)
                == (&*resource.gvk.group, resource.plural.as_str(), name)
        })
    }

    /// The `Status` object, as in a body or in an ERROR event of a watch.
    pub fn to_status(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(token) = &self.continue_token {
            metadata.insert("continue".into(), token.as_str().into());
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        if let Some(details) = &self.details {
            status["details"] = details.to_json();
        }
        status
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(body::full(self.to_status().to_string()));
        *response.status_mut() = self.code;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.details.and_then(|details| details.retry_after) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl Details {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !text.is_empty() {
                out.insert(key.into(), text.as_str().into());
            }
        }
        let causes: Vec<Value> = self.causes.iter().map(Cause::to_json).collect();
        if !causes.is_empty() {
            out.insert("causes".into(), causes.into());
        }
        if let Some(seconds) = self.retry_after {
            out.insert("retryAfterSeconds".into(), seconds.into());
        }
        Value::Object(out)
    }
}

impl Cause {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                out.insert(key.into(), text.as_str().into());
            }
        }
        Value::Object(out)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// The `Status` of a deletion that left nothing to return.
pub(crate) fn deleted(resource: &Resource, name: &str, uid: &str) -> Value {
    let details = Details {
        name: name.to_owned(),
        group: resource.gvk.group.to_string(),
        kind: resource.plural.clone(),
        uid: uid.to_owned(),
        ..Details::default()
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details.to_json(),
    })
}

/// The `Status` of a sub-resource's creation that has no object (binding, eviction).
pub(crate) fn success(code: StatusCode) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code.as_u16() })
}

/// Every writer meets the same fault while a disk is full: it is told now and then, not for each of them.
fn log_failure(error: &StoreError) {
    static SILENT_UNTIL: AtomicI64 = AtomicI64::new(0);
    static UNTOLD: AtomicU64 = AtomicU64::new(0);
    const SILENCE_SECONDS: i64 = 10;
    let now = jiff::Timestamp::now().as_second();
    if SILENT_UNTIL.fetch_max(now, Ordering::Relaxed) > now {
        UNTOLD.fetch_add(1, Ordering::Relaxed);
        return;
    }
    SILENT_UNTIL.store(now + SILENCE_SECONDS, Ordering::Relaxed);
    let untold = UNTOLD.swap(0, Ordering::Relaxed);
    tracing::error!(%error, untold, "the store failed; further failures are counted for {SILENCE_SECONDS} s");
}

/// What a failing store means to a client.
pub(crate) fn from_store(error: &StoreError) -> ApiError {
    match error {
        StoreError::Compacted { oldest } => ApiError::too_old(0, oldest.0),
        other => {
            log_failure(other);
            ApiError::internal(other)
        }
    }
}
