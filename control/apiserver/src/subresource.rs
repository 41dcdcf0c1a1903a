//! The doors to parts of objects: status, scale, binding, eviction, token, log,
//! finalize, and the ways into running containers: exec, attach, portforward, proxy.
//!
//! In: a request on a sub-resource. Out: its answer; what is not served is 404, what is not done there 405.

use futures::FutureExt;
use http::{Request, Response, StatusCode};

use crate::body::Body;
use crate::dispatch::{self, Call};
use crate::kinds::Verb;
use crate::meta;
use crate::options::WriteOptions;
use crate::registry::input;
use crate::registry::update::{self, Door, Edit};
use crate::status::ApiError;

pub(crate) mod binding;
mod eviction;
mod log;
mod proxy;
mod scale;
mod stream;
mod token;

/// Answers a request on a sub-resource.
pub(crate) async fn respond(call: &Call<'_>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let (resource, name) = (&call.served.resource, call.info.subresource.as_str());
    let may_trail = |name: &str| name == "proxy" || call.info.trailing.is_empty();
    let Some(subresource) = resource.subresource(name).filter(|known| may_trail(known.name)) else {
        return Err(ApiError::no_such_path());
    };
    if !subresource.verbs.iter().any(|verb| verb.as_str() == call.info.verb) {
        return Err(ApiError::method_not_allowed());
    }
    match name {
        "status" | "approval" => match call.info.verb {
            "get" => {
                let stored = call.cx.registry.get(call.served, call.namespace, &call.info.name)?;
                call.view(request.headers())?.respond(StatusCode::OK, &stored)
            }
            "update" => call.update(request, Door::Status).await,
            _ => call.patch(request, Door::Status).await,
        },
        "scale" => scale::respond(call, request).boxed().await,
        "binding" => binding::create(call, request).boxed().await,
        "eviction" => eviction::create(call, request).boxed().await,
        "token" => token::create(call, request).boxed().await,
        "log" => log::get(call).boxed().await,
        "exec" | "attach" | "portforward" => stream::connect(call, request).boxed().await,
        "proxy" => proxy::connect(call, request).boxed().await,
        "finalize" => finalize(call, request).boxed().await,
        _ => Err(ApiError::no_such_path()),
    }
}

/// Replaces the finalizers in the spec of a Namespace; without any, a Namespace that waits for deletion goes.
async fn finalize(call: &Call<'_>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let (view, options) = (call.view(request.headers())?, WriteOptions::parse(call.query, "UpdateOptions")?);
    let body = dispatch::read(request).await?;
    let wanted = input::check(call.cx, &call.served.resource.gvk, body, options.field_validation)?;
    let edit = Edit {
        served: call.served,
        namespace: None,
        name: &call.info.name,
        door: Door::Own,
        verb: Verb::Update,
        options: &options,
        records: false,
    };
    let updated = update::update(call.cx, edit, |mut current| {
        let finalizers = meta::at(&wanted, &["spec", "finalizers"]).cloned();
        meta::set(&mut current, &["spec", "finalizers"], finalizers);
        // Whose state the caller saw.
        let version = meta::at(&wanted, &["metadata", "resourceVersion"]).cloned();
        meta::set(&mut current, &["metadata", "resourceVersion"], version);
        Ok(current)
    })
    .await?;
    view.respond(StatusCode::OK, &updated.stored)
}
