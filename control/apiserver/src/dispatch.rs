//! From a permitted request to the code that answers it.
//!
//! In: request info, query, body. Out: the answer of discovery, health, a review, a sub-resource or the registry.

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use serde_json::Value;

use crate::body::{self, Body};
use crate::codec::{self, Decoded};
use crate::discovery;
use crate::facts::Filter;
use crate::field_error::FieldError;
use crate::health;
use crate::kinds::Verb;
use crate::list::{self, Listing};
use crate::negotiate::{Output, SchemaOutput};
use crate::openapi;
use crate::options::{DeleteOptions, ListOptions, Query, WriteOptions};
use crate::registry::delete::{self, Deleted};
use crate::registry::patch::Patch;
use crate::registry::update::{self, Door, Edit};
use crate::registry::{Cx, Served, apply, create, input};
use crate::request::RequestInfo;
use crate::review;
use crate::server::ApiServer;
use crate::status::{self, ApiError};
use crate::subresource;
use crate::token;
use crate::version;
use crate::view::View;
use crate::watch;

/// Answers a request that may be made.
pub(crate) async fn dispatch(
    server: &ApiServer,
    cx: &Cx<'_>,
    info: &RequestInfo,
    query: &Query,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    if !info.is_resource_request {
        return non_resource(server, cx, info, query, request.headers()).boxed().await;
    }
    let (group, version) = (&info.group, &info.version);
    let Some(served) = cx.registry.served(group, version, &info.resource) else {
        return Ok(not_found_page());
    };
    if served.resource.namespaced && info.namespace.is_none() && !info.name.is_empty() {
        return Ok(not_found_page());
    }
    if !served.resource.namespaced && info.namespace.is_some() && info.resource != "namespaces" {
        return Ok(not_found_page());
    }
    // A Namespace is not in a namespace: its path only looks as if.
    let namespace = info.namespace.as_deref().filter(|_| served.resource.namespaced);
    if let Some(warning) = served.custom.as_ref().and_then(|custom| custom.deprecation.as_ref()) {
        cx.warn(warning);
    }
    if let Some(warning) = served.resource.deprecation() {
        cx.warn(warning);
    }
    let call = Call { cx, served: &served, namespace, info, query };
    if review::is_review(&served.resource) {
        return review::respond(&call, request).boxed().await;
    }
    if !info.subresource.is_empty() {
        return subresource::respond(&call, request).boxed().await;
    }
    if (group.as_str(), info.resource.as_str()) == ("", "bindings") {
        return subresource::binding::create(&call, request).boxed().await;
    }
    // What is in no namespace is deleted one namespace at a time: upstream has no such path for all of them.
    let everywhere = info.verb == "deletecollection" && served.resource.namespaced && namespace.is_none();
    if everywhere || !call.is_allowed() {
        return Err(ApiError::method_not_supported(&served.resource, info.verb));
    }
    match info.verb {
        "get" => call.get(request.headers()),
        "list" => call.list(request.headers()),
        "watch" => call.watch(request.headers()),
        "create" => call.create(request).boxed().await,
        "update" => call.update(request, Door::Main).boxed().await,
        "patch" => call.patch(request, Door::Main).boxed().await,
        "delete" => call.delete(request).boxed().await,
        "deletecollection" => call.delete_collection(request).boxed().await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// What upstream's router says about paths nobody serves.
fn not_found_page() -> Response<Body> {
    health::text(StatusCode::NOT_FOUND, "404 page not found\n".into())
}

pub(crate) fn json_response(code: StatusCode, document: &Value) -> Response<Body> {
    json_text(code, document.to_string().into())
}

fn json_text(code: StatusCode, text: Bytes) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn non_resource(
    server: &ApiServer,
    cx: &Cx<'_>,
    info: &RequestInfo,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    if !matches!(info.verb, "get" | "head") {
        return Err(ApiError::method_not_allowed());
    }
    let verifier = &cx.registry.config.tokens.verifier;
    let document = match info.path.trim_end_matches('/') {
        "/metrics" => return cx.registry.metrics.respond(cx.registry),
        "" => {
            let groups = [
                "/api",
                "/apis",
                "/healthz",
                "/livez",
                "/metrics",
                "/openapi/v2",
                "/openapi/v3",
                "/readyz",
                "/version",
            ];
            serde_json::json!({ "paths": groups })
        }
        "/version" => version::info(),
        "/.well-known/openid-configuration" => token::openid_configuration(verifier.issuer()),
        "/openid/v1/jwks" => token::json_web_key_set(verifier.keys()),
        path => {
            if let Some(response) = health::respond(server, path, query) {
                return Ok(response);
            }
            let catalog = cx.registry.catalog();
            if let Some(answer) = discovery::respond(&catalog, path, headers) {
                return answer;
            }
            if !path.starts_with(openapi::ROOT) {
                return Ok(not_found_page());
            }
            let output =
                if path == openapi::V2 { SchemaOutput::negotiate(headers)? } else { SchemaOutput::Json };
            return Ok(match cx.registry.documents.get(catalog, path, output).await? {
                Some(bytes) if output == SchemaOutput::Protobuf => openapi::protobuf_response(bytes),
                Some(text) => json_text(StatusCode::OK, text),
                None => not_found_page(),
            });
        }
    };
    Ok(json_response(StatusCode::OK, &document))
}

/// A request on a resource, taken apart.
pub(crate) struct Call<'a> {
    pub(crate) cx: &'a Cx<'a>,
    pub(crate) served: &'a Served,
    /// That of the path, for namespaced resources.
    pub(crate) namespace: Option<&'a str>,
    pub(crate) info: &'a RequestInfo,
    pub(crate) query: &'a Query,
}

// === impl Call ===

impl Call<'_> {
    fn is_allowed(&self) -> bool {
        self.served.resource.verbs.iter().any(|verb| verb.as_str() == self.info.verb)
    }

    pub(crate) fn view(&self, headers: &HeaderMap) -> Result<View, ApiError> {
        View::new(self.served, Output::negotiate(headers)?, self.query)
    }

    fn get(&self, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
        let view = self.view(headers)?;
        let version = self.query.get("resourceVersion").unwrap_or_default();
        if !version.is_empty() {
            let asked: u64 = version.parse().map_err(|_| {
                ApiError::bad_request(format!("Invalid value: {version:?}: a resource version is a number"))
            })?;
            let current = self.cx.registry.store.revision().0;
            if asked > current {
                return Err(ApiError::too_large_resource_version(asked, current));
            }
        }
        let stored = self.cx.registry.get(self.served, self.namespace, &self.info.name)?;
        view.respond(StatusCode::OK, &stored)
    }

    fn filter(&self, options: &ListOptions) -> Result<Filter, ApiError> {
        Filter::parse(self.served, &options.label_selector, &options.field_selector)
    }

    fn list(&self, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
        let view = self.view(headers)?;
        let options = ListOptions::parse(self.query)?;
        let filter = self.filter(&options)?;
        let store = &self.cx.registry.store;
        view.list(list::list(store, &self.served.resource, self.namespace, &options, &filter)?)
    }

    fn watch(&self, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
        let view = self.view(headers)?;
        let options = ListOptions::parse(self.query)?;
        let filter = self.filter(&options)?;
        watch::watch(self.cx.registry, self.served, self.namespace, &options, filter, view)
    }

    async fn create(&self, request: Request<Body>) -> Result<Response<Body>, ApiError> {
        if !self.info.name.is_empty() {
            return Err(ApiError::method_not_allowed());
        }
        let (view, options) =
            (self.view(request.headers())?, WriteOptions::parse(self.query, "CreateOptions")?);
        let body = read(request).await?;
        let stored = create::create(self.cx, self.served, self.namespace, body, &options).await?;
        view.respond(StatusCode::CREATED, &stored)
    }

    fn edit<'e>(&'e self, door: Door, verb: Verb, options: &'e WriteOptions) -> Edit<'e> {
        Edit {
            served: self.served,
            namespace: self.namespace,
            name: &self.info.name,
            door,
            verb,
            options,
            records: false,
        }
    }

    pub(crate) async fn update(
        &self,
        request: Request<Body>,
        door: Door,
    ) -> Result<Response<Body>, ApiError> {
        if self.info.name.is_empty() {
            return Err(ApiError::method_not_allowed());
        }
        let (view, options) =
            (self.view(request.headers())?, WriteOptions::parse(self.query, "UpdateOptions")?);
        let body = read(request).await?;
        let mut object = input::check(self.cx, self.served, body, options.field_validation)?;
        create::set_namespace(&mut object, self.namespace)?;
        let edit = self.edit(door, Verb::Update, &options);
        let updated = update::update(self.cx, edit, |_| Ok(object.clone())).await?;
        let code = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
        view.respond(code, &updated.stored)
    }

    pub(crate) async fn patch(&self, request: Request<Body>, door: Door) -> Result<Response<Body>, ApiError> {
        if self.info.name.is_empty() {
            return Err(ApiError::method_not_allowed());
        }
        let (view, options) =
            (self.view(request.headers())?, WriteOptions::parse(self.query, "PatchOptions")?);
        let media_type = codec::media_type(request.headers()).to_owned();
        if media_type == apply::MEDIA_TYPE {
            let body = body::read(request.into_body()).await?;
            let applied = apply::apply(self.cx, self.edit(door, Verb::Patch, &options), &body).await?;
            let code = if applied.created { StatusCode::CREATED } else { StatusCode::OK };
            return view.respond(code, &applied.stored);
        }
        if options.force {
            let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
            return Err(ApiError::invalid_options("PatchOptions", error));
        }
        let patch = Patch::parse(&media_type, &body::read(request.into_body()).await?)?;
        let gvk = &self.served.resource.gvk;
        let edit = self.edit(door, Verb::Patch, &options);
        let updated = update::update(self.cx, edit, |current| {
            let patched = patch.apply(gvk, current)?;
            input::check_patched(self.cx, self.served, &patch, patched, options.field_validation)
        })
        .await?;
        view.respond(StatusCode::OK, &updated.stored)
    }

    async fn delete(&self, request: Request<Body>) -> Result<Response<Body>, ApiError> {
        let view = self.view(request.headers())?;
        let options = delete_options(self.query, request).await?;
        let deleted = delete::delete(self.cx, self.served, self.namespace, &self.info.name, &options).await?;
        match deleted {
            Deleted::Pending(stored) => view.respond(StatusCode::OK, &stored),
            Deleted::Gone(stored) if self.served.traits().returns_deleted => {
                view.respond(StatusCode::OK, &stored)
            }
            Deleted::Gone(stored) => {
                let uid = crate::meta::uid(&stored.decode()?).to_owned();
                let answer = status::deleted(&self.served.resource, &self.info.name, &uid);
                Ok(json_response(StatusCode::OK, &answer))
            }
        }
    }

    async fn delete_collection(&self, request: Request<Body>) -> Result<Response<Body>, ApiError> {
        let view = self.view(request.headers())?;
        let list_options = ListOptions::parse(self.query)?;
        let filter = self.filter(&list_options)?;
        let options = delete_options(self.query, request).await?;
        let store = &self.cx.registry.store;
        let found = list::list(store, &self.served.resource, self.namespace, &list_options, &filter)?;
        let mut items = Vec::with_capacity(found.items.len());
        for stored in found.items {
            let object = stored.decode()?;
            let namespace = Some(crate::meta::namespace(&object)).filter(|namespace| !namespace.is_empty());
            match delete::delete(self.cx, self.served, namespace, crate::meta::name(&object), &options).await
            {
                Ok(Deleted::Gone(stored) | Deleted::Pending(stored)) => items.push(stored),
                // Someone else was quicker.
                Err(error) if error.code() == StatusCode::NOT_FOUND => {}
                Err(error) => return Err(error),
            }
        }
        view.list(Listing { items, revision: store.revision(), continue_token: None, remaining: None })
    }
}

/// The body of a request as a tree.
pub(crate) async fn read(request: Request<Body>) -> Result<Decoded, ApiError> {
    let (head, body) = request.into_parts();
    codec::decode_body(&head.headers, &body::read(body).await?)
}

async fn delete_options(query: &Query, request: Request<Body>) -> Result<DeleteOptions, ApiError> {
    let (head, body) = request.into_parts();
    let bytes = body::read(body).await?;
    if bytes.is_empty() {
        return DeleteOptions::parse(query, None);
    }
    let body = codec::decode_body(&head.headers, &bytes)?.value;
    DeleteOptions::parse(query, Some(&body))
}
