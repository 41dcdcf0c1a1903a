//! `exec`, `attach`, `portforward`: a client's streams passed on to the kubelet of the pod's node.
//!
//! In: the pod, the options of the query, a request to upgrade. Out: the kubelet's answer, and a tunnel to it.

use http::{Request, Response, StatusCode};
use serde_json::Value;

use super::log::container;
use crate::authz::{self, Attributes};
use crate::body::{self, Body};
use crate::dispatch::Call;
use crate::kubelet::{self, Target};
use crate::meta;
use crate::options::Query;
use crate::status::ApiError;
use crate::tunnel;

pub(super) async fn connect(call: &Call<'_>, mut request: Request<Body>) -> Result<Response<Body>, ApiError> {
    may_create(call)?;
    let registry = call.cx.registry;
    let pod = registry.get(call.served, call.namespace, &call.info.name)?.decode()?;
    let path = path(call, &pod)?;
    let node = meta::text(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", call.info.name)));
    }
    if !tunnel::is_wanted(request.headers()) {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let place = tunnel::place()?;
    let node = registry.get(registry.kinds.core("nodes"), None, node)?.decode()?;
    let mut passed_on = Request::new(body::empty());
    *passed_on.method_mut() = request.method().clone();
    *passed_on.headers_mut() = tunnel::headers_of(request.headers());
    *passed_on.uri_mut() =
        path.parse().map_err(|error| ApiError::bad_request(format!("{path:?}: {error}")))?;
    let client = hyper::upgrade::on(&mut request);
    let answer = kubelet::send(&registry.config, &Target::of(&node)?, passed_on).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(tunnel::join(client, answer, place));
    }
    Err(refused(answer).await)
}

/// Streams into containers are made, whatever method they begin with: who may only `get` must not get a shell because
/// WebSockets begin with a GET.
pub(super) fn may_create(call: &Call<'_>) -> Result<(), ApiError> {
    if call.info.verb == "create" {
        return Ok(());
    }
    let mut info = call.info.clone();
    info.verb = "create";
    let asked = Attributes::of(&info, "");
    if authz::allows(call.cx.registry, call.cx.user, &asked).is_some() {
        return Ok(());
    }
    let why = authz::denial(call.cx.user, &asked);
    Err(ApiError::forbidden(&info.group, &info.resource, &info.name, why))
}

/// What the kubelet said instead of an upgrade.
pub(super) async fn refused(answer: Response<hyper::body::Incoming>) -> ApiError {
    use http_body_util::BodyExt;
    let code = answer.status();
    let text = match body::read(answer.into_body().map_err(Into::into).boxed_unsync()).await {
        Ok(text) => String::from_utf8_lossy(&text).trim().to_owned(),
        Err(error) => return error,
    };
    ApiError::upstream(code, format!("unable to upgrade connection: {text}"))
}

/// The kubelet's path, with the options under its names for them.
fn path(call: &Call<'_>, pod: &Value) -> Result<String, ApiError> {
    let (namespace, name) = (call.namespace.unwrap_or_default(), &call.info.name);
    let mut query = form_urlencoded::Serializer::new(String::new());
    if call.info.subresource == "portforward" {
        for ports in call.query.all("ports") {
            query.append_pair("port", ports);
        }
        let uid = meta::uid(pod);
        return Ok(format!("/portForward/{namespace}/{name}/{uid}?{}", query.finish()));
    }
    let container = container(pod, call.query.get("container").unwrap_or_default())?;
    for (ours, kubelets) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if call.query.flag(ours) {
            query.append_pair(kubelets, "1");
        }
    }
    check(call.query, &call.info.subresource)?;
    for word in call.query.all("command") {
        query.append_pair("command", word);
    }
    Ok(format!("/{}/{namespace}/{name}/{container}?{}", call.info.subresource, query.finish()))
}

fn check(query: &Query, subresource: &str) -> Result<(), ApiError> {
    if !["stdin", "stdout", "stderr"].into_iter().any(|stream| query.flag(stream)) {
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    if subresource == "exec" && query.all("command").next().is_none() {
        return Err(ApiError::bad_request("you must specify a command"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_and_a_command_are_needed() {
        let check =
            |query: &str, what| check(&Query::parse(Some(query)), what).map_err(|e| e.code().as_u16());
        assert_eq!(check("command=ls&stdout=true", "exec"), Ok(()));
        assert_eq!(check("command=ls&stdout=false", "exec"), Err(400));
        assert_eq!(check("stdout=true", "exec"), Err(400));
        assert_eq!(check("stdin=1", "attach"), Ok(()));
    }
}
